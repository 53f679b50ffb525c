// Package load is the writers: concurrent transactions of every awkward kind, through pkg/outbox as
// any producer would, each with a row of the writer's own. What Postgres acknowledged goes to the
// ledger at once.
package load

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"github.com/sametick/sametick/deploy/torture/internal/ledger"
	"github.com/sametick/sametick/pkg/outbox"
)

// Schema makes the writers' own table; superuser's statement.
const Schema = `CREATE SCHEMA torture; CREATE TABLE torture.writes (tx bigint PRIMARY KEY, events integer NOT NULL)`

// Options of the writers.
type Options struct {
	// URL of Postgres.
	URL string
	// Orgs and Types of the events; ids 1 to Hot are contended by all writers.
	Orgs  []int64
	Types []string
	Hot   int64
	// Writers is how many write at a time, Think the mean pause between two transactions of one.
	Writers int
	Think   time.Duration
	// Bulk is the greatest number of events in one transaction.
	Bulk int
	Seed uint64
}

// Load is a set of writers.
type Load struct {
	options Options
	ledger  *ledger.Ledger
	tx      atomic.Int64
}

// New prepares writers that keep their ledger in l.
func New(o Options, l *ledger.Ledger) *Load { return &Load{options: o, ledger: l} }

// Run writes until ctx ends. Whatever Postgres does to a writer, it comes back; only a ledger that
// cannot be written ends it.
func (l *Load) Run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	for n := range l.options.Writers {
		w := &writer{load: l, rng: rand.New(rand.NewPCG(l.options.Seed, uint64(n)))}
		group.Go(func() error {
			defer w.hangUp()
			for ctx.Err() == nil {
				if err := w.write(ctx); err != nil {
					return err
				}
				pause(ctx, time.Duration(w.rng.Int64N(int64(2*l.options.Think)+1)))
			}
			return nil
		})
	}
	return group.Wait()
}

// Final writes one event of each organisation and answers once all are committed: when these have
// come through, everything before them has.
func (l *Load) Final(ctx context.Context) error {
	w := &writer{load: l, rng: rand.New(rand.NewPCG(l.options.Seed, 1<<32))}
	defer w.hangUp()
	for _, org := range l.options.Orgs {
		for {
			outcome, err := w.attempt(ctx, "final", func(ctx context.Context, t *transaction) error {
				return t.append(ctx, t.event(org, l.options.Types[0], 1))
			})
			if err != nil {
				return err
			}
			if outcome == ledger.Committed {
				break
			}
			if ctx.Err() != nil {
				return fmt.Errorf("write the final events: %w", ctx.Err())
			}
			pause(ctx, 100*time.Millisecond)
		}
	}
	return nil
}

// Burst records an event of each id in one transaction, which is tried until it is committed, or ctx ends. The error is the
// ledger's.
func (l *Load) Burst(ctx context.Context, org int64, aggregateType string, ids []int64) error {
	w := &writer{load: l, rng: rand.New(rand.NewPCG(l.options.Seed, 1<<35))}
	defer w.hangUp()
	for ctx.Err() == nil {
		outcome, err := w.attempt(ctx, "burst", func(ctx context.Context, t *transaction) error {
			events := make([]outbox.Event, len(ids))
			for i, id := range ids {
				events[i] = t.event(org, aggregateType, id)
			}
			return t.append(ctx, events...)
		})
		if err != nil || outcome == ledger.Committed {
			return err
		}
		pause(ctx, 100*time.Millisecond)
	}
	return nil
}

// Hold opens a transaction, records an event in it and keeps it open while body runs, then commits.
func (l *Load) Hold(ctx context.Context, org int64, body func() error) error {
	w := &writer{load: l, rng: rand.New(rand.NewPCG(l.options.Seed, 1<<33))}
	defer w.hangUp()
	var failed error
	outcome, err := w.attempt(ctx, "held", func(ctx context.Context, t *transaction) error {
		if err := t.append(ctx, t.event(org, l.options.Types[0], heldID)); err != nil {
			return err
		}
		failed = body()
		return failed
	})
	if err = errors.Join(err, failed); err != nil {
		return err
	}
	if outcome != ledger.Committed {
		return errors.New("the transaction that was to stay open did not commit")
	}
	return nil
}

// heldID is an entity that no other writer touches.
const heldID = 1 << 40

// writer has one connection, and loses it now and then.
type writer struct {
	load *Load
	rng  *rand.Rand
	conn *pgx.Conn
}

