package feed_test

import (
	"context"
	"encoding/json"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sametick/sametick/services/prompt-worker/internal/hooks"
	"github.com/sametick/sametick/services/prompt-worker/internal/prompting"
	"github.com/sametick/sametick/services/prompt-worker/internal/runs"
	"github.com/sametick/sametick/services/prompt-worker/internal/store"
	"github.com/sametick/sametick/services/prompt-worker/internal/workertest"
)

// What a model writes is kept as it is, and keeps nobody else back, whatever it is.
func TestHostileAnswers(t *testing.T) {
	t.Parallel()
	w := workertest.NewWorld(t, prompting.Limits{})
	texts := []string{"a\x00b", "\xff\xfe", `\u0000`, "\xed\xa0\x80", "fine"}
	answers := []string{`{"a":"\u0000\ud800"}`, `{"a":1e999999}`, `{"a":"\\u0000"}`, `{"\u0000":[1e-400]}`, `{"a":1}`}
	text := w.Hook(func(set *hooks.Settings) { set.EventTypes = []string{"task.*"} })
	object := w.Hook(func(set *hooks.Settings) {
		set.EventTypes, set.OutputSchema = []string{"task.*"}, json.RawMessage(`{"type":"object"}`)
	})
	var n, k atomic.Int64
	m := &workertest.Model{Answer: func(_ context.Context, r prompting.Request) (prompting.Response, error) {
		if r.Schema == nil {
			return prompting.Response{Text: texts[n.Add(1)-1]}, nil
		}
		return prompting.Response{JSON: json.RawMessage(answers[k.Add(1)-1])}, nil
	}}
	for i := range texts {
		w.Task(int64(i + 1))
	}
	w.Start("a", m)
	w.Eventually("all run", done(w, 2*len(texts)))
	require.Empty(t, ledger(w, m, len(texts), 2))
	for id, want := range map[int64]int{text.ID: len(texts), object.ID: len(answers)} {
		list, err := w.Store.ListRuns(t.Context(), 1, store.RunFilter{HookID: &id, Status: runs.Completed, Limit: 100})
		require.NoError(t, err)
		require.Len(t, list, want)
	}
	require.Equal(t, 1, w.Count(`SELECT count(*) FROM sametick.events WHERE payload->>'output' = 'ab'`), "events leave NUL out")
	require.Equal(t, 8, w.Count(`SELECT count(*) FROM sametick.events WHERE payload ? 'output'`), "and numbers that nobody can read")
}

// What may succeed later is put off, no earlier than the provider asks for; what will not is over at once.
func TestFailures(t *testing.T) {
	t.Parallel()
	w := workertest.NewWorld(t, prompting.Limits{})
	w.Hook()
	var n atomic.Int64
	failures := []*prompting.ModelError{
		{Cause: prompting.CauseRateLimited, Text: "slow down", RetryAfter: time.Hour},
		{Cause: prompting.CauseTimeout, Text: "gone", Unknown: true},
		{Cause: prompting.CauseQuota, Text: "pay", RetryAfter: time.Second},
		{Cause: prompting.CauseRefused, Text: "no", Usage: prompting.Usage{Input: 7, Output: 1}},
	}
	m := &workertest.Model{Answer: func(context.Context, prompting.Request) (prompting.Response, error) {
		return prompting.Response{}, failures[n.Add(1)-1]
	}}
	for i := range failures {
		w.Task(int64(i + 1))
	}
	w.Start("a", m)
	w.Eventually("two are over, two wait", func() bool {
		return w.Count(finished) == 2 && w.Count(`SELECT count(*) FROM sametick.prompt_queue WHERE attempts = 1 AND NOT calling`) == 2
	})
	require.Equal(t, 1, w.Count(`SELECT count(*) FROM sametick.prompt_queue WHERE cause = 'rate_limited' AND unknown = 0 AND due_at > now() + interval '59 minutes'`))
	require.Equal(t, 1, w.Count(`SELECT count(*) FROM sametick.prompt_queue WHERE cause = 'timeout' AND unknown = 1 AND due_at < now() + interval '7 seconds'`))
	require.Equal(t, 1, w.Count(`SELECT count(*) FROM sametick.prompt_runs WHERE cause = 'quota' AND attempts = 1`))
	require.Equal(t, 1, w.Count(`SELECT count(*) FROM sametick.prompt_runs WHERE cause = 'refused' AND input_tokens = 7 AND cost = 8`))
	require.Equal(t, 2, w.Count(`SELECT count(*) FROM sametick.audit_entries WHERE aggregate_type = 'prompt_run' AND outcome = 'failed'`))
	spent, held, err := w.Store.Spent(t.Context(), 1, 0, time.Now().UTC().Truncate(24*time.Hour))
	require.NoError(t, err)
	require.Zero(t, held)
	require.EqualValues(t, 4, spent.Runs)
	require.Greater(t, spent.Tokens, int64(4096), "of the unknown one, the worst case")
	pending, err := w.Store.ListRuns(t.Context(), 1, store.RunFilter{Status: runs.Pending, Limit: 10})
	require.NoError(t, err)
	require.Len(t, pending, 2)
	run, err := w.Store.GetRun(t.Context(), 1, pending[0].ID)
	require.NoError(t, err)
	require.Equal(t, runs.Pending, run.Status)
}

