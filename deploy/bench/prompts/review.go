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
	legReview = "record create at 500 writes/s"
	legAdded  = "what a review by rules adds to a write"
	// legAddedCost leaves out the relay, which has the same to do for both.
	legAddedCost = "processor time of a write: api-gateway, prompt-worker, Postgres"

	reviewed   = "reviewed by rules"
	unreviewed = "no hook"

	// writesPerSecond is the rate that the target is quoted for.
	writesPerSecond = 500
	warmup          = time.Second
	// connections of the writers.
	connections = 16
)

// The organisations of this leg.
const (
	orgReviewed   = 1
	orgUnreviewed = 2
)

// reviews measures writes of an organisation with a hook of rules beside those of one without, in turn, through the same
// gateway. Verdicts of rules are never cached, and no two writes are alike.
func (b *bench) reviews(ctx context.Context) (err error) {
	w, err := b.newWorld(ctx, "review", 3, "prompt-worker")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.close()) }()
	worker, err := ready(ctx)(w.worker(ctx))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, worker.Stop()) }()
	gateway, err := w.gateway(ctx, worker.GRPC)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, gateway.Stop()) }()
	if err := b.hook(ctx, gateway, orgReviewed, saneWrites("task.pre_create")); err != nil {
		return err
	}
	var took [2]paced // of this round
	sides := []struct {
		name string
		org  int64
	}{{unreviewed, orgUnreviewed}, {reviewed, orgReviewed}}
	judged := 0
	for round := range b.rounds + 1 {
		for i := range sides {
			n := (i + round) % len(sides)
			if took[n], err = b.paced(ctx, gateway, worker, sides[n].org); err != nil {
				return fmt.Errorf("%s: %w", sides[n].name, gateway.Blame(worker.Blame(err)))
			}
			b.sayPaced(round, sides[n].name, took[n])
			if round > 0 {
				b.report.Add(legReview, sides[n].name+", p50", "ms", took[n].p50)
				b.report.Add(legReview, sides[n].name+", p99", "ms", took[n].p99)
				b.report.Add(legAddedCost, sides[n].name, "µs", took[n].cpu)
			}
		}
		judged += writesPerSecond * int((warmup+b.seconds)/time.Second)
		if round > 0 {
			b.report.Add(legAdded, "p50", "ms", took[1].p50-took[0].p50)
			b.report.Add(legAdded, "p99", "ms", took[1].p99-took[0].p99)
		}
	}
	return checkReviews(ctx, w, gateway, worker, judged)
}

// saneWrites are the rules of prompt-worker's README.
func saneWrites(eventType string) *promptsv1.CreateHookRequest {
	return &promptsv1.CreateHookRequest{Name: "sane writes", Mode: "review", EventTypes: []string{eventType}, Rules: []*promptsv1.Rule{
		{Id: "title", Reason: "a task needs a title", Expression: `event.aggregate_type == "task" && after.name.trim() == ""`},
		{Id: "raise", Reason: "a raise of 200 % or more", Expression: `"attributes.salary" in changed && has(before.attributes.salary) && has(after.attributes.salary) && double(after.attributes.salary) >= 3.0 * double(before.attributes.salary)`},
	}}
}

func (b *bench) paced(ctx context.Context, gateway, worker *rig.Process, org int64) (p paced, err error) {
	list, end, err := b.dialSome(gateway, org, connections)
	if err != nil {
		return p, err
	}
	defer func() { err = errors.Join(err, end()) }()
	before, err := b.reviewCPU(gateway, worker)
	if err != nil {
		return p, err
	}
	group, groupCtx := errgroup.WithContext(ctx)
	if b.profile && org == orgReviewed {
		seconds := int(b.seconds / time.Second)
		group.Go(func() error { return gateway.Profile(groupCtx, seconds, filepath.Join(b.out, "api-gateway.pprof")) })
		group.Go(func() error {
			return worker.Profile(groupCtx, seconds, filepath.Join(b.out, "prompt-worker-review.pprof"))
		})
	}
	group.Go(func() (err error) {
		p, err = writePaced(groupCtx, list, writesPerSecond, warmup, b.seconds)
		return err
	})
	if err := group.Wait(); err != nil {
		return p, err
	}
	after, err := b.reviewCPU(gateway, worker)
	p.cpu = micros(after-before, writesPerSecond*int((warmup+b.seconds)/time.Second))
	return p, err
}

func (b *bench) reviewCPU(gateway, worker *rig.Process) (sum time.Duration, err error) {
	sum, _, err = b.rig.ServersCPU()
	for _, p := range []*rig.Process{gateway, worker} {
		own, cpuErr := p.CPU()
		sum, err = sum+own, errors.Join(err, cpuErr)
	}
	return sum, err
}

func (b *bench) sayPaced(round int, name string, p paced) {
	b.say("  round %d, %s: p50 %.2f, p99 %.2f, greatest %.1f ms of %d writes; %d were late; processor µs a write %.0f", round, name, p.p50, p.p99, p.max, p.writes, p.late, p.cpu)
	if p.late*50 > p.writes {
		b.report.Notes = append(b.report.Notes, fmt.Sprintf("Review, round %d, %s: %d of %d writes began late: the machine was too busy for this to be the product's figure.",
			round, name, p.late, p.writes))
	}
}

// checkReviews makes sure that each write of the one organisation was judged, each for itself, and none of the other's.
func checkReviews(ctx context.Context, w *world, gateway, worker *rig.Process, judged int) error {
	m, err := metrics(ctx, gateway)
	if err != nil {
		return err
	}
	if got := m[`sametick_reviewed_writes_total{outcome="approved"}`]; got != float64(judged) {
		return fmt.Errorf("%.0f writes were approved, of %d", got, judged)
	}
	var kept, cached, others int
	err = until(ctx, worker, 20*time.Second, "not every review's run is kept", func() (bool, error) {
		err := w.pool.QueryRow(ctx, `SELECT count(*), count(*) FILTER (WHERE cached), count(*) FILTER (WHERE org_id <> $1) FROM sametick.prompt_runs`, orgReviewed).Scan(&kept, &cached, &others)
		return kept >= judged, err
	})
	if err == nil && (kept != judged || cached != 0 || others != 0) {
		err = fmt.Errorf("%d runs of %d writes, %d from a cache, %d of others", kept, judged, cached, others)
	}
	return err
}
