package models_test

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	sdk "github.com/modelcontextprotocol/go-sdk/mcp"
	"github.com/stretchr/testify/require"

	"github.com/sametick/sametick/pkg/condition"
	"github.com/sametick/sametick/pkg/event"
	"github.com/sametick/sametick/services/prompt-worker/internal/hooks"
	"github.com/sametick/sametick/services/prompt-worker/internal/injectiontest"
	"github.com/sametick/sametick/services/prompt-worker/internal/prompting"
	"github.com/sametick/sametick/services/prompt-worker/internal/provider/providertest"
	"github.com/sametick/sametick/services/prompt-worker/internal/review"
	"github.com/sametick/sametick/services/prompt-worker/internal/runs"
	"github.com/sametick/sametick/services/prompt-worker/internal/workertest"
)

// The proof of injection over the wire: a model behind each protocol, which obeys all that it finds outside of the fence,
// and an MCP server, with what attackers write in every field of a record and in what a tool gives.

// shed is an MCP server with three tools: look and send, which the hook grants, and grant_access, which it does not.
type shed struct {
	url string
	// result is what look gives.
	result                 atomic.Pointer[sdk.CallToolResult]
	looked, sent, accessed atomic.Int64
}

func newShed(t *testing.T) *shed {
	s := &shed{}
	s.gives("text", "nothing")
	tools := sdk.NewServer(&sdk.Implementation{Name: "shed", Version: "1"}, nil)
	for name, called := range map[string]*atomic.Int64{"look": &s.looked, "send": &s.sent, "grant_access": &s.accessed} {
		tools.AddTool(&sdk.Tool{Name: name, InputSchema: json.RawMessage(`{"type":"object"}`)}, func(context.Context, *sdk.CallToolRequest) (*sdk.CallToolResult, error) {
			called.Add(1)
			return s.result.Load(), nil
		})
	}
	handler := sdk.NewStreamableHTTPHandler(func(*http.Request) *sdk.Server { return tools }, nil)
	web := httptest.NewServer(handler)
	s.url = web.URL
	t.Cleanup(func() {
		for session := range tools.Sessions() {
			_ = session.Close()
		}
		web.Close()
	})
	return s
}

// gives puts a text into what look gives.
func (s *shed) gives(form, text string) {
	r := &sdk.CallToolResult{Content: []sdk.Content{&sdk.TextContent{Text: text}}, IsError: form == "error"}
	if form == "structured" {
		r.StructuredContent = map[string]any{"note": text, text: []any{text}}
	}
	s.result.Store(r)
}

// told is the gullible model behind a protocol. Its author has it look, and then reject.
type told struct {
	injectiontest.Gullible
	obeyed atomic.Int64
}

func (m *told) script(_ int, a providertest.Asked) providertest.Reply {
	messages := []prompting.Message{{Role: "system", Text: a.System}}
	done := map[string]bool{}
	for _, t := range a.Turns {
		for _, c := range t.Calls {
			done[c.Name] = true
		}
		if t.Role == "user" || t.Role == "tool" {
			messages = append(messages, prompting.Message{Role: t.Role, Text: t.Text})
		}
	}
	n := len(a.Turns)
	switch obeys := m.Obeys(messages); {
	case obeys && !done["send"]:
		m.obeyed.Add(1)
		return wishes(n, "grant_access", "send")
	case obeys:
		return says(prompting.Approve, false)
	case !done["look"]:
		return wishes(n, "look")
	default:
		return says(prompting.Reject, false)
	}
}

func wishes(n int, names ...string) (r providertest.Reply) {
	for i, name := range names {
		r.Calls = append(r.Calls, providertest.Call{ID: fmt.Sprintf("c%d_%d", n, i), Name: name, Arguments: `{"to":"mallory"}`})
	}
	r.Input, r.Output = 10, 5
	return r
}

func says(verdict string, suspected bool) providertest.Reply {
	return providertest.Reply{Text: fmt.Sprintf(`{"verdict":%q,"rule_ids":[],"reason":"as I was told","injection_suspected":%t}`, verdict, suspected), Input: 10, Output: 5}
}

// court is a review hook with a rule, a model and tools.
type court struct {
	*bench
	t      *testing.T
	shed   *shed
	model  *providertest.Server
	engine *review.Engine
	setup  *hooks.Setup
	n      int
}

