package main_test

import (
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/sametick/sametick/deploy/torture/internal/harness"
	"github.com/sametick/sametick/deploy/torture/internal/judge"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// short runs a torture in seconds.
func short(t *testing.T, change func(*harness.Options)) *harness.Report {
	t.Helper()
	o := harness.Defaults()
	root, err := filepath.Abs("../..")
	require.NoError(t, err)
	o.Root, o.Dir, o.Out = root, t.TempDir(), t.Output()
	o.Seed, o.Bulk, o.Think = 7, 400, 20*time.Millisecond
	change(&o)
	report, err := harness.Run(t.Context(), o)
	require.NoError(t, err)
	require.NoError(t, report.Print(t.Output()))
	require.Greater(t, report.Ledger.Committed, int64(100), "too little was written to prove anything")
	require.Greater(t, report.Ledger.Aborted, int64(5))
	return report
}

// verdict finds a row of the report.
func verdict(t *testing.T, r *harness.Report, what string) *judge.Verdict {
	t.Helper()
	for _, v := range r.Verdicts {
		if v.What == what {
			return v
		}
	}
	require.Fail(t, "no verdict", "%s among %v", what, r.Verdicts)
	return nil
}

const (
	commits   = "ledger ↔ events, audit (P1)"
	positions = "positions (P2 P3 P5)"
	streams   = "Redis streams (P6 P7)"
	clients   = "SSE clients (P8 P10)"
	beside    = "beside an open transaction (P4)"
	webhooks  = "webhooks received"
	history   = "webhooks in history"
	ran       = "prompt runs"
	called    = "calls of models"
	budgets   = "budgets"
	reviewed  = "reviewed writes"
)

func TestTheRelaySurvivesAShortStorm(t *testing.T) {
	report := short(t, func(o *harness.Options) { o.Duration, o.Pace = 25*time.Second, 0.35 })
	require.True(t, report.Clean())
	require.Greater(t, report.Kills, 5, "a storm without kills proves nothing")
	require.Greater(t, verdict(t, report, clients).Checked, int64(100))
	for _, what := range []string{ran, called, budgets, reviewed} {
		require.Positive(t, verdict(t, report, what).Checked)
	}
	require.Greater(t, report.Webhooks.Pairs, int64(1000))
	killed := 0
	for n := range report.Options.Workers {
		killed += report.Faults[fmt.Sprintf("worker %d SIGKILL", n)]
	}
	require.Greater(t, killed, 3, "workers must die too")
	killed = report.Faults["all prompters SIGKILL"]
	for n := range report.Options.Prompters {
		killed += report.Faults[fmt.Sprintf("prompter %d SIGKILL", n)]
	}
	require.Greater(t, killed, 3, "and prompters")
	require.Greater(t, report.Prompts.Pairs, int64(100))
	require.Greater(t, report.Prompts.Calls, int64(50))
	require.Positive(t, report.Prompts.Unknown, "some died in the middle of a call")
	require.Positive(t, report.Prompts.OverBudget, "the edge of a budget was reached")
	require.Greater(t, report.Reviews.Created, int64(50))
	require.Greater(t, report.Reviews.Rejected, int64(50))
	require.Positive(t, report.Reviews.Unreviewed, "nobody was there to review, and fail_open let it pass")
	require.Positive(t, report.Reviews.Unavailable, "and fail_closed did not")
}

// The judge must find in each known-wrong relay what is wrong with it, and nothing that is not.
func TestTheJudgeCatchesTheCursorOnIDs(t *testing.T) {
	report := wrong(t, "wrong-id")
	require.Positive(t, verdict(t, report, positions).Lost)
	require.Positive(t, verdict(t, report, streams).Lost)
	require.Zero(t, verdict(t, report, positions).Twice)
	require.Zero(t, verdict(t, report, positions).OutOfOrder)
}

func TestTheJudgeCatchesTheLowWaterMark(t *testing.T) {
	report := wrong(t, "wrong-xmin")
	require.Positive(t, verdict(t, report, positions).OutOfOrder)
	require.Positive(t, verdict(t, report, streams).OutOfOrder)
	require.Positive(t, verdict(t, report, beside).Lost, "one open transaction must have held up the others")
	require.Zero(t, verdict(t, report, positions).Lost)
	require.Zero(t, verdict(t, report, positions).Twice)
}

func TestTheJudgeCatchesPublishingWithoutALog(t *testing.T) {
	report := wrong(t, "wrong-direct")
	require.Positive(t, verdict(t, report, streams).Lost)
	require.Positive(t, verdict(t, report, streams).Gaps)
	require.Positive(t, verdict(t, report, positions).Lost)
}

func TestTheJudgePassesARightDouble(t *testing.T) {
	t.Parallel()
	report := short(t, func(o *harness.Options) {
		o.Relay, o.Worker, o.Prompter, o.Duration, o.Pace = "right", "right", "right", 8*time.Second, 0.2
	})
	require.True(t, report.Clean())
	require.Greater(t, report.Webhooks.Pairs, int64(500))
	require.Greater(t, report.Prompts.Pairs, int64(50))
	require.Greater(t, report.Prompts.Calls, int64(20))
}

// A cursor that is moved apart from what it stands for: what a worker had not queued yet when it died is never sent.
func TestTheJudgeCatchesACursorOutsideTheTransaction(t *testing.T) {
	t.Parallel()
	report := short(t, func(o *harness.Options) {
		o.Relay, o.Worker, o.Duration, o.Pace = "right", "wrong-cursor", 8*time.Second, 0.2
	})
	require.False(t, report.Clean())
	require.Positive(t, verdict(t, report, webhooks).Lost)
	require.Positive(t, verdict(t, report, history).Lost)
	require.Zero(t, verdict(t, report, webhooks).Foreign)
	require.Zero(t, verdict(t, report, history).Twice)
	for _, what := range []string{commits, positions, streams} {
		require.Zero(t, verdict(t, report, what).Failures(), "the relay is right")
	}
}

// The same of prompts: what a prompter had not queued yet when it died never runs.
func TestTheJudgeCatchesAPromptersCursorOutsideTheTransaction(t *testing.T) {
	t.Parallel()
	report := short(t, func(o *harness.Options) {
		o.Relay, o.Workers, o.Prompter, o.Duration, o.Pace = "right", 0, "wrong-cursor", 8*time.Second, 0.2
	})
	require.Positive(t, verdict(t, report, ran).Lost)
	require.Zero(t, verdict(t, report, ran).Twice)
	require.Zero(t, verdict(t, report, called).Failures())
	for _, what := range []string{commits, positions, streams} {
		require.Zero(t, verdict(t, report, what).Failures(), "the relay is right")
	}
}

// Attempts that nobody marks: replicas ask for the same run, and a model is asked again though each outcome was known.
func TestTheJudgeCatchesCallsThatNobodyMarks(t *testing.T) {
	t.Parallel()
	report := short(t, func(o *harness.Options) {
		o.Relay, o.Workers, o.Prompter, o.Duration, o.Pace = "right", 0, "wrong-mark", 6*time.Second, 0
	})
	require.Positive(t, verdict(t, report, called).Twice)
	require.Zero(t, verdict(t, report, ran).Failures(), "each run ends once all the same")
	for _, what := range []string{commits, positions, streams} {
		require.Zero(t, verdict(t, report, what).Failures(), "the relay is right")
	}
}

// wrong runs a wrong relay in fair weather: it is wrong without any help.
func wrong(t *testing.T, relay string) *harness.Report {
	t.Helper()
	t.Parallel()
	report := short(t, func(o *harness.Options) { o.Relay, o.Duration, o.Pace = relay, 6*time.Second, 0 })
	require.False(t, report.Clean())
	require.Zero(t, verdict(t, report, commits).Failures(), "the writers' side is the same for all relays")
	return report
}
