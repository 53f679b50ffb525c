package load

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/sametick/sametick/pkg/event"
	"github.com/sametick/sametick/pkg/outbox"
)

// kind is one way to use a transaction.
type kind struct {
	name   string
	weight int
	body   func(ctx context.Context, w *writer, t *transaction) error
}

// kinds are the ways that have broken relays: the rare ones are the expensive ones.
func kinds() []kind {
	return []kind{
		{"short", 400, short},
		{"pair", 250, pair},
		{"multi", 120, multi},
		{"twice", 60, twice},
		{"savepoint", 60, savepoint},
		{"abort", 60, abort},
		{"async", 30, async},
		{"late", 25, late},
		{"holding", 10, holding},
		{"hangup", 6, hangup},
		{"bulk", 3, bulk},
	}
}

func pick(rng *rand.Rand) kind {
	all, sum := kinds(), 0
	for _, k := range all {
		sum += k.weight
	}
	n := rng.IntN(sum)
	for _, k := range all {
		if n -= k.weight; n < 0 {
			return k
		}
	}
	panic("unreachable: the weights sum up")
}

// any draws an entity: most often one that all writers want.
func (w *writer) any(t *transaction) outbox.Event {
	o := &w.load.options
	id := 1 + w.rng.Int64N(o.Hot)
	if w.rng.IntN(4) == 0 {
		id = 1000 + w.rng.Int64N(5000)
	}
	return t.event(o.Orgs[w.rng.IntN(len(o.Orgs))], o.Types[w.rng.IntN(len(o.Types))], id)
}

// short is one event.
func short(ctx context.Context, w *writer, t *transaction) error { return t.append(ctx, w.any(t)) }

// pair is what the api-gateway writes for a mutation: pre_ and post_ of one entity.
func pair(ctx context.Context, w *writer, t *transaction) error {
	pre := w.any(t)
	post := pre
	pre.Action, post.Action = event.Pre(event.Create), event.Post(event.Create)
	return t.append(ctx, pre, post)
}

// multi is several entities, of several organisations and so of several shards, in one call.
func multi(ctx context.Context, w *writer, t *transaction) error {
	events := make([]outbox.Event, 2+w.rng.IntN(5))
	for i := range events {
		events[i] = w.any(t)
	}
	return t.append(ctx, events...)
}

// twice calls Append twice in any order of keys: two of them may deadlock, and one then aborts.
func twice(ctx context.Context, w *writer, t *transaction) error {
	if err := t.append(ctx, w.any(t)); err != nil {
		return err
	}
	pause(ctx, time.Duration(w.rng.IntN(30))*time.Millisecond)
	return t.append(ctx, w.any(t))
}

// savepoint keeps what came before and after a part that is rolled back.
func savepoint(ctx context.Context, w *writer, t *transaction) error {
	if w.rng.IntN(2) == 0 {
		if err := t.append(ctx, w.any(t)); err != nil {
			return err
		}
	}
	kept := len(t.recorded)
	if _, err := t.tx.Exec(ctx, "SAVEPOINT part"); err != nil {
		return fmt.Errorf("set a savepoint: %w", err)
	}
	if err := t.append(ctx, w.any(t), w.any(t)); err != nil {
		return err
	}
	end := "RELEASE part"
	if w.rng.IntN(3) > 0 {
		end = "ROLLBACK TO part"
		t.recorded = t.recorded[:kept]
	}
	if _, err := t.tx.Exec(ctx, end); err != nil {
		return fmt.Errorf("end a savepoint: %w", err)
	}
	return t.append(ctx, w.any(t))
}

// abort draws ids and sequences and gives them back.
func abort(ctx context.Context, w *writer, t *transaction) error {
	if err := multi(ctx, w, t); err != nil {
		return err
	}
	return errRollback
}

// hangup leaves Postgres to find out that nobody is there.
func hangup(ctx context.Context, w *writer, t *transaction) error {
	if err := short(ctx, w, t); err != nil {
		return err
	}
	return errHangUp
}

// async is visible before it is durable.
func async(ctx context.Context, w *writer, t *transaction) error {
	t.async = true
	if _, err := t.tx.Exec(ctx, "SET LOCAL synchronous_commit = off"); err != nil {
		return fmt.Errorf("commit asynchronously: %w", err)
	}
	return short(ctx, w, t)
}

// late has an early transaction id and commits seconds later, events last: what breaks a cursor on
// transaction ids, and holds up a low-water mark.
func late(ctx context.Context, w *writer, t *transaction) error {
	pause(ctx, time.Duration(100+w.rng.IntN(2500))*time.Millisecond)
	return multi(ctx, w, t)
}

// holding has early event ids and commits later: what breaks a cursor on ids. The entity is rarely
// another writer's, who would wait.
func holding(ctx context.Context, w *writer, t *transaction) error {
	e := w.any(t)
	e.AggregateID = 1000 + w.rng.Int64N(5000)
	if err := t.append(ctx, e); err != nil {
		return err
	}
	pause(ctx, time.Duration(100+w.rng.IntN(1500))*time.Millisecond)
	return nil
}

// bulk is thousands of events in one call.
func bulk(ctx context.Context, w *writer, t *transaction) error {
	events := make([]outbox.Event, w.load.options.Bulk/4+w.rng.IntN(w.load.options.Bulk))
	org := w.load.options.Orgs[w.rng.IntN(len(w.load.options.Orgs))]
	for i := range events {
		events[i] = t.event(org, w.load.options.Types[i%len(w.load.options.Types)], 10000+w.rng.Int64N(20000))
	}
	return t.append(ctx, events...)
}
