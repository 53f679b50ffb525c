package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sametick/sametick/deploy/bench/internal/latency"
	"github.com/sametick/sametick/deploy/bench/internal/rig"
	"github.com/sametick/sametick/deploy/bench/internal/waker"
)

const (
	legLatency  = "commit → received, 500 events/s"
	legSpread   = "drain by how endpoints are spread"
	legWaiting  = "drain beside waiting retries"
	legDead     = "drain of endpoints that answer, beside dead ones"
	legSnapshot = "drain beside a snapshot held open"

	spreadOne  = "10,000 endpoints in one organisation"
	spreadMany = "one endpoint in each of 10,000 organisations"
	without    = "none"

	// eventsPerSecond is the rate that the targets are quoted for.
	eventsPerSecond = 500
	warmup          = 2 * time.Second
)

// latencies measures commit → received, with and without Wake in turn.
func (b *bench) latencies(ctx context.Context) (err error) {
	w, err := b.newWorld(ctx, "latency")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.close()) }()
	if err := w.endpoints(ctx, b.perOrg(orgs)); err != nil {
		return err
	}
	p, err := w.worker(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.Stop()) }()
	if err := p.Ready(ctx); err != nil {
		return err
	}
	wake, err := waker.New(w.relay.GRPC, b.rig.InternalToken)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, wake.Close()) }()
	for round := range b.rounds + 1 {
		for i := range 2 {
			name, hint := "by polling", func() {}
			if (i+round)%2 == 0 {
				name, hint = "with Wake", wake.Hint
			}
			if err := w.latency(ctx, round, name, hint); err != nil {
				return p.Blame(err)
			}
		}
	}
	return w.memory(p, "latency")
}

func (w *world) latency(ctx context.Context, round int, name string, hint func()) error {
	b := w.bench
	load := latency.Load{Pool: w.pool, EventsPerSecond: eventsPerSecond, Length: b.seconds, Warmup: warmup, Committed: hint}
	for org := range int64(orgs) {
		load.Orgs = append(load.Orgs, org+1)
	}
	clock := latency.NewClock()
	b.receiver.clock.Store(clock)
	got, err := load.Run(ctx, clock)
	b.receiver.clock.Store(nil)
	if err != nil {
		return err
	}
	b.say("  round %d %s: p50 %.2f, p99 %.2f, greatest %.1f ms of %d events; %d writes were late", round, name, got.P50, got.P99, got.Max, got.Events, got.Late)
	if got.Late*20*latency.EventsPerTransaction > got.Events {
		b.report.Notes = append(b.report.Notes, fmt.Sprintf("Latency, round %d %s: %d of %d writes began late: the machine was too busy for this to be the product's figure.",
			round, name, got.Late, got.Events/latency.EventsPerTransaction))
	}
	if round > 0 {
		b.report.Add(legLatency, name+", p50", "ms", got.P50)
		b.report.Add(legLatency, name+", p99", "ms", got.P99)
	}
	return nil
}

// memory reports the most that a worker has had.
func (w *world) memory(p *rig.Process, name string) error {
	bytes, err := p.PeakMemory()
	if err == nil {
		w.bench.report.Add(legMemory, name, "MiB", float64(bytes)/(1<<20))
	}
	return err
}

// variant is one of those that a leg holds against each other.
type variant struct {
	name  string
	world *world
	// prepare comes after the reset; what it gives ends it.
	prepare func(ctx context.Context, w *world) (end func() error, err error)
}

// compare drains the variants in turn.
func (b *bench) compare(ctx context.Context, leg string, variants []variant) error {
	for round := range b.rounds + 1 {
		for i := range variants {
			v := variants[(i+round)%len(variants)]
			d, err := v.drain(ctx)
			if err != nil {
				return fmt.Errorf("%s: %w", v.name, err)
			}
			b.say("  round %d %s: %.0f deliveries/s; processor µs a delivery: itself %.1f, Postgres %.1f; %.0f MiB", round, v.name, d.rate, d.own, d.postgres, d.memory)
			if round > 0 {
				b.report.Add(leg, v.name, "deliveries/s", d.rate)
				b.report.Add(legMemory, leg+": "+v.name, "MiB", d.memory)
			}
		}
	}
	return nil
}

func (v *variant) drain(ctx context.Context) (d drained, err error) {
	if err := v.world.reset(ctx); err != nil {
		return d, err
	}
	if v.prepare != nil {
		end, err := v.prepare(ctx, v.world)
		if err != nil {
			return d, err
		}
		defer func() { err = errors.Join(err, end()) }()
	}
	return v.world.ourDrain(ctx)
}

// spread drains as many deliveries to the endpoints of one organisation, the first, as to those of many. The others are
// disabled meanwhile.
func (b *bench) spread(ctx context.Context) (err error) {
	const endpoints = 10_000
	each := max(b.events/endpoints/2, 1) * 2 // events come in twos
	w, err := b.newWorld(ctx, "spread")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.close()) }()
	list := append(b.perOrg(endpoints), b.perOrg(endpoints + 1)[1:]...)
	for i := range endpoints {
		list[i].org = 1
	}
	if err := errors.Join(w.fill(ctx, each*(endpoints+1), endpoints+1), w.endpoints(ctx, list)); err != nil {
		return err
	}
	w.deliveries = each * endpoints
	enable := func(first bool) func(context.Context, *world) (func() error, error) {
		return func(ctx context.Context, w *world) (func() error, error) {
			_, err := w.pool.Exec(ctx, `UPDATE sametick.webhook_endpoints SET enabled = (org_id = 1) = $1`, first)
			if err == nil {
				_, err = w.pool.Exec(ctx, `VACUUM (ANALYZE) sametick.webhook_endpoints`)
			}
			return nothing, err
		}
	}
	return b.compare(ctx, legSpread, []variant{{name: spreadOne, world: w, prepare: enable(true)}, {name: spreadMany, world: w, prepare: enable(false)}})
}

