package backtest

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestReport(t *testing.T) {
	t.Parallel()
	require.Equal(t, Report{}, ReportOf(nil))
	var cases []Case
	for i := range 200 {
		c := Case{EventID: int64(i), Attempts: 1, Result: &Result{Baseline: "approve", Verdict: "reject", Latency: int64(200 - i), Cost: 2}}
		if i%2 == 1 {
			c.Result.Verdict = "approve"
		}
		cases = append(cases, c)
	}
	cases = append(cases, Case{Attempts: 2, Unknown: 1}, Case{Result: &Result{Baseline: NoBaseline, Verdict: Error, Cause: CauseGone}})
	cases[0].Result.Verdict, cases[0].Result.Cause = Error, "timeout"
	r := ReportOf(cases)
	require.Equal(t, []int{202, 201, 1, 2, 202, 1, 100}, []int{r.Matched, r.Done, r.NoBaseline, r.Failed, r.Calls, r.Unknown, r.FlipsTotal})
	require.Equal(t, []Cell{{"approve", "approve", 100}, {"approve", "error", 1}, {"approve", "reject", 99}, {"no_baseline", "error", 1}}, r.Matrix)
	require.Equal(t, []Failure{{CauseGone, 1}, {"timeout", 1}}, r.Failures)
	require.Equal(t, []time.Duration{100 * time.Microsecond, 190 * time.Microsecond}, []time.Duration{r.P50, r.P95}, "nearest rank of 1 to 200")
	require.EqualValues(t, 400, r.Cost)
	cases[1].Result.Verdict = "reject"
	r = ReportOf(cases)
	require.Equal(t, 101, r.FlipsTotal)
	require.Len(t, r.Flips, MaxFlips, "bounded")
}

func TestSameJSON(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		a, b string
		same bool
	}{{`{"a":1,"b":[2]}`, ` {"b": [2], "a": 1}`, true}, {``, `{}`, true}, {`null`, `{}`, true}, {`9007199254740993`, `9007199254740992`, false},
		{`[1,2]`, `[2,1]`, false}, {`"1"`, `1`, false}, {`{`, `{`, false}} {
		require.Equal(t, c.same, same(json.RawMessage(c.a), json.RawMessage(c.b)), c.a)
	}
}
