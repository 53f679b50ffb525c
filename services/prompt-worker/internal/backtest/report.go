package backtest

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"github.com/sametick/sametick/services/prompt-worker/internal/prompting"
)

// MaxFlips bounds the flips that a report names.
const MaxFlips = 100

// Report is what has been found so far.
type Report struct {
	Matched, Done, NoBaseline, Failed int
	// Failures count by cause, the most frequent first.
	Failures []Failure
	Matrix   []Cell
	// Flips are the first MaxFlips of FlipsTotal.
	Flips      []Case
	FlipsTotal int
	Usage      prompting.Usage
	// Cost is in millionths.
	Cost           int64
	Calls, Unknown int
	// P50 and P95 are of the events whose model was asked, by nearest rank.
	P50, P95 time.Duration
}

// Failure is a cause and how often it was.
type Failure struct {
	Cause string
	Count int
}

// Cell counts the events of one decision of then and one of the version.
type Cell struct {
	Baseline, Verdict string
	Count             int
}

// Flipped tells whether the version says something else than was decided. What has no baseline, or failed then as now,
// flips nothing.
func (r *Result) Flipped() bool {
	return r.Baseline != NoBaseline && r.Verdict != r.Baseline && r.Verdict != Equal
}

// ReportOf makes the report of cases.
func ReportOf(cases []Case) Report {
	out := Report{Matched: len(cases)}
	failures, cells := map[string]int{}, map[Cell]int{}
	var times []int64
	for _, c := range cases {
		out.Calls += c.Attempts
		out.Unknown += c.Unknown
		if c.Result == nil {
			continue
		}
		r := c.Result
		out.Done++
		cells[Cell{Baseline: r.Baseline, Verdict: r.Verdict}]++
		out.Usage.Input += r.Usage.Input
		out.Usage.Cached += r.Usage.Cached
		out.Usage.Output += r.Usage.Output
		out.Cost += r.Cost
		if r.Baseline == NoBaseline {
			out.NoBaseline++
		}
		if r.Cause != "" {
			out.Failed++
			failures[r.Cause]++
		}
		if r.Latency > 0 {
			times = append(times, r.Latency)
		}
		if r.Flipped() {
			if out.FlipsTotal++; len(out.Flips) < MaxFlips {
				out.Flips = append(out.Flips, c)
			}
		}
	}
	for cause, n := range failures {
		out.Failures = append(out.Failures, Failure{cause, n})
	}
	slices.SortFunc(out.Failures, func(a, b Failure) int {
		return cmp.Or(cmp.Compare(b.Count, a.Count), cmp.Compare(a.Cause, b.Cause))
	})
	for _, c := range slices.SortedFunc(maps.Keys(cells), func(a, b Cell) int {
		return cmp.Or(cmp.Compare(a.Baseline, b.Baseline), cmp.Compare(a.Verdict, b.Verdict))
	}) {
		out.Matrix = append(out.Matrix, Cell{c.Baseline, c.Verdict, cells[c]})
	}
	slices.Sort(times)
	out.P50, out.P95 = rank(times, 50), rank(times, 95)
	return out
}

// rank is the nearest rank of sorted microseconds.
func rank(sorted []int64, percent int) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	return time.Duration(sorted[(len(sorted)*percent+99)/100-1]) * time.Microsecond
}
