package review

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/sametick/sametick/pkg/condition"
	"github.com/sametick/sametick/pkg/errs"
	"github.com/sametick/sametick/pkg/event"
	"github.com/sametick/sametick/services/prompt-worker/internal/prompting"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type hookList []*Hook

func (l hookList) ReviewHooks(context.Context, int64, *int64) ([]*Hook, error) { return l, nil }

// models answers by the hook's id.
type models struct {
	asked atomic.Int64
	by    map[int64]func(ctx context.Context, a Ask) (prompting.Response, error)
}

func (m *models) Review(ctx context.Context, a Ask) (prompting.Response, error) {
	m.asked.Add(1)
	return m.by[a.Hook.ID](ctx, a)
}

type records struct {
	mu   sync.Mutex
	runs []Run
}

func (r *records) Record(run Run) int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.runs = append(r.runs, run)
	return int64(len(r.runs))
}

func verdict(v, reason string, suspected bool) func(context.Context, Ask) (prompting.Response, error) {
	text, _ := json.Marshal(map[string]any{"verdict": v, "rule_ids": []string{}, "reason": reason, "injection_suspected": suspected})
	return func(context.Context, Ask) (prompting.Response, error) {
		return prompting.Response{JSON: text, Usage: prompting.Usage{Input: 10, Output: 5}}, nil
	}
}

func fails(cause string) func(context.Context, Ask) (prompting.Response, error) {
	return func(context.Context, Ask) (prompting.Response, error) {
		return prompting.Response{}, &prompting.ModelError{Cause: cause, Text: "secret of the owner"}
	}
}

// hangs ends with its context, as a runner should.
func hangs(ctx context.Context, _ Ask) (prompting.Response, error) {
	<-ctx.Done()
	return prompting.Response{}, ctx.Err()
}

var compiler = sync.OnceValue(func() *condition.Compiler {
	c, err := condition.NewWriteCompiler(1000)
	if err != nil {
		panic(err)
	}
	return c
})

func rulesOf(t testing.TB, when string, rules ...prompting.Rule) *prompting.Rules {
	t.Helper()
	r, err := prompting.CompileRules(compiler(), when, rules, true)
	require.NoError(t, err)
	return r
}

func templateOf(t testing.TB, text string) *prompting.Template {
	t.Helper()
	out, err := prompting.Compile(prompting.Version{
		Messages:  []prompting.Message{{Role: "user", Text: text}},
		Variables: []prompting.Variable{{Name: "name", Path: "payload.record_name"}, {Name: "after", Path: "after"}},
	})
	require.NoError(t, err)
	return out
}

// hook asks a model about all tasks, enforces and fails closed.
func hook(t testing.TB, id int64, change ...func(*Hook)) *Hook {
	p, ok := event.ParsePattern("*.*")
	require.True(t, ok)
	h := &Hook{
		ID: id, Name: fmt.Sprint("hook ", id), Revision: 1, Patterns: []event.Pattern{p}, Rules: rulesOf(t, ""),
		Stable: &Version{1, templateOf(t, "Judge {{ name }}")}, ProviderID: 1, Model: "m", FailClosed: true, Enforcement: Enforce,
	}
	for _, c := range change {
		c(h)
	}
	return h
}

func open(h *Hook)      { h.FailClosed = false }
func shadow(h *Hook)    { h.Enforcement = Shadow }
func warn(h *Hook)      { h.Enforcement = Warn }
func rulesOnly(h *Hook) { h.Stable = nil }

func rules(t testing.TB, r ...prompting.Rule) func(*Hook) {
	return func(h *Hook) { h.Rules = rulesOf(t, "", r...) }
}

func create(name string) Write {
	after, _ := json.Marshal(map[string]any{"name": name})
	return Write{EventType: "task.pre_create", AggregateType: "task", RecordName: name, After: after, Changed: []string{"name"}}
}

type bench struct {
	*Engine
	models  *models
	records *records
}

func newBench(hooks hookList, by answering) *bench {
	b := &bench{models: &models{by: by}, records: &records{}}
	b.Engine = New(hooks, b.models, b.records, nil)
	return b
}

func (b *bench) one(t testing.TB, w Write) Judgement {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
	defer cancel()
	out, err := b.Review(ctx, Request{OrgID: 1, Writes: []Write{w}, Reserve: time.Second})
	require.NoError(t, err)
	require.Len(t, out, 1)
	return out[0]
}

