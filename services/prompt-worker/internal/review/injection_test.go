package review

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sametick/sametick/services/prompt-worker/internal/injectiontest"
	"github.com/sametick/sametick/services/prompt-worker/internal/prompting"
)

// The proof of injection: whatever a field of a record says, it changes no denial of a rule, leaves no fence, reaches
// no tool and lets no error pass for an approval. It says nothing of what a real model makes of data inside the fence.

// salary denies, whatever a model would say.
var salary = prompting.Rule{ID: "salary", Expression: `after.attributes.amount > 100`, Reason: "more than allowed"}

// judging is the template of the proof.
func judging(t testing.TB) *prompting.Template {
	out, err := prompting.Compile(injectiontest.Judging())
	require.NoError(t, err)
	return out
}

// attempt is a write whose record has a text in a field; key names differ only where the field is one.
func attempt(put injectiontest.Put, text string, amount int) Write {
	after := injectiontest.Record(put, text, amount)
	var named struct{ Name string }
	_ = json.Unmarshal(after, &named)
	return Write{EventType: "task.pre_update", AggregateType: "task", AggregateID: 7, BaseVersion: 1, RecordName: named.Name,
		Before: after, After: after, Changed: []string{"name", "attributes." + text}}
}

// gullible approves when it is told to by what stands outside of the fence. Of itself it rejects.
type gullible struct {
	injectiontest.Gullible
	// always: it needs not be told.
	always bool
	obeyed atomic.Int64
}

func (g *gullible) Review(_ context.Context, a Ask) (prompting.Response, error) {
	v := prompting.Reject
	if g.always || g.Obeys(a.Prompt.Messages()) {
		v = prompting.Approve
		g.obeyed.Add(1)
	}
	return verdict(v, "as I was told", false)(context.Background(), a)
}

// each tries every text in every field, with hooks and a model, in a time that no load makes pass.
func each(t *testing.T, hooks hookList, model Runner, try func(t *testing.T, e *Engine, at, text string, put injectiontest.Put)) {
	for source, texts := range injectiontest.Attempts(t) {
		for name, put := range injectiontest.Fields() {
			t.Run(source+"/"+name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					e := New(hooks, model, &records{}, nil)
					defer e.Close()
					for _, text := range texts {
						try(t, e, source+"/"+name, text, put)
					}
				})
			})
		}
	}
}

func TestNoAttemptLeavesTheFence(t *testing.T) {
	g := &gullible{}
	hooks := hookList{hook(t, 1, func(h *Hook) { h.Stable = &Version{1, judging(t)} })}
	each(t, hooks, g, func(t *testing.T, b *Engine, at, text string, put injectiontest.Put) {
		out, err := b.Review(t.Context(), Request{OrgID: 1, Writes: []Write{attempt(put, text, 10)}})
		require.NoError(t, err)
		require.Equal(t, []string{"reject"}, names(out[0]), "%s: %q: %v", at, text, out[0].Verdicts)
		require.True(t, out[0].Rejected)
	})
	require.Zero(t, g.obeyed.Load())
}

// TestWithoutTheFence is the control: the same texts and the same model, with the fence taken away.
func TestWithoutTheFence(t *testing.T) {
	for name, c := range map[string]struct {
		seen func(text, nonce string) string
		all  bool
	}{
		"no fence":                       {injectiontest.Bare, true},
		"a fence that is known, and raw": {injectiontest.Known, false},
	} {
		synctest.Test(t, func(t *testing.T) {
			g := &gullible{Gullible: injectiontest.Gullible{Seen: c.seen}}
			b := New(hookList{hook(t, 1, func(h *Hook) { h.Stable = &Version{1, judging(t)} })}, g, &records{}, nil)
			defer b.Close()
			obeyed, tried := 0, 0
			for _, text := range injectiontest.Attempts(t)["own"] {
				out, err := b.Review(t.Context(), Request{OrgID: 1, Writes: []Write{attempt(injectiontest.Fields()["value"], text, 10)}})
				require.NoError(t, err)
				tried++
				if !out[0].Rejected {
					obeyed++
				}
			}
			if c.all {
				require.Equal(t, tried, obeyed, "each is obeyed")
			}
			require.GreaterOrEqual(t, obeyed, 3, name)
			require.EqualValues(t, obeyed, g.obeyed.Load())
		})
	}
}