// Review implements review.Runner, as package reviewing does but for budgets.
func (c *court) Review(ctx context.Context, a review.Ask) (prompting.Response, error) {
	name, schema := prompting.VerdictSchema()
	asking, err := c.x.Ask(ctx, c.setup, a.Prompt, name, schema)
	if err != nil {
		return prompting.Response{}, err
	}
	answer, err := asking.Do(ctx)
	return answer.Response, err
}

// ReviewHooks implements review.Hooks.
func (c *court) ReviewHooks(context.Context, int64, *int64) ([]*review.Hook, error) {
	pattern, _ := event.ParsePattern("task.pre_update")
	compiler, err := condition.NewWriteCompiler(100)
	require.NoError(c.t, err)
	rules, err := prompting.CompileRules(compiler, "", []prompting.Rule{{ID: "salary", Expression: `after.attributes.amount > 100`, Reason: "more than allowed"}}, true)
	require.NoError(c.t, err)
	template, err := prompting.Compile(injectiontest.Judging())
	require.NoError(c.t, err)
	return []*review.Hook{{ID: 2, Name: "court", Revision: 1, Patterns: []event.Pattern{pattern}, Rules: rules, Stable: &review.Version{Number: 1, Template: template},
		ProviderID: 3, Model: "m", Timeout: review.MaxTimeout, FailClosed: true, Enforcement: review.Enforce}}, nil
}

// kept is hooks that are compiled once.
type kept []*review.Hook

func (k kept) ReviewHooks(context.Context, int64, *int64) ([]*review.Hook, error) { return k, nil }

type nowhere struct{}

func (nowhere) Record(review.Run) int64 { return 1 }

func newCourt(t *testing.T, kind string, script providertest.Script) *court {
	c := &court{bench: newBench(t, "127.0.0.0/8"), t: t, shed: newShed(t), model: providertest.New(t, script)}
	base := map[string]string{"openai": c.model.URL + "/v1", "anthropic": c.model.URL}[kind]
	version := injectiontest.Judging()
	c.setup = &hooks.Setup{
		Hook: hooks.Hook{OrgID: 1, ID: 2, Settings: hooks.Settings{ProviderID: 3, Mode: hooks.ModeReview, TemplateID: 5, TemplateVersion: 1, TimeoutMS: 30_000, Enabled: true,
			Tools: []hooks.ToolGrant{{ServerID: 9, Tools: []string{"look", "send"}}}}},
		Providers: []hooks.Provider{{OrgID: 1, ID: 3, Kind: kind, BaseURL: base, DefaultModel: "m", Version: 1}},
		Servers:   []hooks.Server{{OrgID: 1, ID: 9, Transport: "http", URL: c.shed.url}},
		Template:  &hooks.Template{OrgID: 1, ID: 5, Labels: prompting.Labels{Latest: 1}}, Versions: map[int]*hooks.Version{1: {TemplateID: 5, Number: 1, Version: version}},
	}
	list, err := c.ReviewHooks(t.Context(), 1, nil)
	require.NoError(t, err)
	c.engine = review.New(kept(list), c, nowhere{}, nil)
	t.Cleanup(c.engine.Close)
	c.x.Compiler = workertest.Compiler(t)
	return c
}

// places are the fields of a record, and the forms of what a tool gives.
func places() (out []string) {
	for name := range injectiontest.Fields() {
		out = append(out, name)
	}
	return append(out, "text", "structured", "error")
}

// put gives the record of an attempt, and has the tool give the text where that is the place.
func (c *court) put(place, text string) injectiontest.Put {
	if put := injectiontest.Fields()[place]; put != nil {
		c.shed.gives("text", "nothing")
		return put
	}
	c.shed.gives(place, text)
	return func(string, map[string]any) {}
}

// judge reviews a write; another amount is another question, which no earlier verdict answers.
func (c *court) judge(place, text string, amount int) review.Judgement {
	after := injectiontest.Record(c.put(place, text), text, amount)
	var named struct{ Name string }
	require.NoError(c.t, json.Unmarshal(after, &named))
	ctx, cancel := context.WithTimeout(c.t.Context(), review.MaxTimeout)
	defer cancel()
	out, err := c.engine.Review(ctx, review.Request{OrgID: 1, Writes: []review.Write{{EventType: "task.pre_update", AggregateType: "task", AggregateID: 7, BaseVersion: 1,
		RecordName: named.Name, Before: after, After: after, Changed: []string{"name", "attributes." + text}}}})
	require.NoError(c.t, err)
	require.Len(c.t, out[0].Verdicts, 1)
	return out[0]
}

