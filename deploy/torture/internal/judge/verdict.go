// Package judge compares what the writers know (the ledger) with what the product made of it: events
// and audit entries in Postgres, the position log, the Redis streams and the record of each client.
// It reads, counts and names the first offenders; it decides nothing about who is to blame. It is the
// same for the real relay and for the known-wrong ones, which is how we know that it can fail.
package judge

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
)

// shown is how many offenders a verdict names.
const shown = 5

// Verdict is one row of the report: what was compared, and how often it was wrong.
type Verdict struct {
	// What was compared, with the promises of the design that it stands for.
	What string
	// Checked is how many events (entries, deliveries) were looked at.
	Checked int64
	// Lost: committed, and not there.
	Lost int64
	// Twice: there more than once.
	Twice int64
	// OutOfOrder: an entity's event after a later one of the same entity, or a smaller position after
	// a greater one.
	OutOfOrder int64
	// Gaps: positions (sequences) that nobody has.
	Gaps int64
	// Foreign: there, and not what was committed: of an aborted transaction, with other bytes, of
	// another organisation, not selected by the filter.
	Foreign int64
	// First names the first offenders.
	First []string
}

// Failures is the sum of all that is wrong.
func (v *Verdict) Failures() int64 {
	return v.Lost + v.Twice + v.OutOfOrder + v.Gaps + v.Foreign
}

// note counts a failure and names it while there is room.
func (v *Verdict) note(counter *int64, format string, args ...any) {
	*counter++
	if len(v.First) < shown {
		v.First = append(v.First, fmt.Sprintf(format, args...))
	}
}

// Failures sums the failures of several verdicts.
func Failures(verdicts []*Verdict) (sum int64) {
	for _, v := range verdicts {
		sum += v.Failures()
	}
	return sum
}

// Print writes the verdicts as a table, then the first offenders of each.
func Print(w io.Writer, verdicts []*Verdict) error {
	var b strings.Builder
	rows := []byte("compared\tchecked\tlost\ttwice\tout of order\tgaps\tforeign\t\n")
	for _, v := range verdicts {
		rows = fmt.Appendf(rows, "%s\t%d\t%d\t%d\t%d\t%d\t%d\t\n", v.What, v.Checked, v.Lost, v.Twice, v.OutOfOrder, v.Gaps, v.Foreign)
	}
	table := tabwriter.NewWriter(&b, 0, 0, 2, ' ', tabwriter.AlignRight)
	_, err := table.Write(rows)
	if err = errors.Join(err, table.Flush()); err != nil {
		return fmt.Errorf("print the verdicts: %w", err)
	}
	for _, v := range verdicts {
		for _, line := range v.First {
			fmt.Fprintf(&b, "  %s: %s\n", v.What, line)
		}
	}
	_, err = io.WriteString(w, b.String())
	return err
}
