// Package report turns measurements into what a bench leaves behind: a table for the reader, JSON for
// machines and a plot. It measures nothing itself.
package report

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// Fact is one line of the head: what the figures were taken on.
type Fact struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// Series is one measured thing over all rounds. Unit says what Rounds are in ("events/s", "ms").
type Series struct {
	Leg    string    `json:"leg"`
	Name   string    `json:"name"`
	Unit   string    `json:"unit"`
	Rounds []float64 `json:"rounds"`
}

// Median of the rounds; NaN when there are none.
func (s Series) Median() float64 { return Quantile(s.Rounds, 0.5) }

// Quantile gives the q-quantile (0 to 1) of values by linear interpolation; NaN when there are none.
func Quantile(values []float64, q float64) float64 {
	if len(values) == 0 {
		return math.NaN()
	}
	sorted := slices.Sorted(slices.Values(values))
	at := q * float64(len(sorted)-1)
	low := int(at)
	if low == len(sorted)-1 {
		return sorted[low]
	}
	return sorted[low] + (at-float64(low))*(sorted[low+1]-sorted[low])
}

// Verdict is one target and what came of it.
type Verdict struct {
	Target   string  `json:"target"`
	Measured float64 `json:"measured"`
	Met      bool    `json:"met"`
}

// Report is everything one run found out.
type Report struct {
	Title    string    `json:"title"`
	At       time.Time `json:"at"`
	Facts    []Fact    `json:"facts"`
	Series   []*Series `json:"series"`
	Verdicts []Verdict `json:"verdicts"`
	Notes    []string  `json:"notes"`
}

// Add appends one round's value to the series of that leg and name, which it makes when it is new.
func (r *Report) Add(leg, name, unit string, value float64) {
	for _, s := range r.Series {
		if s.Leg == leg && s.Name == name {
			s.Rounds = append(s.Rounds, value)
			return
		}
	}
	r.Series = append(r.Series, &Series{Leg: leg, Name: name, Unit: unit, Rounds: []float64{value}})
}

// Median of a series; NaN when it was not measured.
func (r *Report) Median(leg, name string) float64 {
	for _, s := range r.Series {
		if s.Leg == leg && s.Name == name {
			return s.Median()
		}
	}
	return math.NaN()
}

// AtLeast records a verdict: measured must reach the limit. What was not measured is no verdict.
func (r *Report) AtLeast(target string, measured, limit float64) {
	r.judge(target, measured, measured >= limit)
}

// AtMost records a verdict: measured must not pass the limit. What was not measured is no verdict.
func (r *Report) AtMost(target string, measured, limit float64) {
	r.judge(target, measured, measured <= limit)
}

func (r *Report) judge(target string, measured float64, met bool) {
	if !math.IsNaN(measured) {
		r.Verdicts = append(r.Verdicts, Verdict{Target: target, Measured: measured, Met: met})
	}
}

// Missed tells how many targets were not met.
func (r *Report) Missed() int {
	n := 0
	for _, v := range r.Verdicts {
		if !v.Met {
			n++
		}
	}
	return n
}

// Print writes the table of medians, with the facts at its head.
func (r *Report) Print(w io.Writer) error {
	tab := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	_, _ = fmt.Fprintf(tab, "\n%s\n\n", r.Title)
	for _, f := range r.Facts {
		_, _ = fmt.Fprintf(tab, "%s\t%s\n", f.Name, f.Value)
	}
	_, _ = fmt.Fprintln(tab)
	if err := tab.Flush(); err != nil {
		return err
	}
	leg := ""
	for _, s := range r.grouped() {
		if s.Leg != leg {
			leg = s.Leg
			_, _ = fmt.Fprintf(tab, "%s\tmedian\tlowest\thighest\trounds\tunit\n", leg)
		}
		_, _ = fmt.Fprintf(tab, "  %s\t%s\t%s\t%s\t%d\t%s\n", s.Name, number(s.Median()),
			number(slices.Min(s.Rounds)), number(slices.Max(s.Rounds)), len(s.Rounds), s.Unit)
	}
	if len(r.Verdicts) > 0 {
		_, _ = fmt.Fprintln(tab, "\ntarget\tmeasured\t")
	}
	for _, v := range r.Verdicts {
		_, _ = fmt.Fprintf(tab, "  %s\t%s\t%s\n", v.Target, number(v.Measured), map[bool]string{true: "met", false: "MISSED"}[v.Met])
	}
	for _, n := range r.Notes {
		_, _ = fmt.Fprintf(tab, "\n%s\n", n)
	}
	return tab.Flush()
}

// grouped gives the series leg by leg, which rounds may have brought in another order, and by name.
func (r *Report) grouped() []*Series {
	var legs []string
	for _, s := range r.Series {
		if !slices.Contains(legs, s.Leg) {
			legs = append(legs, s.Leg)
		}
	}
	list := slices.Clone(r.Series)
	slices.SortStableFunc(list, func(a, b *Series) int {
		return cmp.Or(cmp.Compare(slices.Index(legs, a.Leg), slices.Index(legs, b.Leg)), cmp.Compare(a.Name, b.Name))
	})
	return list
}

// number shows a value with the digits that mean something: 84210, 12.3, 0.857.
func number(v float64) string {
	switch a := math.Abs(v); {
	case math.IsNaN(v):
		return "-"
	case a >= 1000:
		return fmt.Sprintf("%.0f", v)
	case a >= 10:
		return fmt.Sprintf("%.1f", v)
	default:
		return fmt.Sprintf("%.3f", v)
	}
}

// Save writes dir/name.json and dir/name.svg, and answers their paths.
func (r *Report) Save(dir, name string) ([]string, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("make the output directory: %w", err)
	}
	text, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("encode the report: %w", err)
	}
	base := filepath.Join(dir, name)
	if err := os.WriteFile(base+".json", append(text, '\n'), 0o644); err != nil {
		return nil, fmt.Errorf("write the report: %w", err)
	}
	if err := r.plot(base + ".svg"); err != nil {
		return nil, err
	}
	return []string{base + ".json", base + ".svg"}, nil
}

// subtitle is the machine in one line, for the plot.
func (r *Report) subtitle() string {
	var parts []string
	for _, f := range r.Facts {
		if f.Name == "machine" || f.Name == "postgres" || f.Name == "redis" {
			parts = append(parts, f.Value)
		}
	}
	return strings.Join(parts, " · ")
}
