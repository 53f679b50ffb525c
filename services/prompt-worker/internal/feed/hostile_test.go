package feed_test

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sametick/sametick/pkg/redistest"
	"github.com/sametick/sametick/pkg/stream/streamtest"
	"github.com/sametick/sametick/services/prompt-worker/internal/hooks"
	"github.com/sametick/sametick/services/prompt-worker/internal/prompting"
	"github.com/sametick/sametick/services/prompt-worker/internal/runs"
	"github.com/sametick/sametick/services/prompt-worker/internal/workertest"
)

// ledger counts what must not be: pairs of hook and event without exactly one finished run, calls that were repeated though
// the outcome of the one before was known, and runs without exactly one event.
func ledger(w *workertest.World, m *workertest.Model, events, perEvent int) (wrong []string) {
	w.T.Helper()
	note := func(n int, text string) {
		if n != 0 {
			wrong = append(wrong, fmt.Sprintf("%d %s", n, text))
		}
	}
	note(w.Count(`SELECT count(*) FROM (SELECT FROM sametick.prompt_runs GROUP BY hook_id, event_id HAVING count(*) > 1) d`), "pairs ran twice")
	note(events*perEvent-w.Count(`SELECT count(DISTINCT (hook_id, event_id)) FROM sametick.prompt_runs`), "pairs did not run")
	note(w.Count(`SELECT count(*) FROM sametick.prompt_queue`), "runs wait")
	// An attempt that nobody knows the outcome of need not have come to its call.
	note(max(len(m.Asked())-w.Count(`SELECT coalesce(sum(1 + unknown), 0) FROM sametick.prompt_runs`), 0), "calls too many")
	note(w.Count(`SELECT count(*) FROM sametick.prompt_runs r WHERE 1 <> (SELECT count(*) FROM sametick.events e WHERE e.aggregate_type = 'prompt_run' AND e.aggregate_id = r.id)`), "runs without one event")
	return wrong
}

func done(w *workertest.World, n int) func() bool {
	return func() bool {
		return w.Count(`SELECT count(DISTINCT (hook_id, event_id)) FROM sametick.prompt_runs`) >= n && w.Count(`SELECT count(*) FROM sametick.prompt_queue`) == 0
	}
}

// quick makes that an attempt is given up soon after its worker, and that a kill finds runs at every stage: those that gather
// go through them together.
func quick(c *runs.Config) { c.Margin, c.Gather = 200*time.Millisecond, -1 }

// Workers are killed right after a provider has answered, before that is persisted.
func TestKilledBeforePersisting(t *testing.T) {
	t.Parallel()
	w := workertest.NewWorld(t, prompting.Limits{})
	for range 2 {
		w.Hook(func(set *hooks.Settings) { set.TimeoutMS = 500 })
	}
	const events, kills = 60, 12
	m := &workertest.Model{}
	var calls atomic.Int64
	deadly := make(chan func(), 1)
	m.Answer = func(context.Context, prompting.Request) (prompting.Response, error) {
		if calls.Add(1)%7 == 0 {
			select {
			case kill := <-deadly:
				kill()
			default:
			}
		}
		return prompting.Response{Text: "ok", Usage: prompting.Usage{Input: 10, Output: 5}}, nil
	}
	for i := range events {
		w.Task(int64(i + 1))
	}
	for i := range kills {
		dead := make(chan struct{})
		r := w.Start(fmt.Sprint("replica ", i), m, quick)
		deadly <- r.Abandon(func() { close(dead) })
		select {
		case <-dead:
		case <-time.After(2 * time.Second): // nothing is left to be killed at
			<-deadly
		}
		r.Kill()
	}
	w.Start("survivor", m, quick)
	w.Eventually("all run", done(w, events*2))
	require.Empty(t, ledger(w, m, events, 2))
	require.Positive(t, w.Count(`SELECT count(*) FROM sametick.prompt_runs WHERE unknown > 0`), "the control: some were killed in between")
	require.Greater(t, len(m.Asked()), events*2)
	_, err := w.Store.Expire(t.Context(), time.Now().Add(time.Hour))
	require.NoError(t, err)
	spent, held, err := w.Store.Spent(t.Context(), 1, 0, time.Now().UTC().Truncate(24*time.Hour))
	require.NoError(t, err)
	require.Zero(t, held)
	require.EqualValues(t, w.Count(`SELECT sum(attempts) FROM sametick.prompt_runs`), spent.Runs, "what nobody knows of is spent")
}

// Redis loses everything while events come; the control takes the log away too, and nothing more is scheduled.
func TestRedisEmptied(t *testing.T) {
	t.Parallel()
	w := workertest.NewWorld(t, prompting.Limits{})
	server := redistest.New(t)
	pub := streamtest.NewPublisher(t, w.Log, server.URL, server)
	w.Redis = pub.Redis(t)
	w.Hook()
	m := &workertest.Model{}
	w.Start("a", m)
	const events = 90
	for i := range events {
		w.Task(int64(i + 1))
		require.NoError(t, pub.Publish(t.Context()))
		if i%30 == 15 {
			require.NoError(t, pub.Flush(t.Context()))
		}
	}
	w.Eventually("all run", done(w, events))
	require.Empty(t, ledger(w, m, events, 1))
	require.Len(t, m.Asked(), events)
}

