package feed_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/sametick/sametick/pkg/event"
	"github.com/sametick/sametick/pkg/pg"
	"github.com/sametick/sametick/pkg/stream"
	"github.com/sametick/sametick/services/prompt-worker/internal/feed"
	"github.com/sametick/sametick/services/prompt-worker/internal/hooks"
	"github.com/sametick/sametick/services/prompt-worker/internal/prompting"
	"github.com/sametick/sametick/services/prompt-worker/internal/runs"
	"github.com/sametick/sametick/services/prompt-worker/internal/workertest"
)

// Two workers at one shard, driven by hand: what order they come in is the test's to say, and no lease is asked.

// scheduler is a feed with a memory of its own, as each replica has one.
func scheduler(w *workertest.World) *feed.Feed {
	return &feed.Feed{Store: w.Store, Compiler: workertest.Compiler(w.T), MaxDepth: 3, Stats: &feed.Stats{}, Scheduled: func(int, []runs.Hint) {}}
}

// whole is all of the shard of organisation 1 as one batch.
func whole(w *workertest.World) stream.Batch {
	shard := event.ShardOf(1)
	return stream.Batch{Shard: shard, Entries: w.Log.Entries(shard, 0, 0), Through: w.Log.Head(shard)}
}

// take is what a consumer does with a batch, and between before its commit. One that is wrong moves its cursor apart.
func take(w *workertest.World, f *feed.Feed, b stream.Batch, wrong bool, between func() error) error {
	ctx := w.T.Context()
	if wrong {
		_, err := w.Admin.Exec(ctx, `UPDATE sametick.consumer_cursors SET position = $1 WHERE shard = $2`, b.Through, b.Shard)
		require.NoError(w.T, err)
	}
	return pg.InTx(ctx, w.Pool, pg.TxOptions{}, func(tx pgx.Tx) error {
		if !wrong {
			if err := stream.Advance(ctx, tx, feed.Consumer, b.Shard, b.After, b.Through); err != nil {
				return err
			}
		}
		if err := f.Handle(ctx, tx, b); err != nil {
			return err
		}
		return between()
	})
}

func commit() error { return nil }

// Both have read the same events. The second comes after the first's commit; while the first is at it; after the first has
// died. The control's cursor is apart from what it stands for.
func TestTwoSchedulers(t *testing.T) {
	t.Parallel()
	const events = 12
	died := errors.New("died")
	for name, c := range map[string]struct {
		wrong bool
		order func(w *workertest.World, first, second func(between func() error) error)
	}{
		"one after the other": {order: func(w *workertest.World, first, second func(func() error) error) {
			require.NoError(w.T, first(commit))
			require.ErrorIs(w.T, second(commit), stream.ErrStaleCursor)
		}},
		"at once": {order: func(w *workertest.World, first, second func(func() error) error) {
			came := make(chan error, 1)
			require.NoError(w.T, first(func() error {
				go func() { came <- second(commit) }()
				w.Eventually("the second waits for the cursor's row", func() bool {
					return w.Count(`SELECT count(*) FROM pg_locks WHERE NOT granted`) > 0
				})
				return nil
			}))
			require.ErrorIs(w.T, <-came, stream.ErrStaleCursor)
		}},
		"the first dies": {order: func(w *workertest.World, first, second func(func() error) error) {
			require.ErrorIs(w.T, first(func() error { return died }), died)
			require.NoError(w.T, second(commit))
			require.ErrorIs(w.T, first(commit), stream.ErrStaleCursor)
		}},
		"control": {wrong: true, order: func(w *workertest.World, first, second func(func() error) error) {
			require.NoError(w.T, first(commit))
			require.NoError(w.T, second(commit))
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := workertest.NewWorld(t, prompting.Limits{})
			w.Hook()
			for i := range events {
				w.Task(int64(i + 1))
			}
			b := whole(w)
			require.NoError(t, stream.BeginCursor(t.Context(), w.Admin, feed.Consumer, b.Shard, 0))
			one, other := scheduler(w), scheduler(w)
			c.order(w, func(between func() error) error { return take(w, one, b, c.wrong, between) },
				func(between func() error) error { return take(w, other, b, c.wrong, between) })
			m := &workertest.Model{}
			w.Start("survivor", m)
			w.Eventually("all run", done(w, events))
			wrong := ledger(w, m, events, 1)
			if c.wrong {
				require.Contains(t, wrong, fmt.Sprint(events, " pairs ran twice"))
				return
			}
			require.Empty(t, wrong)
			require.Len(t, m.Asked(), events)
		})
	}
}