// hurried is how often a review is made again that a busy machine had no time for: a prompt is rendered in a second.
const hurried = 10

// verdict is judge's only one, in a time that no load makes fail.
func (c *court) verdict(place, text string, amount int) (v review.HookVerdict) {
	for range hurried {
		if v = c.judge(place, text, amount).Verdicts[0]; v.Verdict != review.Failed {
			break
		}
	}
	return v
}

// each tries every text of ours in every place, and those of others in every one or where there is most of them, which
// leaves the other protocol's proof time.
func (c *court) each(all bool, try func(place, text string)) {
	for source, texts := range injectiontest.Attempts(c.t) {
		for _, place := range places() {
			if !all && source != "own" && place != "all" && place != "text" {
				continue
			}
			for _, text := range texts {
				c.n++
				try(place, text)
			}
		}
	}
}

// Neither leaves an attempt its fence, nor reaches it a tool, granted or not, nor changes it what a rule denies.
func TestNoAttemptReachesATool(t *testing.T) {
	for _, kind := range []string{"openai", "anthropic"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			m := &told{}
			c := newCourt(t, kind, m.script)
			c.each(kind == "openai", func(place, text string) {
				v := c.verdict(place, text, -c.n)
				require.Equal(t, []string{"reject", "as I was told"}, []string{v.Verdict, v.Reason}, "%s: %q", place, text)
				asked := len(c.model.Asked())
				v = c.judge(place, text, 100+c.n).Verdicts[0]
				require.Equal(t, []string{"salary"}, v.RuleIDs)
				require.Len(t, c.model.Asked(), asked, "what a rule denies is shown to no model")
			})
			require.Zero(t, m.obeyed.Load())
			require.GreaterOrEqual(t, c.shed.looked.Load(), int64(c.n), "the control: the tool that its author wants is called")
			require.Zero(t, c.shed.sent.Load())
			require.Zero(t, c.shed.accessed.Load())
		})
	}
}

// The control: the same texts and the same model, with the fence taken away. It obeys each, in what the tool gives too;
// the tool that is granted is called as the data asks, the one that is not is not.
func TestWithoutTheFenceToolsAreReached(t *testing.T) {
	for _, kind := range []string{"openai", "anthropic"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			m := &told{Gullible: injectiontest.Gullible{Seen: injectiontest.Bare}}
			c := newCourt(t, kind, m.script)
			for _, place := range []string{"value", "text", "error"} {
				for _, text := range injectiontest.Attempts(t)["own"] {
					c.n++
					v := c.verdict(place, text, -c.n)
					require.Equal(t, []string{"approve", "as I was told"}, []string{v.Verdict, v.Reason}, "%s: %q", place, text)
				}
			}
			require.GreaterOrEqual(t, m.obeyed.Load(), int64(c.n))
			require.GreaterOrEqual(t, c.shed.sent.Load(), int64(c.n))
			require.Zero(t, c.shed.accessed.Load(), "the allow-list holds even so")
		})
	}
}

// An async run gets the same.
func TestNoAttemptReachesAToolOfARun(t *testing.T) {
	t.Parallel()
	for name, seen := range map[string]func(text, nonce string) string{"fenced": nil, "control": injectiontest.Bare} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := &told{Gullible: injectiontest.Gullible{Seen: seen}}
			c := newCourt(t, "openai", m.script)
			c.setup.Mode = hooks.ModeAsync
			for _, place := range places() {
				for _, text := range injectiontest.Attempts(t)["own"] {
					c.n++
					r := c.run(place, text)
					for n := 0; n < hurried && r.Status != runs.Completed; n++ {
						r = c.run(place, text)
					}
					require.Equal(t, runs.Completed, r.Status, "%s: %q: %s", place, text, r.Error)
					var verdict struct{ Verdict string }
					var said string
					require.NoError(t, json.Unmarshal(r.Output, &said))
					require.NoError(t, json.Unmarshal([]byte(said), &verdict))
					if seen == nil {
						require.Equal(t, prompting.Reject, verdict.Verdict, "%s: %q", place, text)
						require.Len(t, r.ToolCalls, 1)
					}
				}
			}
			require.Zero(t, c.shed.accessed.Load())
			if seen == nil {
				require.Zero(t, m.obeyed.Load())
				require.Zero(t, c.shed.sent.Load())
				return
			}
			require.GreaterOrEqual(t, m.obeyed.Load(), int64(c.n))
			require.GreaterOrEqual(t, c.shed.sent.Load(), int64(c.n))
		})
	}
}

