package judge_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sametick/sametick/deploy/torture/internal/judge"
	"github.com/sametick/sametick/deploy/torture/internal/prompts"
	"github.com/sametick/sametick/pkg/event"
)

// promptTruth is a right run of two hooks over the events of truth: 7 asks a model about task 1 (events 1, 3, 5), at most
// four times a day; 8 has rules for everything.
type promptTruth struct {
	*truth
	hooks []*prompts.Hook
	calls []prompts.Call
	runs  []judge.Run
}

func newPromptTruth() *promptTruth {
	x := &promptTruth{truth: newTruth(), hooks: []*prompts.Hook{
		{ID: 7, Number: 0, OrgID: 1, Type: "task", Wants: func(id int64) bool { return id == 1 }, Model: true, Runs: 4},
		{ID: 8, Number: 1, OrgID: 1, Type: "task", Wants: func(int64) bool { return true }}}}
	for id := range int64(6) {
		id++
		x.runs = append(x.runs, judge.Run{ID: 100 + id, HookID: 8, EventID: id, Completed: true, Output: fmt.Sprintf(`{"event":%d}`, id), Events: 1})
		if id%2 == 1 {
			x.call(prompts.Answered, id)
			x.runs = append(x.runs, judge.Run{ID: 200 + id, HookID: 7, EventID: id, Completed: true, Output: fmt.Sprintf("%q", prompts.Text(id)), Attempts: 1, Events: 1})
		}
	}
	return x
}

func (x *promptTruth) call(a prompts.Answer, id int64) {
	x.calls = append(x.calls, prompts.Call{Answer: a, Hook: 0, EventID: id})
}

func (x *promptTruth) of(hook, id int64) *judge.Run {
	for i := range x.runs {
		if x.runs[i].HookID == hook && x.runs[i].EventID == id {
			return &x.runs[i]
		}
	}
	panic("no such pair")
}

func TestRuns(t *testing.T) {
	for name, test := range map[string]struct {
		spoil               func(*promptTruth)
		ran, called, budget counts
	}{
		"right":                  {func(*promptTruth) {}, counts{}, counts{}, counts{}},
		"refused, then answered": {func(x *promptTruth) { x.call(prompts.Refused, 3); x.of(7, 3).Attempts = 2 }, counts{}, counts{}, counts{}},
		"asked again after a crash": {func(x *promptTruth) {
			x.call(prompts.Answered, 3)
			x.of(7, 3).Attempts, x.of(7, 3).Unknown = 2, 1
		}, counts{}, counts{}, counts{}},
		"asked again, though the outcome was known": {func(x *promptTruth) { x.call(prompts.Answered, 3); x.of(7, 3).Attempts = 2 },
			counts{}, counts{0, 1, 0, 0, 0}, counts{}},
		"asked more often than it says": {func(x *promptTruth) { x.call(prompts.Refused, 3) }, counts{}, counts{0, 1, 0, 0, 0}, counts{}},
		"over the budget": {func(x *promptTruth) {
			x.call(prompts.Silent, 3)
			x.call(prompts.Silent, 3)
			x.of(7, 3).Attempts, x.of(7, 3).Unknown = 3, 2
		}, counts{}, counts{}, counts{0, 0, 0, 0, 1}},
		"never run":       {func(x *promptTruth) { x.runs = x.runs[1:] }, counts{1, 0, 0, 0, 0}, counts{}, counts{}},
		"run twice":       {func(x *promptTruth) { x.runs = append(x.runs, x.runs[0]) }, counts{0, 1, 0, 0, 0}, counts{}, counts{}},
		"still waiting":   {func(x *promptTruth) { x.of(8, 1).Waiting = true }, counts{2, 0, 0, 0, 0}, counts{}, counts{}},
		"without event":   {func(x *promptTruth) { x.of(8, 1).Events = 0 }, counts{1, 0, 0, 0, 0}, counts{}, counts{}},
		"with two events": {func(x *promptTruth) { x.of(8, 1).Events = 2 }, counts{0, 1, 0, 0, 0}, counts{}, counts{}},
		"failed":          {func(x *promptTruth) { x.of(8, 1).Completed = false }, counts{}, counts{}, counts{}},
		"failed, though it was answered": {func(x *promptTruth) { x.of(7, 1).Completed = false },
			counts{}, counts{0, 1, 0, 0, 0}, counts{}},
		"completed without a call": {func(x *promptTruth) {
			x.calls = slices.DeleteFunc(x.calls, func(c prompts.Call) bool { return c.EventID == 5 })
		}, counts{}, counts{1, 0, 0, 0, 0}, counts{}},
		"another's answer": {func(x *promptTruth) { x.of(7, 1).Output = x.of(7, 3).Output }, counts{0, 0, 0, 0, 1}, counts{}, counts{}},
		"not selected": {func(x *promptTruth) {
			x.call(prompts.Answered, 2)
			x.runs = append(x.runs, judge.Run{ID: 1, HookID: 7, EventID: 2, Completed: true, Attempts: 1, Events: 1})
		}, counts{0, 0, 0, 0, 1}, counts{0, 0, 0, 0, 1}, counts{}},
		"a call of nobody": {func(x *promptTruth) { x.calls[0].Answer = prompts.Foreign }, counts{}, counts{1, 0, 0, 0, 1}, counts{}},
		"before its creation": {func(x *promptTruth) {
			x.events = append(x.events, event.Event{ID: 7, OrgID: 1, AggregateType: "prompt_hook", AggregateID: 9, EventType: "prompt_hook.post_create"})
			x.rows = append(x.rows, judge.Row{Shard: shard, Position: 7, EventID: 7})
			x.hooks = append(x.hooks, &prompts.Hook{ID: 9, Number: 2, OrgID: 1, Type: "task", Wants: func(int64) bool { return true }})
			x.runs = append(x.runs, judge.Run{ID: 1, HookID: 9, EventID: 2, Completed: true, Events: 1})
		}, counts{0, 0, 0, 0, 1}, counts{}, counts{}},
	} {
		t.Run(name, func(t *testing.T) {
			x := newPromptTruth()
			test.spoil(x)
			f := x.facts()
			log, _ := x.log(f)
			r := judge.NewRuns(f, log, x.hooks)
			for _, c := range x.calls {
				r.Take(c)
			}
			for i := range x.runs {
				r.Recall(&x.runs[i])
			}
			verdicts, counted := r.Finish(1)
			require.Equal(t, test.ran, columns(verdicts[0]), "%v", verdicts[0].First)
			require.Equal(t, test.called, columns(verdicts[1]), "%v", verdicts[1].First)
			require.Equal(t, test.budget, columns(verdicts[2]), "%v", verdicts[2].First)
			require.EqualValues(t, 9, counted.Pairs)
		})
	}
}

