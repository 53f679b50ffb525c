package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"golang.org/x/sync/errgroup"

	"github.com/sametick/sametick/deploy/bench/internal/backlog"
	"github.com/sametick/sametick/deploy/bench/internal/contender"
	"github.com/sametick/sametick/deploy/bench/internal/latency"
	"github.com/sametick/sametick/deploy/bench/internal/rig"
	"github.com/sametick/sametick/deploy/bench/internal/waker"
)

const (
	legLatency  = "commit → readable in Redis, 1000 events/s"
	legSSE      = "commit → bytes at an SSE client, 1000 events/s"
	legOpen     = "commit → Redis beside an open writing transaction"
	legOpenRate = "drain beside an open writing transaction"
	legIdle     = "idle"

	// eventsPerSecond is the rate that the targets are quoted for.
	eventsPerSecond = 1000
	warmup          = 2 * time.Second
)

// live is a database with a relay that runs over it.
type live struct {
	bench *bench
	url   string
	pool  *pgxpool.Pool
	relay *rig.Process
	wake  *waker.Waker
}

// startLive makes the database and starts the relay.
func (b *bench) startLive(ctx context.Context, name string) (_ *live, err error) {
	if err := b.rig.Settle(ctx); err != nil {
		return nil, err
	}
	url, err := b.rig.Database(ctx, name, "outbox-relay")
	if err != nil {
		return nil, err
	}
	pool, err := pgxpool.New(ctx, url+"&pool_max_conns=20")
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", name, err)
	}
	l := &live{bench: b, url: url, pool: pool}
	defer func() {
		if err != nil {
			err = errors.Join(err, l.stop())
		}
	}()
	if l.relay, err = b.startRelay(ctx, url); err != nil {
		return nil, err
	}
	if err := l.relay.Ready(ctx); err != nil {
		return nil, err
	}
	l.wake, err = waker.New(l.relay.GRPC, b.rig.InternalToken)
	return l, err
}

func (l *live) stop() error {
	var err error
	if l.wake != nil {
		err = l.wake.Close()
	}
	l.pool.Close()
	if l.relay != nil {
		err = errors.Join(err, l.relay.Stop())
	}
	return err
}

// run measures one round from commit to Redis.
func (l *live) run(ctx context.Context, wake bool) (latency.Result, error) {
	return l.follow(ctx, wake, func(ctx context.Context, group *errgroup.Group, clock *latency.Clock) error {
		ready := make(chan struct{})
		group.Go(func() error {
			return latency.FollowRedis(ctx, l.bench.rig.Redis, contender.StreamKeys(), clock, ready)
		})
		select {
		case <-ready:
		case <-ctx.Done():
		}
		return nil
	})
}

// follow writes the load while readers, which start makes, read along.
func (l *live) follow(ctx context.Context, wake bool, start func(context.Context, *errgroup.Group, *latency.Clock) error) (latency.Result, error) {
	clock := latency.NewClock()
	readCtx, stop := context.WithCancel(ctx)
	defer stop()
	group, readCtx := errgroup.WithContext(readCtx)
	err := start(readCtx, group, clock)
	var result latency.Result
	if err == nil {
		load := latency.Load{
			Pool: l.pool, EventsPerSecond: eventsPerSecond, Length: time.Duration(l.bench.seconds) * time.Second,
			Warmup: warmup, Orgs: orgs(),
		}
		if wake {
			load.Committed = l.wake.Hint
		}
		result, err = load.Run(readCtx, clock)
	}
	stop()
	return result, errors.Join(err, group.Wait(), l.relay.Failure())
}

// orgs are as many as the backlog has, on all shards.
func orgs() []int64 {
	ids := make([]int64, backlog.Orgs)
	for i := range ids {
		ids[i] = int64(i + 1)
	}
	return ids
}

// add puts one measurement into the report.
func (b *bench) add(leg, name string, r latency.Result) {
	_, _ = fmt.Fprintf(b.log, "  %s: p50 %.2f ms, p99 %.2f ms, max %.2f ms, %d events, %d writes late\n", name, r.P50, r.P99, r.Max, r.Events, r.Late)
	if late := r.Late * latency.EventsPerTransaction; late > r.Events/100 {
		b.report.Notes = append(b.report.Notes, fmt.Sprintf(
			"NOT VALID: %s, %s: %d of %d events were written more than 5 ms late, so the machine was too busy to write at this rate", leg, name, late, r.Events))
	}
	b.report.Add(leg, name+", p50", "ms", r.P50)
	b.report.Add(leg, name+", p99", "ms", r.P99)
}