// write does one transaction of a random kind. The error is the ledger's.
func (w *writer) write(ctx context.Context) error {
	kind := pick(w.rng)
	outcome, err := w.attempt(ctx, kind.name, func(ctx context.Context, t *transaction) error { return kind.body(ctx, w, t) })
	if outcome != ledger.Committed && ctx.Err() == nil {
		pause(ctx, time.Duration(w.rng.IntN(100))*time.Millisecond)
	}
	return err
}

// errRollback is how a kind asks for a rollback; errHangUp for a connection that just goes away.
var (
	errRollback = errors.New("roll back")
	errHangUp   = errors.New("hang up")
)

// attempt runs body in a transaction with a number of its own and writes its outcome to the ledger.
func (w *writer) attempt(ctx context.Context, kind string, body func(context.Context, *transaction) error) (ledger.Outcome, error) {
	// A transaction that has begun is brought to its end, so that few outcomes stay unknown.
	work, cancel := context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
	defer cancel()
	if !w.connected(work) {
		return ledger.Aborted, nil // nothing was even tried: no number, no entry
	}
	t := &transaction{number: w.load.tx.Add(1)}
	outcome := w.run(work, t, body)
	entry := ledger.Entry{Outcome: outcome, Tx: t.number, Kind: kind, Events: t.recorded}
	if outcome == ledger.Aborted {
		entry.Events = nil
	}
	return outcome, w.load.ledger.Append(entry)
}

// run is the transaction itself. Only an answered COMMIT is a commit; once COMMIT was sent, an error
// proves nothing.
func (w *writer) run(ctx context.Context, t *transaction, body func(context.Context, *transaction) error) ledger.Outcome {
	tx, err := w.conn.Begin(ctx)
	if err != nil {
		w.hangUp()
		return ledger.Aborted
	}
	t.tx = tx
	if _, err := tx.Exec(ctx, `INSERT INTO torture.writes VALUES ($1, 0)`, t.number); err == nil {
		err = body(ctx, t)
		if err == nil {
			_, err = tx.Exec(ctx, `UPDATE torture.writes SET events = $2 WHERE tx = $1`, t.number, len(t.recorded))
		}
		if err == nil {
			return w.commit(ctx, t)
		}
		if errors.Is(err, errHangUp) {
			w.hangUp()
			return ledger.Aborted
		}
	}
	if err := tx.Rollback(ctx); err != nil {
		w.hangUp()
	}
	return ledger.Aborted
}

func (w *writer) commit(ctx context.Context, t *transaction) ledger.Outcome {
	err := t.tx.Commit(ctx)
	switch {
	case err == nil && t.async:
		return ledger.Unknown // acknowledged before it is safe: a crash may take it back, whole
	case err == nil:
		return ledger.Committed
	case errors.Is(err, pgx.ErrTxCommitRollback):
		return ledger.Aborted
	default:
		w.hangUp()
		return ledger.Unknown
	}
}

// connected makes sure of a connection.
func (w *writer) connected(ctx context.Context) bool {
	if w.conn != nil && !w.conn.IsClosed() {
		return true
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	conn, err := pgx.Connect(ctx, w.load.options.URL)
	if err != nil {
		pause(ctx, 200*time.Millisecond)
		return false
	}
	w.conn = conn
	return true
}

// hangUp closes the socket without a word to Postgres.
func (w *writer) hangUp() {
	if w.conn == nil {
		return
	}
	_ = w.conn.PgConn().Conn().Close() // it may be dead already
	gone, cancel := context.WithCancel(context.Background())
	cancel()
	_ = w.conn.Close(gone) // releases what the driver holds; the socket is closed
	w.conn = nil
}

// transaction is one attempt: its number is in each event's payload and in the writer's own table.
type transaction struct {
	number   int64
	tx       pgx.Tx
	recorded []ledger.Event
	async    bool
}

// event makes an event of this transaction.
func (t *transaction) event(org int64, kind string, id int64) outbox.Event {
	return outbox.Event{
		OrgID: org, AggregateType: kind, AggregateID: id, Action: "post_update",
		RecordName: fmt.Sprintf("transaction %d\nsecond line", t.number), Extra: fmt.Appendf(nil, `{"tx": %d}`, t.number),
	}
}

// append records events and remembers them.
func (t *transaction) append(ctx context.Context, events ...outbox.Event) error {
	recorded, err := outbox.Append(ctx, t.tx, outbox.Context{RequestID: fmt.Sprintf("tx-%d", t.number)}, events...)
	if err != nil {
		return err
	}
	for i, r := range recorded {
		e := events[i]
		t.recorded = append(t.recorded, ledger.Event{ID: r.ID, OrgID: e.OrgID, Type: e.AggregateType, AggregateID: e.AggregateID, Sequence: r.Sequence})
	}
	return nil
}

func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}