func names(j Judgement) (out []string) {
	for _, v := range j.Verdicts {
		out = append(out, v.Verdict)
	}
	return out
}

var denyEmpty = prompting.Rule{ID: "title", Expression: `after.name.trim() == ""`, Reason: "a task needs a title"}

// TestRulesComeFirst: what rules deny is shown to no model, and none can grant it.
func TestRulesComeFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(hookList{hook(t, 1), hook(t, 2, rules(t, denyEmpty)), hook(t, 3, rulesOnly)},
			answering{1: verdict("approve", "", false), 2: verdict("approve", "", false)})
		defer b.Close()
		j := b.one(t, create(" "))
		require.True(t, j.Rejected)
		require.Equal(t, []string{"superseded", "reject", "approve"}, names(j))
		require.Equal(t, "a task needs a title", j.Verdicts[1].Reason)
		require.Equal(t, []string{"title"}, j.Verdicts[1].RuleIDs)
		require.Zero(t, b.models.asked.Load())
		require.Len(t, b.records.runs, 3)
		require.NotEmpty(t, j.Hash)

		j = b.one(t, create("Call"))
		require.False(t, j.Rejected)
		require.Equal(t, []string{"approve", "approve", "approve"}, names(j))
		require.EqualValues(t, 2, b.models.asked.Load())
	})
}

func TestPolicies(t *testing.T) {
	for name, tt := range map[string]struct {
		answer   func(context.Context, Ask) (prompting.Response, error)
		change   []func(*Hook)
		rejected bool
		want     HookVerdict
	}{
		"approve":          {verdict("approve", "fine", false), nil, false, HookVerdict{Verdict: "approve", Reason: "fine"}},
		"reject":           {verdict("reject", "no", false), nil, true, HookVerdict{Verdict: "reject", Reason: "no", Enforced: true}},
		"warn":             {verdict("reject", "no", false), []func(*Hook){warn}, false, HookVerdict{Verdict: "reject", Reason: "no", Enforcement: Warn}},
		"shadow":           {verdict("reject", "no", false), []func(*Hook){shadow}, false, HookVerdict{Verdict: "reject", Reason: "no", Enforcement: Shadow}},
		"suspected":        {verdict("approve", "", true), nil, true, HookVerdict{Verdict: "failed", Reason: "an instruction in the data is suspected", Enforced: true, InjectionSuspected: true}},
		"suspected, open":  {verdict("approve", "", true), []func(*Hook){open}, false, HookVerdict{Verdict: "failed", Reason: "an instruction in the data is suspected", FailedOpen: true, InjectionSuspected: true}},
		"suspected reject": {verdict("reject", "no", true), []func(*Hook){open}, true, HookVerdict{Verdict: "reject", Reason: "no", Enforced: true, InjectionSuspected: true}},
		"closed":           {fails(prompting.CauseRefused), nil, true, HookVerdict{Verdict: "failed", Reason: "the review failed: refused", Enforced: true}},
		"open":             {fails(prompting.CauseQuota), []func(*Hook){open}, false, HookVerdict{Verdict: "failed", Reason: "the review failed: quota", FailedOpen: true}},
		"shadow closed":    {fails(prompting.CauseQuota), []func(*Hook){shadow}, false, HookVerdict{Verdict: "failed", Reason: "the review failed: quota", Enforcement: Shadow}},
		"hangs, closed":    {hangs, nil, true, HookVerdict{Verdict: "failed", Reason: "the review failed: timeout", Enforced: true}},
		"hangs, open":      {hangs, []func(*Hook){open}, false, HookVerdict{Verdict: "failed", Reason: "the review failed: timeout", FailedOpen: true}},
		"empty answer": {func(context.Context, Ask) (prompting.Response, error) { return prompting.Response{}, nil }, nil, true,
			HookVerdict{Verdict: "failed", Reason: "the review failed: invalid_output", Enforced: true}},
		"text": {func(context.Context, Ask) (prompting.Response, error) {
			return prompting.Response{Text: "approve"}, nil
		}, nil, true,
			HookVerdict{Verdict: "failed", Reason: "the review failed: invalid_output", Enforced: true}},
		"panic": {func(context.Context, Ask) (prompting.Response, error) { panic("no") }, nil, true,
			HookVerdict{Verdict: "failed", Reason: "the review failed: invalid_output", Enforced: true}},
		"other error": {func(context.Context, Ask) (prompting.Response, error) { return prompting.Response{}, errors.New("no") }, nil, true,
			HookVerdict{Verdict: "failed", Reason: "the review failed: unavailable", Enforced: true}},
		"approval with an error": {func(context.Context, Ask) (prompting.Response, error) {
			r, _ := verdict("approve", "", false)(context.Background(), Ask{})
			return r, &prompting.ModelError{Cause: prompting.CauseTruncated}
		}, nil, true, HookVerdict{Verdict: "failed", Reason: "the review failed: truncated", Enforced: true}},
		"template": {verdict("approve", "", false), []func(*Hook){func(h *Hook) { h.Stable = &Version{1, templateOf(t, "{{ name | divided_by: 0 }}")} }}, true,
			HookVerdict{Verdict: "failed", Reason: "the review failed: template", Enforced: true}},
		"rule that cannot tell": {verdict("approve", "", false), []func(*Hook){rules(t, prompting.Rule{ID: "a", Expression: `after.salary > 1`})}, true,
			HookVerdict{Verdict: "failed", Reason: "the review failed: condition", Enforced: true}},
		"condition that cannot tell": {verdict("approve", "", false), []func(*Hook){open, func(h *Hook) { h.Rules = rulesOf(t, `after.salary > 1`) }}, false,
			HookVerdict{Verdict: "failed", Reason: "the review failed: condition", FailedOpen: true}},
		"no rules at all": {verdict("approve", "", false), []func(*Hook){func(h *Hook) { h.Rules = nil }}, true,
			HookVerdict{Verdict: "failed", Reason: "the review failed: invalid_output", Enforced: true}},
	} {
		synctest.Test(t, func(t *testing.T) {
			b := newBench(hookList{hook(t, 1, tt.change...)}, answering{1: tt.answer})
			defer b.Close()
			j := b.one(t, create("Call"))
			tt.want.HookID, tt.want.HookName, tt.want.RunID, tt.want.RuleIDs = 1, "hook 1", 1, []string{}
			if tt.want.Enforcement == "" {
				tt.want.Enforcement = Enforce
			}
			require.Equal(t, tt.want, j.Verdicts[0], name)
			require.Equal(t, tt.rejected, j.Rejected, name)
			run := b.records.runs[0]
			tt.want.RunID = 0 // it has none yet
			require.Equal(t, tt.want, run.Verdict)
			require.Equal(t, tt.want.Verdict == "failed" && !tt.want.InjectionSuspected, run.Cause != "", name)
		})
	}
}