// latency measures commit → Redis, with and without Wake in turn.
func (b *bench) latency(ctx context.Context) (err error) {
	l, err := b.startLive(ctx, "latency")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.stop()) }()
	names := map[bool]string{true: "with Wake", false: "by polling"}
	for round := range b.rounds {
		for i := range 2 {
			wake := (round+i)%2 == 0
			r, err := l.run(ctx, wake)
			if err != nil {
				return err
			}
			b.add(legLatency, names[wake], r)
		}
	}
	return nil
}

// openTransaction measures what a writing transaction that stays open costs the others: the latency
// when it has been open for a minute (ten in the long form), and the rate of a drain beside it.
func (b *bench) openTransaction(ctx context.Context) error {
	if err := b.openLatency(ctx); err != nil {
		return err
	}
	return b.openDrain(ctx)
}

func (b *bench) openLatency(ctx context.Context) (err error) {
	l, err := b.startLive(ctx, "open_latency")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.stop()) }()
	hold, rounds := time.Minute, b.rounds
	if b.long {
		hold, rounds = 10*time.Minute, 1
	} else if b.short {
		hold = 10 * time.Second
	}
	for range rounds {
		r, err := l.run(ctx, true)
		if err != nil {
			return err
		}
		b.add(legOpen, "none", r)
		release, err := open(ctx, l.url)
		if err != nil {
			return err
		}
		// The load's own time counts: the transaction is that old when the measurement ends.
		err = sleep(ctx, hold-time.Duration(b.seconds)*time.Second-warmup)
		if err == nil {
			r, err = l.run(ctx, true)
		}
		if err = errors.Join(err, release()); err != nil {
			return err
		}
		b.add(legOpen, "open", r)
	}
	return nil
}

func (b *bench) openDrain(ctx context.Context) error {
	data, err := b.load(ctx, "open_drain", b.events)
	if err != nil {
		return err
	}
	defer data.pool.Close()
	ours := contender.All()[0]
	for round := range b.rounds + 1 {
		for i := range 2 {
			name, release := "none", func() error { return nil }
			if (round+i)%2 == 0 {
				name = "open"
				if release, err = open(ctx, data.url); err != nil {
					return err
				}
			}
			d, err := b.drain(ctx, data, ours)
			if err = errors.Join(err, release()); err != nil {
				return err
			}
			_, _ = fmt.Fprintf(b.log, "  round %d drain, transaction %s: %.0f events/s\n", round, name, d.rate)
			if round > 0 {
				b.report.Add(legOpenRate, name, "events/s", d.rate)
			}
		}
	}
	return nil
}

// idle measures the processor time of a relay that has nothing to do.
func (b *bench) idle(ctx context.Context) (err error) {
	l, err := b.startLive(ctx, "idle")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.stop()) }()
	window := 30 * time.Second
	if b.short {
		window = 6 * time.Second
	}
	if err := sleep(ctx, 7*time.Second); err != nil { // at rest, after its start
		return err
	}
	for range b.rounds {
		if err := b.idleFor(ctx, l.relay, window); err != nil {
			return err
		}
	}
	return nil
}

// idleFor measures one window: the relay's own processor time, and what its polls cost Postgres.
func (b *bench) idleFor(ctx context.Context, relay *rig.Process, window time.Duration) error {
	before, err := relay.CPU()
	if err != nil {
		return err
	}
	postgres, _, err := b.rig.ServersCPU()
	if err != nil {
		return err
	}
	start := time.Now()
	if b.profile > 0 {
		err = relay.Profile(ctx, int(window.Seconds()), filepath.Join(b.out, "outbox-relay-idle.pprof"))
	} else {
		err = sleep(ctx, window)
	}
	if err != nil {
		return err
	}
	share := func(t time.Duration) float64 { return 100 * t.Seconds() / time.Since(start).Seconds() }
	after, err := relay.CPU()
	if err != nil {
		return err
	}
	postgresAfter, _, err := b.rig.ServersCPU()
	if err != nil {
		return err
	}
	b.report.Add(legIdle, contender.Ours, "% of a core", share(after-before))
	b.report.Add(legIdle, "Postgres under its polls", "% of a core", share(postgresAfter-postgres))
	return nil
}
