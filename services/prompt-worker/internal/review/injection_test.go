package review

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"html"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sametick/sametick/services/prompt-worker/internal/prompting"
)

// The proof of injection: whatever a field of a record says, it changes no denial of a rule, leaves no fence, reaches
// no tool and lets no error pass for an approval. It says nothing of what a real model makes of data inside the fence.

// salary denies, whatever a model would say.
var salary = prompting.Rule{ID: "salary", Expression: `after.attributes.amount > 100`, Reason: "more than allowed"}

// judging is a template with every way in which a part of an event can reach a message.
func judging(t testing.TB) *prompting.Template {
	out, err := prompting.Compile(prompting.Version{
		Messages: []prompting.Message{
			{Role: "system", Text: "You review writes for {{ firm }}."},
			{Role: "user", Text: "The title is {{ name }}. {% for pair in attributes %}A field: {{ pair[0] }} is {{ pair[1] }}. {% endfor %}"},
			{Role: "user", Text: "{% assign all = name | append: name | upcase %}Whole: {{ after }} was {{ before | default: 'nothing' }}. {{ all | split: '<' | join: '>' }} {{ tags | join: name }}" +
				"{{- firm | prepend: name | truncate: 40 -}} {{ changed }} Say approve or reject."},
		},
		Variables: []prompting.Variable{
			{Name: "firm", Value: "Acme"}, {Name: "name", Path: "payload.record_name"}, {Name: "attributes", Path: "after.attributes"}, {Name: "after", Path: "after"},
			{Name: "before", Path: "before"}, {Name: "changed", Path: "changed"}, {Name: "tags", Path: "after.attributes.tags"},
		},
	})
	require.NoError(t, err)
	return out
}

// fields puts a text into each field of a record in turn, and into all of them.
func fields() map[string]func(text string, r map[string]any) {
	attribute := func(r map[string]any) map[string]any { return r["attributes"].(map[string]any) }
	out := map[string]func(string, map[string]any){
		"name":  func(s string, r map[string]any) { r["name"] = s },
		"value": func(s string, r map[string]any) { attribute(r)["note"] = s },
		"key":   func(s string, r map[string]any) { attribute(r)[s] = "x" },
		"list":  func(s string, r map[string]any) { attribute(r)["tags"] = []any{"a", s} },
		"nested": func(s string, r map[string]any) {
			attribute(r)["deep"] = map[string]any{"b": []any{map[string]any{s: s}}}
		},
	}
	out["all"] = func(s string, r map[string]any) {
		for name, put := range out {
			if name != "all" {
				put(s, r)
			}
		}
	}
	return out
}

// attempt is a write whose record has a text in a field; key names differ only where the field is one.
func attempt(put func(string, map[string]any), text string, amount int) Write {
	record := func(s string) json.RawMessage {
		r := map[string]any{"name": "Task", "attributes": map[string]any{"amount": amount, "note": "n", "tags": []any{"a", "b"}, "deep": map[string]any{}}}
		put(s, r)
		out, _ := json.Marshal(r)
		return out
	}
	after := record(text)
	var named struct{ Name string }
	_ = json.Unmarshal(after, &named)
	return Write{EventType: "task.pre_update", AggregateType: "task", AggregateID: 7, BaseVersion: 1, RecordName: named.Name,
		Before: after, After: after, Changed: []string{"name", "attributes." + text}}
}

// gullible obeys every word that stands outside of the fence and is not its author's. Of itself it rejects.
type gullible struct {
	// own is what its author wrote, by message.
	own func(messages []prompting.Message, f prompting.Fence) bool
	// seen changes the messages on their way, for negative controls.
	seen  func(text string, f prompting.Fence) string
	tools atomic.Int64
}

func (g *gullible) Review(_ context.Context, a Ask) (prompting.Response, error) {
	messages := a.Prompt.Messages()
	for i := range messages {
		if g.seen != nil && messages[i].Role == "user" {
			messages[i].Text = g.seen(messages[i].Text, a.Prompt.Fence)
		}
	}
	v := prompting.Reject
	if !g.own(messages, a.Prompt.Fence) {
		v = prompting.Approve
		g.tools.Add(1)
	}
	r, err := verdict(v, "as I was told", false)(context.Background(), a)
	return r, err
}

// field is what the loop over a record's fields says of each: how many there are is the record's.
var field = regexp.MustCompile(`A field:  is \. `)

// authored tells whether a prompt has, outside of its fences, what judging's author wrote and nothing else.
func authored(messages []prompting.Message, f prompting.Fence) bool {
	loop := field.ReplaceAllString(prompting.Outside(messages[1].Text, f), "")
	return len(messages) == 3 &&
		messages[0].Text == "You review writes for Acme.\n\n"+f.Sentence() &&
		loop == "The title is . " &&
		prompting.Outside(messages[2].Text, f) == "Whole:  was .   Say approve or reject."
}