func TestConditionFalseIsNotAsked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(hookList{hook(t, 1, func(h *Hook) { h.Rules = rulesOf(t, `after.name == "other"`) })}, nil)
		defer b.Close()
		j := b.one(t, create("Call"))
		require.Empty(t, j.Verdicts)
		require.Zero(t, b.models.asked.Load())
	})
}

// TestFirstRejectCancels: the write is refused at once, not when the slowest model has answered.
func TestFirstRejectCancels(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(hookList{hook(t, 1), hook(t, 2), hook(t, 3, shadow)},
			answering{1: hangs, 3: verdict("reject", "not enforced", false),
				2: func(ctx context.Context, a Ask) (prompting.Response, error) {
					time.Sleep(10 * time.Millisecond)
					return verdict("reject", "no", false)(ctx, a)
				}})
		defer b.Close()
		start := time.Now()
		j := b.one(t, create("Call"))
		require.Equal(t, 10*time.Millisecond, time.Since(start))
		require.True(t, j.Rejected)
		require.Equal(t, []string{"superseded", "reject", "reject"}, names(j))
	})
}

// TestDeadline: four hooks whose models hang, also one that does not even end with its context, keep nobody longer than
// the deadline allows; what happens then is the failure policy's to say.
func TestDeadline(t *testing.T) {
	for _, closed := range []bool{false, true} {
		for name, model := range map[string]func(chan struct{}) func(context.Context, Ask) (prompting.Response, error){
			"with context": func(chan struct{}) func(context.Context, Ask) (prompting.Response, error) { return hangs },
			"without": func(end chan struct{}) func(context.Context, Ask) (prompting.Response, error) {
				return func(context.Context, Ask) (prompting.Response, error) {
					<-end
					return verdict("approve", "", false)(nil, Ask{})
				}
			},
		} {
			synctest.Test(t, func(t *testing.T) {
				end := make(chan struct{})
				by := answering{}
				var hooks hookList
				for id := int64(1); id <= 4; id++ {
					by[id] = model(end)
					hooks = append(hooks, hook(t, id, func(h *Hook) { h.FailClosed, h.Timeout = closed, 10*time.Second }))
				}
				b := newBench(hooks, by)
				ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
				defer cancel()
				start := time.Now()
				out, err := b.Review(ctx, Request{OrgID: 1, Writes: []Write{create("Call")}, Reserve: 200 * time.Millisecond})
				require.NoError(t, err)
				require.InDelta(t, 2800*time.Millisecond, time.Since(start), float64(50*time.Millisecond), name)
				require.Equal(t, closed, out[0].Rejected)
				require.Equal(t, []string{"failed", "failed", "failed", "failed"}, names(out[0]))
				close(end)
				b.Close()
			})
		}
	}
}

