package sequence

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Snapshot is Postgres' pg_snapshot: which transactions had ended at a moment.
// https://www.postgresql.org/docs/current/functions-info.html#FUNCTIONS-PG-SNAPSHOT
type Snapshot struct {
	// Xmin is the oldest transaction that still ran; all below have ended.
	Xmin uint64
	// Xmax follows the greatest transaction id that had ended. Transactions from it on may have run already.
	Xmax uint64
	// Xip are the transactions between the two that still ran, ascending.
	Xip []uint64
}

// Nothing is the snapshot in which no event is visible: 3 is the first id that transactions get.
func Nothing() Snapshot { return Snapshot{Xmin: 3, Xmax: 3} }

// ParseSnapshot reads the text form, "xmin:xmax:xip,xip".
func ParseSnapshot(s string) (Snapshot, error) {
	parts := strings.Split(s, ":")
	if len(parts) != 3 {
		return Snapshot{}, fmt.Errorf("snapshot %q is not xmin:xmax:xip", s)
	}
	var (
		snap Snapshot
		err  error
	)
	if snap.Xmin, err = strconv.ParseUint(parts[0], 10, 64); err != nil {
		return Snapshot{}, fmt.Errorf("snapshot %q: xmin: %w", s, err)
	}
	if snap.Xmax, err = strconv.ParseUint(parts[1], 10, 64); err != nil {
		return Snapshot{}, fmt.Errorf("snapshot %q: xmax: %w", s, err)
	}
	if snap.Xmin == 0 || snap.Xmax < snap.Xmin {
		return Snapshot{}, fmt.Errorf("snapshot %q: xmin must be positive and at most xmax", s)
	}
	if parts[2] == "" {
		return snap, nil
	}
	last := snap.Xmin - 1
	for item := range strings.SplitSeq(parts[2], ",") {
		x, err := strconv.ParseUint(item, 10, 64)
		if err != nil {
			return Snapshot{}, fmt.Errorf("snapshot %q: xip: %w", s, err)
		}
		if x <= last || x >= snap.Xmax {
			return Snapshot{}, fmt.Errorf("snapshot %q: xip must ascend within [xmin, xmax)", s)
		}
		snap.Xip = append(snap.Xip, x)
		last = x
	}
	return snap, nil
}

// String gives the text form.
func (s Snapshot) String() string {
	b := strconv.AppendUint(nil, s.Xmin, 10)
	b = append(b, ':')
	b = strconv.AppendUint(b, s.Xmax, 10)
	b = append(b, ':')
	for i, x := range s.Xip {
		if i > 0 {
			b = append(b, ',')
		}
		b = strconv.AppendUint(b, x, 10)
	}
	return string(b)
}

// Ended tells whether transaction x had ended, by commit or not: pg_visible_in_snapshot.
func (s Snapshot) Ended(x uint64) bool {
	if x >= s.Xmax {
		return false
	}
	_, running := slices.BinarySearch(s.Xip, x)
	return !running
}
