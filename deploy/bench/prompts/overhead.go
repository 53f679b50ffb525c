package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/sametick/sametick/deploy/bench/internal/rig"
	promptsv1 "github.com/sametick/sametick/proto/gen/go/sametick/prompts/v1"
)

const (
	legWrites    = "record create, no hook matches"
	legWriteCost = "processor time of a record: api-gateway, relay, prompt-worker, Postgres, Redis"
	legParts     = "processor time of a record by process"
	legSlower    = "slower with prompt-worker"

	withWorker    = "with prompt-worker"
	withoutWorker = "without"

	// settle is how long what a slice has led to may go on after it; it counts as the slice's.
	settle = 500 * time.Millisecond
)

// side is a suite of its own: database, Redis database, relay, gateway, and maybe a prompt-worker.
type side struct {
	name    string
	world   *world
	gateway *rig.Process
	worker  *rig.Process // nil without
	writers []*writer
	end     func() error
}

// overhead writes to a suite with prompt-worker, whose hooks match nothing of it, and to one that knows no prompt-worker, in
// short turns.
func (b *bench) overhead(ctx context.Context) (err error) {
	var sides []*side
	defer func() {
		for _, s := range sides {
			err = errors.Join(err, s.close())
		}
	}()
	for n, name := range []string{withoutWorker, withWorker} {
		s, err := b.side(ctx, name, n)
		if err != nil {
			return err
		}
		sides = append(sides, s)
	}
	for pair := range b.pairs + 1 { // the first warms up and is thrown away
		var took [2]slice
		for i := range sides {
			n := (i + pair) % len(sides)
			if took[n], err = b.slice1(ctx, sides[n]); err != nil {
				return fmt.Errorf("%s: %w", sides[n].name, sides[n].gateway.Blame(err))
			}
			b.say("  pair %d, %s: %.0f records/s; processor µs a record: %.0f, of it prompt-worker %.0f", pair, sides[n].name, took[n].rate, took[n].cpu, took[n].parts["prompt-worker"])
			if pair == 0 {
				continue
			}
			b.report.Add(legWrites, sides[n].name, "records/s", took[n].rate)
			b.report.Add(legWriteCost, sides[n].name, "µs", took[n].cpu)
			for name, part := range took[n].parts {
				b.report.Add(legParts, sides[n].name+", "+name, "µs", part)
			}
		}
		if pair > 0 {
			b.report.Add(legSlower, "rate", "share", 1-took[1].rate/took[0].rate)
			b.report.Add(legSlower, "processor time", "share", took[1].cpu/took[0].cpu-1)
		}
	}
	return sides[1].checkUntouched(ctx)
}

func (b *bench) side(ctx context.Context, name string, n int) (s *side, err error) {
	s = &side{name: name}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.close())
		}
	}()
	services, prompts := []string{}, "127.0.0.1:1" // nobody listens there
	if name == withWorker {
		services = []string{"prompt-worker"}
	}
	if s.world, err = b.newWorld(ctx, fmt.Sprintf("overhead%d", n), 4+n, services...); err != nil {
		return s, err
	}
	if name == withWorker {
		if s.worker, err = ready(ctx)(s.world.worker(ctx)); err != nil {
			return s, err
		}
		prompts = s.worker.GRPC
	}
	if s.gateway, err = s.world.gateway(ctx, prompts); err != nil {
		return s, err
	}
	if name == withWorker {
		if err := b.elsewhere(ctx, s.gateway); err != nil {
			return s, err
		}
	}
	s.writers, s.end, err = b.dialSome(s.gateway, 1, b.clients)
	return s, err
}

// elsewhere makes a review and an async hook of another type of the same organisation, and of the same type in another one.
func (b *bench) elsewhere(ctx context.Context, gateway *rig.Process) error {
	for org, typ := range map[int64]string{1: "employee", 2: "task"} {
		async := &promptsv1.CreateHookRequest{Name: "outputs", Mode: "async", EventTypes: []string{typ + ".post_create"},
			Rules: []*promptsv1.Rule{{Id: "name", Expression: `event.payload.record_name`}}}
		if err := errors.Join(b.hook(ctx, gateway, org, saneWrites(typ+".pre_create")), b.hook(ctx, gateway, org, async)); err != nil {
			return err
		}
	}
	return nil
}

func (s *side) close() (err error) {
	if s.end != nil {
		err = s.end()
	}
	for _, p := range []*rig.Process{s.gateway, s.worker} {
		if p != nil {
			err = errors.Join(err, p.Stop())
		}
	}
	if s.world != nil {
		err = errors.Join(err, s.world.close())
	}
	return err
}

// slice is what one turn came to.
type slice struct {
	rate float64 // records/s
	cpu  float64 // µs a record
	// parts of it by process.
	parts map[string]float64
}

func (b *bench) slice1(ctx context.Context, s *side) (out slice, err error) {
	if _, err := s.world.pool.Exec(ctx, `CHECKPOINT`); err != nil {
		return out, err
	}
	before, err := b.cpu(s)
	if err != nil {
		return out, err
	}
	group, groupCtx := errgroup.WithContext(ctx)
	if b.profile && s.worker != nil {
		group.Go(func() error {
			return s.worker.Profile(groupCtx, int(b.slice/time.Second), filepath.Join(b.out, "prompt-worker-overhead.pprof"))
		})
	}
	n, took, err := writeAll(ctx, s.writers, b.slice)
	if err = errors.Join(err, group.Wait()); err != nil {
		return out, err
	}
	if err := wait(ctx, settle); err != nil {
		return out, err
	}
	after, err := b.cpu(s)
	out = slice{rate: float64(n) / took.Seconds(), parts: map[string]float64{}}
	for name, now := range after {
		out.parts[name] = micros(now-before[name], n)
		out.cpu += out.parts[name]
	}
	return out, err
}

// cpu is the processor time that everything of a side has used, by process. Postgres and Redis are both sides'.
func (b *bench) cpu(s *side) (map[string]time.Duration, error) {
	postgres, redis, err := b.rig.ServersCPU()
	if err != nil {
		return nil, err
	}
	out := map[string]time.Duration{"Postgres": postgres, "Redis": redis}
	for name, p := range map[string]*rig.Process{"api-gateway": s.gateway, "outbox-relay": s.world.relay, "prompt-worker": s.worker} {
		if p == nil {
			continue
		}
		if out[name], err = p.CPU(); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// checkUntouched makes sure that prompt-worker has gone through all events, and that no hook has run on one.
func (s *side) checkUntouched(ctx context.Context) error {
	err := until(ctx, s.worker, 20*time.Second, "prompt-worker lags", func() (caught bool, err error) {
		err = s.world.pool.QueryRow(ctx, `SELECT sum(c.position) = (SELECT count(*) FROM sametick.events) FROM sametick.consumer_cursors c WHERE c.consumer = 'prompts'`).Scan(&caught)
		return caught, err
	})
	if err != nil {
		return err
	}
	var runs int
	if err := s.world.pool.QueryRow(ctx, `SELECT (SELECT count(*) FROM sametick.prompt_runs) + (SELECT count(*) FROM sametick.prompt_queue)`).Scan(&runs); err != nil {
		return err
	}
	if runs != 0 {
		return fmt.Errorf("%d runs of hooks that match nothing", runs)
	}
	return nil
}