func TestTimes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, tt := range []struct{ caller, reserve, own, want time.Duration }{
			{0, 0, 0, DefaultTimeout},
			{0, 0, 5 * time.Second, DefaultTimeout},
			{time.Minute, 0, time.Minute, MaxTimeout},
			{time.Second, 0, 0, 900 * time.Millisecond},
			{time.Minute, 0, 300 * time.Millisecond, 300 * time.Millisecond},
			{4 * time.Second, time.Second, 0, DefaultTimeout},
		} {
			b := newBench(hookList{hook(t, 1, func(h *Hook) { h.Timeout = tt.own })}, answering{1: hangs})
			ctx, cancel := t.Context(), func() {}
			if tt.caller > 0 {
				ctx, cancel = context.WithTimeout(ctx, tt.caller)
			}
			start := time.Now()
			_, err := b.Review(ctx, Request{OrgID: 1, Writes: []Write{create("a")}, Reserve: tt.reserve})
			require.NoError(t, err)
			require.Equal(t, tt.want, time.Since(start), "%+v", tt)
			cancel()
			b.Close()
		}
	})
}

// TestManyWrites: a batch has a judgement each, and no more than so many models are asked at once.
func TestManyWrites(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var now, most atomic.Int64
		b := newBench(hookList{hook(t, 1, rules(t, denyEmpty))}, answering{1: func(ctx context.Context, a Ask) (prompting.Response, error) {
			most.Store(max(most.Load(), now.Add(1)))
			defer now.Add(-1)
			time.Sleep(time.Millisecond)
			return verdict("approve", "", false)(ctx, a)
		}})
		defer b.Close()
		var writes []Write
		for i := range 300 {
			writes = append(writes, create(strings.Repeat("x", i%3)+strings.Repeat(" ", i)))
		}
		out, err := b.Review(t.Context(), Request{OrgID: 1, Writes: writes})
		require.NoError(t, err)
		for i, j := range out {
			require.Equal(t, i%3 == 0, j.Rejected, i)
		}
		require.EqualValues(t, maxParallel, most.Load())
		for _, n := range []int{0, MaxWrites + 1} {
			_, err := b.Review(t.Context(), Request{OrgID: 1, Writes: make([]Write, n)})
			require.Error(t, err)
		}
	})
}

// TestOwnObjectsAreExempt: a hook that refuses everything can be removed.
func TestOwnObjectsAreExempt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		all := prompting.Rule{ID: "all", Expression: "true"}
		b := newBench(hookList{hook(t, 1, rulesOnly, rules(t, all))}, nil)
		defer b.Close()
		for _, typ := range []string{"prompt_hook", "prompt_template", "prompt_provider", "mcp_server", "task", "prompt_note"} {
			j := b.one(t, Write{EventType: typ + ".pre_archive", AggregateType: typ, AggregateID: 1, Before: json.RawMessage(`{}`)})
			require.Equal(t, typ == "task" || typ == "prompt_note", j.Rejected, typ)
		}
	})
}

func TestInvalidWrites(t *testing.T) {
	b := newBench(nil, nil)
	defer b.Close()
	for _, text := range []string{`{`, `{"a":1,"a":2}`} {
		_, err := b.Review(t.Context(), Request{OrgID: 1, Writes: []Write{{EventType: "task.pre_create", AggregateType: "task", After: json.RawMessage(text)}}})
		var e *errs.Error
		require.ErrorAs(t, err, &e)
		require.Equal(t, errs.Invalid, e.Kind)
	}
}
