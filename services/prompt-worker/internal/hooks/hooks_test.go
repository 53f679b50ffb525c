package hooks

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sametick/sametick/pkg/errs"
	"github.com/sametick/sametick/services/prompt-worker/internal/prompting"
)

func TestMatches(t *testing.T) {
	for _, tt := range []struct {
		pattern, event string
		want           bool
	}{
		{"task.*", "task.post_create", true}, {"*.post_create", "task.post_create", true}, {"*", "task.post_create", true}, {"task.*", "taskx.post_create", false},
		{"prompt_run.completed", "prompt_run.completed", true}, {"prompt_run.*", "prompt_run.failed", true},
		{"*", "prompt_backtest.post_create", false}, {"*.post_update", "prompt_backtest.post_update", false}, {"prompt_backtest.*", "prompt_backtest.post_update", true},
		{"*", "prompt_run.completed", false}, {"*.*", "prompt_run.completed", false}, {"*.completed", "prompt_run.completed", false},
		{"*.completed", "workflow.completed", true}, {"", "task.post_create", false}, {"task", "task.post_create", false},
	} {
		require.Equal(t, tt.want, Matches([]string{"survey.passed", tt.pattern}, tt.event), "%s %s", tt.pattern, tt.event)
	}
}

func TestCausation(t *testing.T) {
	var c Causation
	for hook := int64(1); hook <= 3; hook++ {
		require.True(t, c.Allows(hook, 3))
		before := c
		c = c.Then(100+hook, hook)
		require.Len(t, before.HookIDs, int(hook-1), "immutable")
	}
	require.Equal(t, Causation{[]int64{101, 102, 103}, []int64{1, 2, 3}, 3}, c)
	require.False(t, c.Allows(4, 3), "too deep")
	require.True(t, c.Allows(4, 4))
	require.False(t, c.Allows(2, 100), "its own consequence")
	for text, depth := range map[string]int{
		`{"payload":{"causation":{"event_ids":[1],"hook_ids":[2],"depth":1}}}`: 1, `{"payload":{}}`: 0, `{}`: 0, `x`: 0,
		`{"payload":{"causation":null}}`: 0, `{"payload":{"causation":{"depth":-5}}}`: 1 << 30, `{"payload":{"causation":"none"}}`: 1 << 30,
		`{"payload":{"causation":{"hook_ids":["a"]}}}`: 1 << 30,
	} {
		require.Equal(t, depth, CausationOf([]byte(text)).Depth, text)
	}
}

func TestTriggers(t *testing.T) {
	at := int64(10)
	h := Hook{Settings: Settings{Mode: ModeAsync, Enabled: true, EventTypes: []string{"task.*"}}, FromPosition: &at}
	require.True(t, h.Triggers("task.passed", 11))
	require.False(t, h.Triggers("task.passed", 10), "its own creation, and what was before")
	for _, change := range []func(*Hook){
		func(h *Hook) { h.Mode = ModeReview }, func(h *Hook) { h.Enabled = false }, func(h *Hook) { h.FromPosition = nil }, func(h *Hook) { h.EventTypes = nil },
	} {
		other := h
		change(&other)
		require.False(t, other.Triggers("task.passed", 11))
	}
}

func TestPick(t *testing.T) {
	tpl := &Template{Labels: prompting.Labels{Latest: 3, Named: map[string]prompting.Label{"live": {Version: 2}}}}
	h := Hook{ID: 5, Settings: Settings{TemplateLabel: "live", CandidateVersion: 3, CandidatePercentage: 25}}
	require.ElementsMatch(t, []int{2, 3}, h.Wanted(tpl))
	candidates := 0
	for id := range int64(2000) {
		n, err := h.Pick(tpl, "task", id)
		require.NoError(t, err)
		require.Contains(t, []int{2, 3}, n)
		again, err := h.Pick(tpl, "task", id)
		require.NoError(t, err)
		require.Equal(t, n, again)
		if n == 3 {
			candidates++
		}
	}
	require.InDelta(t, 500, candidates, 100)
	h.TemplateLabel, h.CandidateVersion = "gone", 0
	_, err := h.Pick(tpl, "task", 1)
	require.Error(t, err)
}

func TestCheck(t *testing.T) {
	one := int64(1)
	valid := func(mode string) Settings {
		return Settings{Name: "n", Mode: mode, EventTypes: []string{"task.pre_create"}, TemplateID: 1, TemplateVersion: 1, ProviderID: 1,
			FailurePolicy: FailClosed, Enforcement: Enforce, Budget: prompting.Limits{Runs: &one}}
	}
	for _, mode := range []string{ModeReview, ModeAsync} {
		s := valid(mode)
		require.NoError(t, Check(&s))
	}
	rule := []prompting.Rule{{ID: "a", Expression: "true"}}
	for _, tt := range []struct {
		mode   string
		change func(*Settings)
		field  string
	}{
		{ModeAsync, func(s *Settings) { s.Name = "" }, "name"},
		{"both", func(*Settings) {}, "mode"},
		{ModeAsync, func(s *Settings) { s.FailurePolicy = "" }, "failure_policy"},
		{ModeAsync, func(s *Settings) { s.Enforcement = "block" }, "enforcement"},
		{ModeAsync, func(s *Settings) { s.EventTypes = nil }, "event_types"},
		{ModeAsync, func(s *Settings) { s.EventTypes = []string{"a.b", "task.post*"} }, "event_types[1]"},
		{ModeReview, func(s *Settings) { s.EventTypes = []string{"task.post_create"} }, "event_types[0]"},
		{ModeAsync, func(s *Settings) { s.Rules = rule }, "rules"},
		{ModeAsync, func(s *Settings) { s.ProviderID, s.Budget = 0, prompting.Limits{} }, "provider_id"},
		{ModeAsync, func(s *Settings) { s.TemplateID, s.ProviderID, s.Budget = 0, 0, prompting.Limits{} }, "template_id"},
		{ModeAsync, func(s *Settings) { s.TemplateLabel = "live" }, "template_version"},
		{ModeAsync, func(s *Settings) { s.CandidatePercentage = 10 }, "candidate_percentage"},
		{ModeReview, func(s *Settings) { s.TimeoutMS = 10_001 }, "timeout_ms"},
		{ModeReview, func(s *Settings) { s.OutputSchema = []byte(`{"type":"object"}`) }, "output_schema"},
		{ModeAsync, func(s *Settings) { s.Parameters = []byte(`{"max_tokens":"x"}`) }, "parameters"},
		{ModeAsync, func(s *Settings) { s.Tools = []ToolGrant{{ServerID: 1}} }, "tools"},
		{ModeAsync, func(s *Settings) { s.FallbackProviderIDs = make([]int64, 6) }, "fallback_provider_ids"},
		{ModeReview, func(s *Settings) { s.TemplateID, s.TemplateVersion, s.ProviderID, s.Rules = 0, 0, 0, rule }, "budget"},
	} {
		s := valid(tt.mode)
		tt.change(&s)
		err := Check(&s)
		var e *errs.Error
		require.ErrorAs(t, err, &e, tt.field)
		require.Equal(t, tt.field, e.Fields[0].Field, "%v", e.Fields)
	}
}