func nothing() error { return nil }

// waitingRetries drains beside retries of the same endpoints that are due tomorrow.
func (b *bench) waitingRetries(ctx context.Context) (err error) {
	w, err := b.standard(ctx, "waiting")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.close()) }()
	queue := func(ctx context.Context, w *world) (func() error, error) {
		_, err := w.pool.Exec(ctx, `INSERT INTO sametick.webhook_queue (id, org_id, shard, endpoint_id, event_id, position, event_type, attempts, due_at, cause, created_at)
			SELECT nextval('sametick.webhook_delivery_ids'), e.org_id, e.shard, e.org_id, e.id, p.position, e.event_type, 3, now() + interval '1 day', 'status', now()
			  FROM (SELECT 1 + i % $2 AS n FROM generate_series(1, $1) i) i JOIN (SELECT *, row_number() OVER (ORDER BY id) AS n FROM sametick.events) e USING (n)
			  JOIN sametick.positions p ON p.event_id = e.id`, b.waiting, b.events)
		if err == nil {
			_, err = w.pool.Exec(ctx, `VACUUM (ANALYZE) sametick.webhook_queue`)
		}
		if err == nil {
			_, err = w.pool.Exec(ctx, `CHECKPOINT`)
		}
		return nothing, err
	}
	return b.compare(ctx, legWaiting, []variant{{name: without, world: w}, {name: "waiting", world: w, prepare: queue}})
}

// standard is a world as the drain's.
func (b *bench) standard(ctx context.Context, name string) (*world, error) {
	w, err := b.newWorld(ctx, name)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(w.fill(ctx, b.events, orgs), w.endpoints(ctx, b.perOrg(orgs))); err != nil {
		return nil, errors.Join(err, w.close())
	}
	w.deliveries = b.events
	return w, nil
}

// deadEndpoints drains with three of ten endpoints dead: half of these refuse connections, half never answer. Only
// deliveries to the others count.
func (b *bench) deadEndpoints(ctx context.Context) (err error) {
	w, err := b.standard(ctx, "dead")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.close()) }()
	set := func(ctx context.Context, dead bool) (err error) {
		refused, hanging := b.receiver.refused, b.receiver.url+pathHanging
		if !dead {
			refused, hanging = b.receiver.url+pathWell, b.receiver.url+pathWell
		}
		_, err = w.pool.Exec(ctx, `UPDATE sametick.webhook_endpoints SET url = CASE WHEN id % 20 IN (0, 7, 14) THEN $1 ELSE $2 END || id WHERE id % 20 IN (0, 3, 7, 11, 14, 17)`, refused, hanging)
		if err == nil {
			err = w.pool.QueryRow(ctx, `SELECT count(*) FROM sametick.events WHERE NOT $1 OR org_id % 20 NOT IN (0, 3, 7, 11, 14, 17)`, dead).Scan(&w.deliveries)
		}
		return err
	}
	prepare := func(dead bool) func(context.Context, *world) (func() error, error) {
		return func(ctx context.Context, _ *world) (func() error, error) { return nothing, set(ctx, dead) }
	}
	return b.compare(ctx, legDead, []variant{{name: without, world: w, prepare: prepare(false)}, {name: "dead", world: w, prepare: prepare(true)}})
}

// snapshot drains after a while in which a transaction has kept everything that was deleted from being removed. Both
// variants deliver for that while and vacuum the queue then, as autovacuum would.
func (b *bench) snapshot(ctx context.Context) (err error) {
	w, err := b.standard(ctx, "snapshot")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.close()) }()
	busy := func(held bool) func(context.Context, *world) (func() error, error) {
		return func(ctx context.Context, w *world) (func() error, error) {
			end := nothing
			if held {
				conn, err := pgx.Connect(ctx, w.url)
				if err != nil {
					return nil, fmt.Errorf("hold a snapshot: %w", err)
				}
				end = func() error { return conn.Close(context.WithoutCancel(ctx)) }
				if _, err := conn.Exec(ctx, `BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM sametick.webhook_queue`); err != nil {
					return nil, errors.Join(fmt.Errorf("hold a snapshot: %w", err), end())
				}
			}
			if err := w.keepBusy(ctx); err != nil {
				return nil, errors.Join(err, end())
			}
			return end, nil
		}
	}
	return b.compare(ctx, legSnapshot, []variant{{name: without, world: w, prepare: busy(false)}, {name: "held", world: w, prepare: busy(true)}})
}

// keepBusy delivers everything again and again.
func (w *world) keepBusy(ctx context.Context) error {
	drains := 0
	for end := time.Now().Add(w.bench.hold); time.Now().Before(end); drains++ {
		if _, err := w.ourDrain(ctx); err != nil {
			return err
		}
		if _, err := w.pool.Exec(ctx, `UPDATE sametick.consumer_cursors SET position = 0`); err != nil {
			return fmt.Errorf("rewind: %w", err)
		}
	}
	w.bench.say("  %s deliveries came before", strconv.Itoa(drains*w.deliveries))
	_, err := w.pool.Exec(ctx, `VACUUM sametick.webhook_queue`)
	return err
}
