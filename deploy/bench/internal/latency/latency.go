// Package latency measures how long an event takes from the return of its COMMIT to a reader: it
// writes at a steady rate and matches what readers see, by event id, with when its writer was told
// that it is committed.
package latency

import (
	"context"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"golang.org/x/sync/errgroup"

	"github.com/sametick/sametick/deploy/bench/internal/report"
	"github.com/sametick/sametick/pkg/outbox"
)

const (
	// EventsPerTransaction is 2: a mutation of a record fires its pre_ and post_ event.
	EventsPerTransaction = 2
	// writers is far more than the rate needs: a slow commit must not hold back the next ones.
	writers = 16
	// settle is how long readers may take after the last commit before an event counts as lost.
	settle = 10 * time.Second
)

// Load is a steady stream of writes.
type Load struct {
	Pool *pgxpool.Pool
	// EventsPerSecond over all organisations.
	EventsPerSecond int
	Length          time.Duration
	// Warmup comes before Length at the same rate and is not counted.
	Warmup time.Duration
	// Orgs take turns.
	Orgs []int64
	// Committed is called after each COMMIT, as api-gateway sends its Wake; may be nil.
	Committed func()
}

// Result of one measurement, in milliseconds. An event that a reader had before its writer heard of
// the commit counts as 0.
type Result struct {
	P50, P99, Max float64
	// Events that were measured.
	Events int
	// Late is how many transactions began more than 5 ms after their time: when it is not small, the
	// writers, and not the relay, were the bottleneck.
	Late int
}

// Clock matches commits and arrivals. The zero value is not usable; call NewClock. Its methods are safe
// for concurrent use.
type Clock struct {
	mu        sync.Mutex
	committed map[int64]time.Time
	arrived   map[int64]time.Time
	waiting   int // committed and not arrived
	idle      chan struct{}
}

// NewClock gives a clock without marks.
func NewClock() *Clock {
	return &Clock{committed: map[int64]time.Time{}, arrived: map[int64]time.Time{}, idle: make(chan struct{}, 1)}
}

// Arrived notes that a reader has the event. The first time counts.
func (c *Clock) Arrived(id int64, at time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, known := c.arrived[id]; known {
		return
	}
	c.arrived[id] = at
	if _, known := c.committed[id]; known {
		c.waiting--
		c.signal()
	}
}

func (c *Clock) commit(id int64, at time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.committed[id] = at
	if _, known := c.arrived[id]; !known {
		c.waiting++
	}
}

func (c *Clock) signal() {
	if c.waiting == 0 {
		select {
		case c.idle <- struct{}{}:
		default:
		}
	}
}

// wait returns when everything committed has arrived.
func (c *Clock) wait(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, settle)
	defer cancel()
	for {
		c.mu.Lock()
		left := c.waiting
		c.mu.Unlock()
		if left == 0 {
			return nil
		}
		select {
		case <-c.idle:
		case <-ctx.Done():
			return fmt.Errorf("%d committed events did not reach the reader in %s", left, settle)
		}
	}
}

// Run writes the load and gives the latencies of what was committed after the warm-up.
func (l Load) Run(ctx context.Context, clock *Clock) (Result, error) {
	slots := make(chan time.Time)
	late := 0
	start := time.Now()
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		defer close(slots)
		step := time.Second * EventsPerTransaction / time.Duration(l.EventsPerSecond)
		tick := time.NewTicker(step)
		defer tick.Stop()
		for due := start; due.Before(start.Add(l.Warmup + l.Length)); due = due.Add(step) {
			select {
			case slots <- due:
			case <-ctx.Done():
				return nil
			}
			if time.Since(due) > 5*time.Millisecond {
				late++
			}
			if time.Until(due.Add(step)) > 0 { // behind: no waiting
				select {
				case <-tick.C:
				case <-ctx.Done():
					return nil
				}
			}
		}
		return nil
	})
	for w := range writers {
		group.Go(func() error { return l.write(ctx, clock, slots, int64(w)) })
	}
	if err := group.Wait(); err != nil {
		return Result{}, err
	}
	// The group's context has ended; what is left to do is short and bounded.
	if err := clock.wait(context.WithoutCancel(ctx)); err != nil {
		return Result{}, err
	}
	return clock.result(start.Add(l.Warmup), late), nil
}

// write commits one transaction for each slot: one round trip, as api-gateway does it.
func (l Load) write(ctx context.Context, clock *Clock, slots <-chan time.Time, writer int64) error {
	conn, err := l.Pool.Acquire(ctx)
	if err != nil {
		return fmt.Errorf("connect a writer: %w", err)
	}
	defer conn.Release()
	for n := int64(0); ; n++ {
		if _, ok := <-slots; !ok {
			return nil
		}
		entity := writer + 1 + writers*n
		ids, err := commit(ctx, conn.Conn(), l.Orgs[int(entity)%len(l.Orgs)], entity)
		at := time.Now()
		if err != nil {
			return fmt.Errorf("write: %w", err)
		}
		for _, id := range ids {
			clock.commit(id, at)
		}
		if l.Committed != nil {
			l.Committed()
		}
	}
}

func commit(ctx context.Context, conn *pgx.Conn, org, entity int64) (ids []int64, err error) {
	e := outbox.Event{OrgID: org, AggregateType: "task", AggregateID: entity, RecordName: "Quarterly review", Action: "pre_create"}
	post := e
	post.Action = "post_create"
	args, err := outbox.Args(outbox.Context{}, e, post)
	if err != nil {
		return nil, err
	}
	batch := &pgx.Batch{}
	batch.Queue(`BEGIN`)
	batch.Queue(`SELECT set_config('sametick.org_id', $1, true)`, strconv.FormatInt(org, 10))
	batch.Queue(outbox.Statement, args...).Query(func(rows pgx.Rows) error {
		recorded, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (id int64, err error) {
			err = row.Scan(nil, &id, nil)
			return id, err
		})
		ids = recorded
		return err
	})
	batch.Queue(`COMMIT`)
	return ids, conn.SendBatch(ctx, batch).Close()
}

func (c *Clock) result(from time.Time, late int) Result {
	c.mu.Lock()
	defer c.mu.Unlock()
	var ms []float64
	for id, at := range c.committed {
		if at.After(from) {
			ms = append(ms, max(0, float64(c.arrived[id].Sub(at))/float64(time.Millisecond)))
		}
	}
	return Result{
		P50: report.Quantile(ms, 0.5), P99: report.Quantile(ms, 0.99), Max: report.Quantile(ms, 1),
		Events: len(ms), Late: late,
	}
}