// meeting holds each wish to begin back until every holder has read the row.
type meeting struct {
	mu      sync.Mutex
	read    map[int64]map[string]bool
	changed chan struct{}
	// turn is whose it is to begin.
	turn sync.Mutex
	// wished counts wishes to begin, begun those that were granted.
	wished, begun atomic.Int64
}

func newMeeting() *meeting {
	return &meeting{read: map[int64]map[string]bool{}, changed: make(chan struct{})}
}

func (m *meeting) note(holder string, list []*runs.Item) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, i := range list {
		if m.read[i.ID] == nil {
			m.read[i.ID] = map[string]bool{}
		}
		m.read[i.ID][holder] = true
	}
	close(m.changed)
	m.changed = make(chan struct{})
}

func (m *meeting) await(ctx context.Context, id int64) error {
	for {
		m.mu.Lock()
		n, changed := len(m.read[id]), m.changed
		m.mu.Unlock()
		if n == 2 {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// held is one holder's queue. A wrong one begins whatever another has begun.
type held struct {
	runs.Queue
	w      *workertest.World
	holder string
	at     *meeting
	wrong  bool
}

func (q held) Load(ctx context.Context, want runs.Want) (runs.Window, error) {
	got, err := q.Queue.Load(ctx, want)
	q.at.note(q.holder, got.Items)
	return got, err
}

func (q held) Begin(ctx context.Context, list []runs.Beginning) ([]runs.Answer, error) {
	for _, b := range list {
		if err := q.at.await(ctx, b.Item.ID); err != nil {
			return nil, err
		}
	}
	q.at.turn.Lock()
	defer q.at.turn.Unlock()
	for _, b := range list {
		if q.wrong {
			if _, err := q.w.Admin.Exec(ctx, `UPDATE sametick.prompt_queue SET attempts = 0, calling = false, due_at = now() WHERE id = $1`, b.Item.ID); err != nil {
				return nil, err
			}
			if _, err := q.w.Admin.Exec(ctx, `DELETE FROM sametick.prompt_reservations WHERE run_id = $1`, b.Item.ID); err != nil {
				return nil, err
			}
		}
	}
	answers, err := q.Queue.Begin(ctx, list)
	q.at.wished.Add(int64(len(answers)))
	for _, a := range answers {
		if a.Begun {
			q.at.begun.Add(1)
		}
	}
	return answers, err
}

// hold runs an engine at the shard of organisation 1 until the test ends.
func hold(w *workertest.World, q runs.Queue, m runs.Models) *runs.Stats {
	stats := &runs.Stats{}
	e := runs.New(runs.Config{Queue: q, Executor: &runs.Executor{Models: m, Compiler: workertest.Compiler(w.T), Prices: workertest.Free{}},
		PerHook: 64, PerOrg: 128, InAll: 256, MaxBytes: 16 << 20, Margin: time.Minute, Log: slog.New(slog.NewTextHandler(io.Discard, nil)), Stats: stats})
	work, kill := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() { defer close(ended); _ = e.Run(work, work) }()
	e.Held([]int{event.ShardOf(1)})
	w.T.Cleanup(func() { kill(); <-ended })
	return stats
}

// queued makes a world in which events have been scheduled, and nobody has read the queue.
func queued(t *testing.T, events int) *workertest.World {
	w := workertest.NewWorld(t, prompting.Limits{})
	w.Hook(func(set *hooks.Settings) { set.TimeoutMS = 60_000 })
	for i := range events {
		w.Task(int64(i + 1))
	}
	b := whole(w)
	require.NoError(t, stream.BeginCursor(t.Context(), w.Admin, feed.Consumer, b.Shard, 0))
	require.NoError(t, take(w, scheduler(w), b, false, commit))
	require.Equal(t, events, w.Count(`SELECT count(*) FROM sametick.prompt_queue`))
	return w
}

// Both have read every row before either begins: each run is begun by one of them, and the other's work is wasted. The
// control does not look whose the row is.
func TestTwoHolders(t *testing.T) {
	t.Parallel()
	const events = 12
	for name, wrong := range map[string]bool{"fenced": false, "control": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := queued(t, events)
			asked, all := atomic.Int64{}, make(chan struct{})
			m := &workertest.Model{Answer: func(ctx context.Context, _ prompting.Request) (prompting.Response, error) {
				if asked.Add(1) == 2*events {
					close(all)
				}
				if wrong { // each row is there until both have begun it
					select {
					case <-all:
					case <-ctx.Done():
					}
				}
				return prompting.Response{Text: "ok"}, nil
			}}
			at := newMeeting()
			for _, holder := range []string{"a", "b"} {
				hold(w, held{w.Store, w, holder, at, wrong}, m)
			}
			w.Eventually("all run", done(w, events))
			got := ledger(w, m, events, 1)
			if wrong {
				require.Contains(t, got, fmt.Sprint(events, " calls too many"))
				return
			}
			require.Empty(t, got)
			require.Len(t, m.Asked(), events)
			w.Eventually("the second holder's wishes", func() bool { return at.wished.Load() == 2*events })
			require.EqualValues(t, events, at.begun.Load(), "the rest is work wasted")
		})
	}
}

// twice ends the row in no transaction of the run's, and does not look whose attempt it was.
type twice struct {
	runs.Queue
	w     *workertest.World
	saved *atomic.Int64
}

func (q twice) Finish(ctx context.Context, list []runs.Outcome) ([]bool, error) {
	for i := range list {
		list[i].Attempt = 2
	}
	ok, err := q.Queue.Finish(ctx, list)
	if err == nil {
		_, err = q.w.Admin.Exec(ctx, `INSERT INTO sametick.prompt_queue SELECT * FROM public.kept ON CONFLICT DO NOTHING`)
		q.saved.Add(1)
	}
	return ok, err
}

// An attempt outlives its time, and another worker begins the next one: both come back, in either order, and the run ends
// once.
func TestALateAttempt(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ lateFirst, wrong bool }{"late first": {true, false}, "late last": {false, false}, "control": {true, true}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := queued(t, 1)
			asked := make(chan chan struct{}, 2)
			m := &workertest.Model{Answer: func(ctx context.Context, _ prompting.Request) (prompting.Response, error) {
				answer := make(chan struct{})
				asked <- answer
				select {
				case <-answer:
				case <-ctx.Done():
				}
				return prompting.Response{Text: "ok"}, nil
			}}
			var saved atomic.Int64
			var q runs.Queue = w.Store
			if c.wrong {
				q = twice{w.Store, w, &saved}
			}
			first := hold(w, q, m)
			late := <-asked
			_, err := w.Admin.Exec(t.Context(), `UPDATE sametick.prompt_queue SET due_at = now()`)
			require.NoError(t, err)
			hold(w, q, m)
			second := <-asked
			_, err = w.Admin.Exec(t.Context(), `CREATE TABLE public.kept AS SELECT * FROM sametick.prompt_queue`)
			require.NoError(t, err)
			switch {
			case c.wrong:
				close(late)
				w.Eventually("the first is kept", func() bool { return saved.Load() == 1 })
				close(second)
				w.Eventually("and the second", func() bool { return saved.Load() == 2 })
				require.Contains(t, ledger(w, m, 1, 1), "1 pairs ran twice")
				return
			case c.lateFirst:
				close(late)
				w.Eventually("it is too late", func() bool { return first.Late.Load() == 1 })
				require.Zero(t, w.Count(finished))
				close(second)
			default:
				close(second)
				w.Eventually("the run has ended", done(w, 1))
				close(late)
				w.Eventually("it is too late", func() bool { return first.Late.Load() == 1 })
			}
			w.Eventually("the run has ended", done(w, 1))
			require.Empty(t, ledger(w, m, 1, 1))
			require.Equal(t, 1, w.Count(finished+` WHERE attempts = 2 AND unknown = 1`), "two calls, of which one's outcome was unknown")
		})
	}
}