// Sixty-four runs at once at the edge of a budget. The control holds nothing.
func TestBudgetEdge(t *testing.T) {
	t.Parallel()
	for name, wrong := range map[string]bool{"held": false, "control": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := workertest.NewWorld(t, prompting.Limits{})
			if wrong {
				_, err := w.Admin.Exec(t.Context(), `CREATE OR REPLACE FUNCTION sametick.hold_prompt_budget(org bigint, hook bigint, on_day date, runs bigint, tokens bigint, cost bigint,
					org_limits bigint[], hook_limits bigint[]) RETURNS text LANGUAGE sql AS $$ SELECT '' $$`)
				require.NoError(t, err)
			}
			ten := int64(10)
			h := w.Hook(func(set *hooks.Settings) { set.Budget.Runs, set.TimeoutMS = &ten, 20_000 })
			const events = 64
			for i := range events {
				w.Task(int64(i + 1))
			}
			m := &workertest.Model{}
			w.Start("a", m)
			w.Eventually("all run", done(w, events))
			if wrong {
				require.Len(t, m.Asked(), events)
				return
			}
			require.Len(t, m.Asked(), 10)
			require.Equal(t, 54, w.Count(`SELECT count(*) FROM sametick.prompt_runs WHERE status = 'failed' AND cause = 'budget' AND attempts = 0`))
			spent, held, err := w.Store.Spent(t.Context(), 1, h.ID, time.Now().UTC().Truncate(24*time.Hour))
			require.NoError(t, err)
			require.Equal(t, prompting.Amount{Runs: 10, Tokens: 150, Cost: 150}, spent)
			require.Zero(t, held)
		})
	}
}

// A hook that its own output would trigger, and two that would trigger each other for ever. The control forgets why events
// are there.
func TestLoops(t *testing.T) {
	t.Parallel()
	for name, wrong := range map[string]bool{"causation": false, "control": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := workertest.NewWorld(t, prompting.Limits{})
			w.Forget = wrong
			own := w.Hook(func(set *hooks.Settings) { set.EventTypes = []string{"task.*", "prompt_run.completed"} })
			other := w.Hook(func(set *hooks.Settings) { set.EventTypes = []string{"prompt_run.*"} })
			w.Hook(func(set *hooks.Settings) { set.EventTypes = []string{"*"} }) // on everything but runs
			m := &workertest.Model{}
			r := w.Start("a", m)
			w.Task(1)
			n := func(id int64) int { return w.Count(`SELECT count(*) FROM sametick.prompt_runs WHERE hook_id = $1`, id) }
			if wrong {
				w.Eventually("no end", func() bool { w.Relay(); return n(own.ID) > 10 && n(other.ID) > 10 })
				return
			}
			// The task: own and everything. Their runs: other, twice, and own once, on everything's. On what came of those: …
			w.Eventually("the chain ends", func() bool {
				w.Relay()
				return r.Feed.Stats.Loops.Load() >= 6 && w.Count(`SELECT count(*) FROM sametick.prompt_queue`) == 0
			})
			settled := w.Count(finished)
			w.Relay()
			w.Task(2)
			w.Eventually("a second one ends the same", func() bool { w.Relay(); return w.Count(finished) == 2*settled })
			require.LessOrEqual(t, w.Count(`SELECT max(jsonb_array_length(payload->'causation'->'hook_ids')) FROM sametick.events WHERE aggregate_type = 'prompt_run'`), 3)
			require.Zero(t, w.Count(`SELECT count(*) FROM sametick.events e, jsonb_array_elements(e.payload->'causation'->'hook_ids') x
				WHERE aggregate_type = 'prompt_run' GROUP BY e.id, x HAVING count(*) > 1 UNION ALL SELECT 0 LIMIT 1`))
		})
	}
}

func TestArchivedWhileRunsWait(t *testing.T) {
	t.Parallel()
	w := workertest.NewWorld(t, prompting.Limits{})
	h := w.Hook(func(set *hooks.Settings) { set.TimeoutMS = 20_000 })
	asked, release := make(chan struct{}), make(chan struct{})
	var once sync.Once
	m := &workertest.Model{Answer: func(context.Context, prompting.Request) (prompting.Response, error) {
		once.Do(func() { close(asked) })
		<-release
		return prompting.Response{Text: "ok"}, nil
	}}
	w.Start("a", m, func(c *runs.Config) { c.PerHook = 1 })
	for i := range 5 {
		w.Task(int64(i + 1))
	}
	<-asked
	_, err := w.Store.ArchiveHook(t.Context(), w.Call, h.ID, nil)
	require.NoError(t, err)
	close(release)
	w.Eventually("all end", done(w, 5))
	require.Len(t, m.Asked(), 1)
	require.Equal(t, 4, w.Count(`SELECT count(*) FROM sametick.prompt_runs WHERE cause = 'cancelled'`))
}