func TestReviews(t *testing.T) {
	approved := []judge.Review{{HookID: 1, Verdict: "approve"}, {HookID: 2, Verdict: "approve"}}
	for name, test := range map[string]struct {
		there  []judge.Created
		writes []prompts.Write
		want   counts
	}{
		"right": {
			[]judge.Created{{Type: "closed", Name: "a good", Reviews: approved}, {Type: "open", Name: "b good", Reviews: approved},
				{Type: "open", Name: "c bad", Reviews: []judge.Review{{HookID: 2, Verdict: "failed", FailedOpen: true}}}},
			[]prompts.Write{{Type: "closed", Name: "a good", Outcome: prompts.Created}, {Type: "closed", Name: "d good", Outcome: prompts.Unavailable},
				{Type: "closed", Name: "e bad", Bad: true, Outcome: prompts.Rejected}, {Type: "open", Name: "b good", Outcome: prompts.Unknown},
				{Type: "open", Name: "c bad", Bad: true, Outcome: prompts.Created}, {Type: "open", Name: "f bad", Bad: true, Outcome: prompts.Rejected}}, counts{}},
		"written under fail_closed without a review": {[]judge.Created{{Type: "closed", Name: "a good"}}, nil, counts{0, 0, 0, 0, 1}},
		"written under fail_closed though its review failed": {
			[]judge.Created{{Type: "closed", Name: "a good", Reviews: []judge.Review{{HookID: 1, Verdict: "failed", FailedOpen: true}}}}, nil, counts{0, 0, 0, 0, 1}},
		"approved by another hook alone": {[]judge.Created{{Type: "closed", Name: "a good", Reviews: approved[1:]}}, nil, counts{0, 0, 0, 0, 1}},
		"written though the rule denies it": {[]judge.Created{{Type: "closed", Name: "a bad", Reviews: approved}},
			[]prompts.Write{{Type: "closed", Name: "a bad", Bad: true}}, counts{0, 0, 0, 0, 1}},
		"unreviewed under fail_open, and silent": {[]judge.Created{{Type: "open", Name: "a good"}}, nil, counts{0, 0, 0, 0, 1}},
		"rejected under fail_open, and there": {[]judge.Created{{Type: "open", Name: "a bad", Reviews: []judge.Review{{HookID: 2, Verdict: "reject"}}}}, nil,
			counts{0, 0, 0, 0, 1}},
		"blocked under fail_open":              {nil, []prompts.Write{{Type: "open", Name: "a good", Outcome: prompts.Unavailable}}, counts{1, 0, 0, 0, 0}},
		"rejected under fail_open, undenied":   {nil, []prompts.Write{{Type: "open", Name: "a good", Outcome: prompts.Rejected}}, counts{1, 0, 0, 0, 0}},
		"acknowledged and not there":           {nil, []prompts.Write{{Type: "closed", Name: "a good", Outcome: prompts.Created}}, counts{1, 0, 0, 0, 0}},
		"refused and there":                    {[]judge.Created{{Type: "closed", Name: "a good", Reviews: approved}}, []prompts.Write{{Type: "closed", Name: "a good", Outcome: prompts.Unavailable}}, counts{0, 0, 0, 0, 1}},
		"there twice":                          {[]judge.Created{{Type: "open", Name: "a", Reviews: approved}, {Type: "open", Name: "a", Reviews: approved}}, nil, counts{0, 1, 0, 0, 0}},
		"an answer that never came, there":     {[]judge.Created{{Type: "closed", Name: "a good", Reviews: approved}}, []prompts.Write{{Type: "closed", Name: "a good"}}, counts{}},
		"an answer that never came, not there": {nil, []prompts.Write{{Type: "closed", Name: "a good"}}, counts{}},
	} {
		t.Run(name, func(t *testing.T) {
			r := judge.NewReviews([]*prompts.Reviewed{{Type: "closed", HookID: 1}, {Type: "open", HookID: 2, FailOpen: true}})
			for i := range test.there {
				r.Recall(&test.there[i])
			}
			for i := range test.writes {
				r.Take(&test.writes[i])
			}
			v, _ := r.Finish()
			require.Equal(t, test.want, columns(v), "%v", v.First)
		})
	}
}