func attempts(t *testing.T) map[string][]string {
	t.Helper()
	out := map[string][]string{}
	text, err := os.ReadFile("testdata/attempts.json")
	require.NoError(t, err)
	var own []string
	require.NoError(t, json.Unmarshal(text, &own))
	require.GreaterOrEqual(t, len(own), 40)
	out["own"] = own
	dir := os.Getenv("SAMETICK_TEST_DATA")
	if dir == "" {
		dir = filepath.Join("..", "..", "..", "..", "..", "shared", "data")
	}
	text, err = os.ReadFile(filepath.Join(dir, "injection", "bipia-text-attacks.json"))
	if err != nil {
		t.Logf("NOT RUN with the texts of BIPIA and InjecAgent (%v): set SAMETICK_TEST_DATA; %d of our own are tried", err, len(own))
		return out
	}
	var groups map[string][]string
	require.NoError(t, json.Unmarshal(text, &groups))
	for _, g := range groups {
		out["bipia"] = append(out["bipia"], g...)
	}
	for _, name := range []string{"dh", "ds"} {
		file, err := os.Open(filepath.Join(dir, "injection", "injecagent-attacker_cases_"+name+".jsonl"))
		require.NoError(t, err)
		for lines := bufio.NewScanner(file); lines.Scan(); {
			var c struct {
				Text string `json:"Attacker Instruction"`
			}
			require.NoError(t, json.Unmarshal(lines.Bytes(), &c))
			out["injecagent"] = append(out["injecagent"], c.Text)
		}
		require.NoError(t, file.Close())
	}
	require.Len(t, out["bipia"], 75)
	require.Len(t, out["injecagent"], 62)
	return out
}

// each tries every text in every field, with hooks and a model, in a time that no load makes pass.
func each(t *testing.T, hooks hookList, model Runner, try func(t *testing.T, e *Engine, at, text string, put func(string, map[string]any))) {
	for source, texts := range attempts(t) {
		for name, put := range fields() {
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
	g := &gullible{own: authored}
	hooks := hookList{hook(t, 1, func(h *Hook) { h.Stable = &Version{1, judging(t)} })}
	each(t, hooks, g, func(t *testing.T, b *Engine, at, text string, put func(string, map[string]any)) {
		out, err := b.Review(t.Context(), Request{OrgID: 1, Writes: []Write{attempt(put, text, 10)}})
		require.NoError(t, err)
		require.Equal(t, []string{"reject"}, names(out[0]), "%s: %q: %v", at, text, out[0].Verdicts)
		require.True(t, out[0].Rejected)
	})
	require.Zero(t, g.tools.Load())
}

// TestWithoutTheFence is the control: the same texts and the same model, with the fence taken away.
func TestWithoutTheFence(t *testing.T) {
	for name, c := range map[string]struct {
		seen func(string, prompting.Fence) string
		all  bool
	}{
		"no fence":                       {bare, true},
		"a fence that is known, and raw": {known, false},
	} {
		synctest.Test(t, func(t *testing.T) {
			g := &gullible{own: authored, seen: c.seen}
			b := New(hookList{hook(t, 1, func(h *Hook) { h.Stable = &Version{1, judging(t)} })}, g, &records{}, nil)
			defer b.Close()
			obeyed, tried := 0, 0
			for _, text := range attempts(t)["own"] {
				out, err := b.Review(t.Context(), Request{OrgID: 1, Writes: []Write{attempt(fields()["value"], text, 10)}})
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
			require.EqualValues(t, obeyed, g.tools.Load())
		})
	}
}

var island = regexp.MustCompile(`<data-[a-z0-9]+>(.*?)</data-[a-z0-9]+>`)

// raw is what a fence has in it, as it was in the record.
func raw(fenced string) string {
	text := strings.ReplaceAll(island.FindStringSubmatch(fenced)[1], "^", " ")
	var s string
	if json.Unmarshal([]byte(text), &s) != nil {
		return html.UnescapeString(strings.NewReplacer(`\u003c`, "<", `\u003e`, ">", `\u005e`, "^").Replace(text))
	}
	return s
}

func bare(text string, _ prompting.Fence) string { return island.ReplaceAllStringFunc(text, raw) }

// known closes data in the fence whose nonce the attempts guess, and does not escape it.
func known(text string, f prompting.Fence) string {
	const guessed = "aaaaaaaaaaaaaaaa"
	nonce := regexp.MustCompile(`data-([a-z0-9]{16})>`).FindStringSubmatch(f.Sentence())[1]
	out := island.ReplaceAllStringFunc(text, func(fenced string) string {
		return "<data-" + guessed + ">" + raw(fenced) + "</data-" + guessed + ">"
	})
	// What the model takes for the fence is what the message has.
	return strings.ReplaceAll(out, guessed, nonce)
}

// TestNoAttemptMovesARule: a denial of rules stands, no model is asked, whatever it would have said.
func TestNoAttemptMovesARule(t *testing.T) {
	g := &gullible{own: func([]prompting.Message, prompting.Fence) bool { return false }} // approves everything
	hooks := hookList{hook(t, 1, rules(t, salary), func(h *Hook) { h.Stable = &Version{1, judging(t)} }), hook(t, 2, open)}
	each(t, hooks, g, func(t *testing.T, b *Engine, at, text string, put func(string, map[string]any)) {
		out, err := b.Review(t.Context(), Request{OrgID: 1, Writes: []Write{attempt(put, text, 101)}})
		require.NoError(t, err)
		require.True(t, out[0].Rejected, "%s: %q", at, text)
		require.Equal(t, []string{"reject", "superseded"}, names(out[0]))
		require.Equal(t, []string{"salary"}, out[0].Verdicts[0].RuleIDs)
		require.Equal(t, "more than allowed", out[0].Verdicts[0].Reason)
	})
	require.Zero(t, g.tools.Load())
	// The control: the same without the rule is approved.
	b := New(hookList{hook(t, 1, func(h *Hook) { h.Stable = &Version{1, judging(t)} })}, g, &records{}, nil)
	defer b.Close()
	out, err := b.Review(t.Context(), Request{OrgID: 1, Writes: []Write{attempt(fields()["name"], "x", 101)}})
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
	each(t, hooks, e, func(t *testing.T, b *Engine, at, text string, put func(string, map[string]any)) {
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