// TestNoAttemptMovesARule: a denial of rules stands, no model is asked, whatever it would have said.
func TestNoAttemptMovesARule(t *testing.T) {
	g := &gullible{always: true}
	hooks := hookList{hook(t, 1, rules(t, salary), func(h *Hook) { h.Stable = &Version{1, judging(t)} }), hook(t, 2, open)}
	each(t, hooks, g, func(t *testing.T, b *Engine, at, text string, put injectiontest.Put) {
		out, err := b.Review(t.Context(), Request{OrgID: 1, Writes: []Write{attempt(put, text, 101)}})
		require.NoError(t, err)
		require.True(t, out[0].Rejected, "%s: %q", at, text)
		require.Equal(t, []string{"reject", "superseded"}, names(out[0]))
		require.Equal(t, []string{"salary"}, out[0].Verdicts[0].RuleIDs)
		require.Equal(t, "more than allowed", out[0].Verdicts[0].Reason)
	})
	require.Zero(t, g.obeyed.Load())
	// The control: the same without the rule is approved.
	b := New(hookList{hook(t, 1, func(h *Hook) { h.Stable = &Version{1, judging(t)} })}, g, &records{}, nil)
	defer b.Close()
	out, err := b.Review(t.Context(), Request{OrgID: 1, Writes: []Write{attempt(injectiontest.Fields()["name"], "x", 101)}})
	require.NoError(t, err)
	require.False(t, out[0].Rejected)
}

// erratic answers at random what the schema allows, and now and then fails, also with an approval in its hand.
type erratic struct {
	random *rand.Rand
	last   struct {
		approves bool
	}
}

func (e *erratic) Review(ctx context.Context, a Ask) (prompting.Response, error) {
	v := []string{"approve", "reject"}[e.random.IntN(2)]
	suspected := e.random.IntN(4) == 0
	response, _ := verdict(v, string(rune(e.random.IntN(0x3000))), suspected)(ctx, a)
	e.last.approves = v == "approve" && !suspected
	switch e.random.IntN(6) {
	case 0:
		e.last.approves = false
		return response, &prompting.ModelError{Cause: prompting.CauseTruncated}
	case 1:
		e.last.approves = false
		response.JSON = response.JSON[:e.random.IntN(len(response.JSON))]
	case 2:
		e.last.approves = false
		response = prompting.Response{Calls: []prompting.ToolCall{{ID: "1", Name: "grant_access", Arguments: response.JSON}}}
	}
	return response, nil
}

// TestNoErrorApproves: only a sound approval lets a write through, and beside it nothing is changed by what a model says.
func TestNoErrorApproves(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	e := &erratic{random: rand.New(rand.NewPCG(seed, 1))}
	hooks := hookList{hook(t, 1, rules(t, salary), func(h *Hook) { h.Stable = &Version{1, judging(t)} })}
	approved, n := 0, 0
	each(t, hooks, e, func(t *testing.T, b *Engine, at, text string, put injectiontest.Put) {
		n++ // another amount is another question, which no earlier verdict answers
		w := attempt(put, text, -n)
		out, err := b.Review(t.Context(), Request{OrgID: 1, Writes: []Write{w}})
		require.NoError(t, err)
		require.Equal(t, e.last.approves, !out[0].Rejected, "%s: %q: %v", at, text, out[0].Verdicts)
		if !out[0].Rejected {
			approved++
		}
		w.After = json.RawMessage(strings.Replace(string(w.After), fmt.Sprintf(`"amount":%d`, -n), `"amount":101`, 1))
		out, err = b.Review(t.Context(), Request{OrgID: 1, Writes: []Write{w}})
		require.NoError(t, err)
		require.True(t, out[0].Rejected)
		require.Equal(t, []string{"salary"}, out[0].Verdicts[0].RuleIDs)
	})
	require.Positive(t, approved, "the control: a sound approval does")
}