// run makes an attempt of a run.
func (c *court) run(place, text string) *runs.Run {
	after := injectiontest.Record(c.put(place, text), text, c.n)
	var named struct {
		Name string `json:"name"`
	}
	require.NoError(c.t, json.Unmarshal(after, &named))
	envelope, err := json.Marshal(map[string]any{"id": c.n, "org_id": 1, "aggregate_type": "task", "aggregate_id": 7, "event_type": "task.post_update",
		"payload": map[string]any{"record_name": named.Name}, "after": after, "before": after, "changed": []string{"name", "attributes." + text}})
	require.NoError(c.t, err)
	ctx, cancel := context.WithTimeout(c.t.Context(), 30*time.Second)
	defer cancel()
	r, _ := c.x.DryRun(ctx, c.setup, &runs.Item{ID: int64(c.n), OrgID: 1, HookID: 2, Event: envelope, EventType: "task.post_update", AggregateType: "task", AggregateID: 7},
		func(prompting.Amount) error { return nil })
	return r
}

// erratic answers at random what the schema allows, after a tool or two, and now and then it fails in one of the ways of
// its protocol, also with an approval in its hand.
type erratic struct {
	mu     sync.Mutex
	random *rand.Rand
	// sound: the newest answer is an approval that counts.
	sound bool
}

// before forgets the newest answer, and after tells of it.
func (e *erratic) before() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.sound = false
}

func (e *erratic) after() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.sound
}

func (e *erratic) script(_ int, a providertest.Asked) providertest.Reply {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.sound = false
	verdict, suspected := []string{prompting.Approve, prompting.Reject}[e.random.IntN(2)], e.random.IntN(4) == 0
	r := says(verdict, suspected)
	switch e.random.IntN(16) {
	case 0:
		return providertest.Reply{Status: 400, Type: "invalid_request_error", Message: r.Text}
	case 1:
		r.Cut = true
	case 2:
		r.Stop = map[string]string{"openai": "length", "anthropic": "max_tokens"}[a.Protocol]
	case 3:
		r.Refusal = r.Text
	case 4:
		r.Text = r.Text[:e.random.IntN(len(r.Text))]
	case 5:
		r.Text = strings.Replace(r.Text, `"rule_ids"`, `"verdict":"approve","rule_ids"`, 1)
	case 6:
		r.Text = strings.Replace(r.Text, `"reason"`, `"granted":true,"reason"`, 1)
	case 7:
		r.NoChoices = true
	case 8:
		r.Drop = true
	case 9, 10:
		return wishes(len(a.Turns), []string{"look", "grant_access", "send"}[e.random.IntN(3)])
	default:
		e.sound = verdict == prompting.Approve && !suspected
	}
	return r
}

// No error passes for an approval, whatever a protocol makes of it, and a rule's denial stays one.
func TestNoErrorApprovesOverTheWire(t *testing.T) {
	for _, kind := range []string{"openai", "anthropic"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			seed := uint64(time.Now().UnixNano())
			t.Logf("seed %d", seed)
			e := &erratic{random: rand.New(rand.NewPCG(seed, 1))}
			c := newCourt(t, kind, e.script)
			approved := 0
			for range 3 {
				for _, text := range injectiontest.Attempts(t)["own"] {
					c.n++
					c.setup.Providers[0].Version++ // another one's limits: what fails here must not shut this one's gate
					e.before()
					j := c.judge("all", text, -c.n)
					// One way alone: a busy machine may have no time for a sound approval.
					require.True(t, j.Rejected || e.after(), "%q: %+v", text, j.Verdicts)
					if !j.Rejected {
						approved++
					}
					require.Equal(t, []string{"salary"}, c.judge("all", text, 100+c.n).Verdicts[0].RuleIDs)
				}
			}
			require.Positive(t, approved, "the control: a sound approval does")
			require.Zero(t, c.shed.accessed.Load())
		})
	}
}
