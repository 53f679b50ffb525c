package workflow

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/sametick/sametick/pkg/errs"
)

func flow(specs ...Spec) Flow {
	f := Flow{ID: 1, Status: Running, Steps: Started(complete(specs))}
	for i := range f.Steps {
		f.Steps[i].ID = int64(i + 1)
	}
	return f
}

func (f Flow) statuses() string {
	var list []string
	for _, s := range f.Steps {
		list = append(list, s.Status)
	}
	return f.Status + ": " + strings.Join(list, " ")
}

func TestMoves(t *testing.T) {
	hire := flow(Spec{Key: "a"}, Spec{Key: "b", Needs: []string{"a"}, Approval: true}, Spec{Key: "c", Needs: []string{"a"}, OnFailure: Continue},
		Spec{Key: "d", Needs: []string{"b", "c"}})
	for _, c := range []struct{ moves, want string }{
		{"", "running: active pending pending pending"},
		{"1 pass", "running: passed active active pending"},
		{"1 pass, 2 pass", "running: passed awaiting_approval active pending"},
		{"1 pass, 2 pass, 2 approve, 3 pass", "running: passed approved passed active"},
		{"1 pass, 2 pass, 2 approve, 3 fail", "running: passed approved failed active"},
		{"1 pass, 2 pass, 2 approve, 3 pass, 4 pass", "completed: passed approved passed passed"},
		{"1 fail", "failed: failed cancelled cancelled cancelled"},
		{"1 pass, 2 pass, 2 fail", "failed: passed failed cancelled cancelled"},
		{"2 pass", "! pending, allowed: "},
		{"1 approve", "! active, allowed: pass,fail"},
		{"1 pass, 1 pass", "! passed, allowed: "},
		{"1 pass, 2 pass, 2 pass", "! awaiting_approval, allowed: approve,fail"},
		{"1 fail, 2 pass", "! cancelled, allowed: "},
	} {
		f := hire
		var err error
		for _, move := range strings.Split(c.moves, ", ") {
			if move != "" {
				f, _, _, err = f.Move(int64(move[0]-'0'), move[2:])
			}
		}
		got := f.statuses()
		if err != nil {
			require.Equal(t, "ILLEGAL_MOVE", errs.From(err).Reason)
			got = fmt.Sprintf("! %s, allowed: %s", errs.From(err).Meta["status"], errs.From(err).Meta["allowed"])
		}
		require.Equal(t, c.want, got, c.moves)
	}
	_, _, _, err := hire.Move(99, Pass)
	require.Equal(t, errs.NotFound, errs.KindOf(err))
	cancelled, err := hire.Cancel()
	require.NoError(t, err)
	require.Equal(t, "cancelled: cancelled cancelled cancelled cancelled", cancelled.statuses())
	_, err = cancelled.Cancel()
	require.Equal(t, "ILLEGAL_MOVE", errs.From(err).Reason)
}

// Whatever the definition and the moves: a running workflow can always go on, it is completed exactly when all its
// steps are done, and nothing final moves.
func TestMachine(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var specs []Spec
		for i := range rapid.IntRange(1, 7).Draw(t, "steps") {
			s := Spec{Key: fmt.Sprintf("s%d", i), Name: "x", Approval: rapid.Bool().Draw(t, "approval"),
				OnFailure: rapid.SampledFrom([]string{Stop, Continue}).Draw(t, "on failure")}
			for j := range i {
				if rapid.Bool().Draw(t, "needs") {
					s.Needs = append(s.Needs, fmt.Sprintf("s%d", j))
				}
			}
			specs = append(specs, s)
		}
		require.NoError(t, checkDefinition("x", specs))
		f := flow(specs...)
		for f.Status == Running {
			var open []int
			for i := range f.Steps {
				if len(f.Steps[i].Moves(f.Status)) > 0 {
					open = append(open, i)
				}
			}
			require.NotEmpty(t, open, "stuck: %s", f.statuses())
			i := rapid.SampledFrom(open).Draw(t, "step")
			move := rapid.SampledFrom(f.Steps[i].Moves(f.Status)).Draw(t, "move")
			before := f
			var name string
			var err error
			f, name, _, err = f.Move(f.Steps[i].ID, move)
			require.NoError(t, err)
			require.NotEmpty(t, name)
			for j := range f.Steps {
				if before.Steps[j].final() {
					require.Equal(t, before.Steps[j].Status, f.Steps[j].Status)
				}
			}
			undone := slices.ContainsFunc(f.Steps, func(s Step) bool { return !s.done() })
			require.Equal(t, !undone, f.Status == Completed, f.statuses())
		}
		for i := range f.Steps {
			require.True(t, f.Steps[i].final(), f.statuses())
		}
	})
}

func TestBadDefinitions(t *testing.T) {
	for want, steps := range map[string][]Spec{
		"steps OUT_OF_RANGE":                        nil,
		"steps[0].key INVALID_KEY":                  {{Key: "A", Name: "x"}},
		"steps[1].key DUPLICATE":                    {{Key: "a", Name: "x"}, {Key: "a", Name: "x"}},
		"steps[0].name OUT_OF_RANGE":                {{Key: "a"}},
		"steps[0].needs[0] UNKNOWN_STEP":            {{Key: "a", Name: "x", Needs: []string{"b"}}},
		"steps[0].on_failure NOT_IN_ENUM":           {{Key: "a", Name: "x", OnFailure: "retry"}},
		"steps[1].needs CYCLE steps[2].needs CYCLE": {{Key: "a", Name: "x"}, {Key: "b", Name: "x", Needs: []string{"a", "c"}}, {Key: "c", Name: "x", Needs: []string{"b"}}},
		"steps[0].needs CYCLE":                      {{Key: "a", Name: "x", Needs: []string{"a"}}},
	} {
		var got []string
		for _, f := range errs.From(checkDefinition("x", steps)).Fields {
			got = append(got, f.Field+" "+f.Reason)
		}
		require.Equal(t, want, strings.Join(got, " "))
	}
}
