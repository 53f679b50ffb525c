package events

import (
	"math"
	"slices"
)

// Events are counted by blocks of ids (pkg/outbox/migrations/00003_event_counts.sql): a total and the place
// of a page come from the counts, and only what is in no counted block is counted when asked.
const (
	// BlockIDs is how many ids a block has: block b has the ids (b*BlockIDs, (b+1)*BlockIDs].
	BlockIDs = 50_000
	// PartIDs is how many ids a part of a block has.
	PartIDs      = 5_000
	partsOfBlock = BlockIDs / PartIDs
	// maxPartial bounds the stretches of a question: beyond, as after a clock that jumped, one that is looked
	// through whole is cheaper.
	maxPartial = 64
)

// Times are the parts that a range of times touches: all from First to Last (none when Last is less),
// of which Partial, in their order, are not wholly within it.
type Times struct {
	First, Last int64
	Partial     []int64
}

// Stretch is the ids (Lo, Hi] and how many of their events match.
type Stretch struct {
	Lo, Hi int64
	// Timed: not all of its events are in the range of times, so each must be looked at.
	Timed   bool
	Matches int64
}

// Blocks are the counted blocks From ≤ b < To.
type Blocks struct{ From, To int64 }

// Stretches divides all ids, where those up to counted are in counted blocks: into runs of blocks, whose
// counts hold, and stretches to be counted. times is nil for all times.
func Stretches(counted int64, times *Times) (runs []Blocks, live []Stretch) {
	tail := Stretch{Lo: counted, Hi: math.MaxInt64, Timed: times != nil}
	if times == nil {
		return addRun(nil, Blocks{0, counted / BlockIDs}), []Stretch{tail}
	}
	if times.Last < times.First {
		return nil, []Stretch{tail}
	}
	if len(times.Partial) > maxPartial {
		return nil, []Stretch{{Lo: times.First * PartIDs, Hi: (times.Last + 1) * PartIDs, Timed: true}, tail}
	}
	at := times.First
	for _, p := range append(slices.Clone(times.Partial), times.Last+1) {
		runs, live = within(runs, live, at, p)
		if p <= times.Last {
			live = append(live, Stretch{Lo: p * PartIDs, Hi: (p + 1) * PartIDs, Timed: true})
		}
		at = p + 1
	}
	return runs, append(live, tail)
}

// within divides the parts from ≤ p < to, all of them within the times.
func within(runs []Blocks, live []Stretch, from, to int64) ([]Blocks, []Stretch) {
	first, end := (from+partsOfBlock-1)/partsOfBlock, to/partsOfBlock
	if first >= end { // no whole block
		return runs, addLive(live, from*PartIDs, to*PartIDs)
	}
	live = addLive(live, from*PartIDs, first*BlockIDs)
	return addRun(runs, Blocks{first, end}), addLive(live, end*BlockIDs, to*PartIDs)
}

func addRun(runs []Blocks, b Blocks) []Blocks {
	if b.From >= b.To {
		return runs
	}
	return append(runs, b)
}

func addLive(live []Stretch, lo, hi int64) []Stretch {
	if lo >= hi {
		return live
	}
	return append(live, Stretch{Lo: lo, Hi: hi})
}

// Between gives the stretches of runs that are in none of the blocks found.
func Between(runs []Blocks, found []Stretch) (live []Stretch) {
	in := map[int64]bool{}
	for _, f := range found {
		in[f.Lo/BlockIDs] = true
	}
	for _, r := range runs {
		from := r.From
		for b := r.From; b <= r.To; b++ {
			if b == r.To || in[b] {
				live = addLive(live, from*BlockIDs, b*BlockIDs)
				from = b + 1
			}
		}
	}
	return live
}

// Place is where a page is: within the ids (Lo, Hi], past Skip matching events.
type Place struct {
	Lo, Hi, Skip int64
	// Timed: the range of times must be looked at.
	Timed bool
}

// Locate finds the page of limit events past offset, or past the event after (0: from the first) in the
// direction of reading, in stretches that are all there is. It reports false when there is no such page.
func Locate(list []Stretch, ascending bool, after, offset, limit int64) (Place, bool) {
	list = slices.Clone(list)
	slices.SortFunc(list, func(a, b Stretch) int {
		if (a.Hi < b.Hi) == ascending {
			return -1
		}
		return 1
	})
	var (
		p     Place
		found bool
		sure  int64 // matches that are certainly in the place
	)
	for _, s := range list {
		s, matches := behind(s, ascending, after)
		if s.Lo >= s.Hi || s.Matches == 0 {
			continue
		}
		if !found && after == 0 && matches <= offset {
			offset -= matches
			continue
		}
		if !found {
			p, found = Place{Lo: s.Lo, Hi: s.Hi, Skip: offset}, true
			matches -= offset
		}
		p.Lo, p.Hi, p.Timed = min(p.Lo, s.Lo), max(p.Hi, s.Hi), p.Timed || s.Timed
		if sure += matches; sure >= limit {
			break
		}
	}
	return p, found
}

// behind cuts off what is read already, and tells how many matches are certainly left.
func behind(s Stretch, ascending bool, after int64) (Stretch, int64) {
	switch {
	case after == 0 || (ascending && s.Lo >= after) || (!ascending && s.Hi < after):
		return s, s.Matches
	case ascending:
		s.Lo = min(after, s.Hi)
	default:
		s.Hi = max(after-1, s.Lo)
	}
	return s, 0
}