// Conditions decide at scheduling; one that cannot tell makes a run that says so. Rules give outputs without a model.
func TestConditionsAndRules(t *testing.T) {
	t.Parallel()
	w := workertest.NewWorld(t, prompting.Limits{})
	odd := w.Hook(func(set *hooks.Settings) { set.Condition = `event.aggregate_id % 2 == 1` })
	broken := w.Hook(func(set *hooks.Settings) { set.Condition = `event.payload.missing == 1` })
	rules := w.Hook(func(set *hooks.Settings) {
		set.TemplateID, set.TemplateVersion, set.ProviderID = 0, 0, 0
		set.Rules = []prompting.Rule{{ID: "double", Expression: `event.aggregate_id * 2`}, {ID: "name", Expression: `event.payload.record_name`}}
	})
	m := &workertest.Model{}
	w.Start("a", m)
	for i := range 4 {
		w.Task(int64(i + 1))
	}
	w.Eventually("all run", done(w, 2+4+4))
	require.Equal(t, 2, w.Count(`SELECT count(*) FROM sametick.prompt_runs WHERE hook_id = $1 AND status = 'completed'`, odd.ID))
	require.Equal(t, 4, w.Count(`SELECT count(*) FROM sametick.prompt_runs WHERE hook_id = $1 AND status = 'failed' AND cause = 'condition' AND attempts = 0`, broken.ID))
	require.Equal(t, 4, w.Count(`SELECT count(*) FROM sametick.prompt_runs WHERE hook_id = $1 AND output::jsonb = jsonb_build_object('double', aggregate_id * 2, 'name', 'task ' || aggregate_id)`, rules.ID))
	require.Len(t, m.Asked(), 2)
}

// A replica that is stopped finishes what it has in hand, and its attempts' outcomes are known.
func TestDrain(t *testing.T) {
	t.Parallel()
	w := workertest.NewWorld(t, prompting.Limits{})
	w.Hook(func(set *hooks.Settings) { set.TimeoutMS = 30_000 })
	asked, release := make(chan struct{}, 100), make(chan struct{})
	m := &workertest.Model{Answer: func(context.Context, prompting.Request) (prompting.Response, error) {
		asked <- struct{}{}
		<-release
		return prompting.Response{Text: "ok"}, nil
	}}
	r := w.Start("a", m, func(c *runs.Config) { c.PerHook = 3 })
	for i := range 10 {
		w.Task(int64(i + 1))
	}
	for range 3 {
		<-asked
	}
	stopped := make(chan struct{})
	go func() { defer close(stopped); r.Stop() }()
	select {
	case <-stopped:
		t.Fatal("it must wait")
	case <-time.After(100 * time.Millisecond):
	}
	close(release)
	<-stopped
	require.Equal(t, 3, w.Count(`SELECT count(*) FROM sametick.prompt_runs WHERE attempts = 1 AND unknown = 0`))
	require.Equal(t, 7, w.Count(`SELECT count(*) FROM sametick.prompt_queue WHERE attempts = 0`))
	w.Start("b", m)
	w.Eventually("the next one goes on", done(w, 10))
	require.Len(t, m.Asked(), 10)
}
