package events

import (
	"math"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

type happened struct{ id, at int64 }

// history is events in the order of ids, whose times have nearly that order, and what is counted of it.
type history struct {
	list    []happened
	counted int64
}

func drawHistory(t *rapid.T) history {
	h := history{}
	id, clock := int64(0), int64(1000)
	for range rapid.IntRange(0, 80).Draw(t, "events") {
		id += rapid.Int64Range(1, 9000).Draw(t, "gap")
		clock += rapid.Int64Range(-3, 10).Draw(t, "tick")
		h.list = append(h.list, happened{id, clock})
	}
	h.counted = rapid.Int64Range(0, id/BlockIDs).Draw(t, "counted") * BlockIDs
	return h
}

// times does what the statement touchedParts does.
func (h history) times(from, to int64) *Times {
	least, most := map[int64]int64{}, map[int64]int64{}
	for _, e := range h.list {
		if e.id > h.counted {
			continue
		}
		part := (e.id - 1) / PartIDs
		if _, ok := least[part]; !ok {
			least[part], most[part] = math.MaxInt64, math.MinInt64
		}
		least[part], most[part] = min(least[part], e.at), max(most[part], e.at)
	}
	out := &Times{First: math.MaxInt64, Last: -1}
	for part := range least {
		if most[part] > from && least[part] < to {
			out.First, out.Last = min(out.First, part), max(out.Last, part)
		}
	}
	for part := out.First; part <= out.Last; part++ {
		if _, ok := least[part]; ok && (least[part] <= from || most[part] >= to) {
			out.Partial = append(out.Partial, part)
		}
	}
	return out
}

// ask answers a question as the store does: counts of blocks and of stretches, then the page.
func (h history) ask(from, to int64, times *Times, ascending bool, after, offset, limit int64) (total int64, page []happened) {
	matching := func(lo, hi int64, timed bool) (out []happened) {
		for _, e := range h.list {
			if e.id > lo && e.id <= hi && (!timed || (e.at > from && e.at < to)) {
				out = append(out, e)
			}
		}
		return out
	}
	runs, list := Stretches(h.counted, times)
	for i := range list {
		list[i].Matches = int64(len(matching(list[i].Lo, list[i].Hi, list[i].Timed)))
	}
	for _, r := range runs {
		for b := r.From; b < r.To; b++ {
			s := Stretch{Lo: b * BlockIDs, Hi: (b + 1) * BlockIDs}
			s.Matches = int64(len(matching(s.Lo, s.Hi, false)))
			list = append(list, s)
		}
	}
	for _, s := range list {
		total += s.Matches
	}
	place, ok := Locate(list, ascending, after, offset, limit)
	if !ok {
		return total, nil
	}
	found := matching(place.Lo, place.Hi, place.Timed)
	if !ascending {
		slices.Reverse(found)
	}
	found = found[min(place.Skip, int64(len(found))):]
	return total, found[:min(limit, int64(len(found)))]
}

// Whatever is counted and whatever is asked, the answer is that of looking at every event.
func TestStretchesAndPlaces(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		h := drawHistory(t)
		from, to := int64(math.MinInt64), int64(math.MaxInt64)
		var times *Times
		if rapid.Bool().Draw(t, "timed") {
			from = rapid.Int64Range(990, 1500).Draw(t, "from")
			to = from + rapid.Int64Range(0, 300).Draw(t, "span")
			times = h.times(from, to)
		}
		var want []happened
		for _, e := range h.list {
			if e.at > from && e.at < to {
				want = append(want, e)
			}
		}
		total := int64(len(want))
		ascending := rapid.Bool().Draw(t, "ascending")
		if !ascending {
			slices.Reverse(want)
		}
		limit, offset, after := rapid.Int64Range(1, 12).Draw(t, "limit"), int64(0), int64(0)
		if rapid.Bool().Draw(t, "by cursor") && len(want) > 0 {
			i := rapid.IntRange(0, len(want)-1).Draw(t, "after")
			after, want = want[i].id, want[i+1:]
		} else {
			offset = rapid.Int64Range(0, 90).Draw(t, "offset")
			want = want[min(offset, total):]
		}
		want = want[:min(limit, int64(len(want)))]
		got, page := h.ask(from, to, times, ascending, after, offset, limit)
		if got != total || !slices.Equal(page, want) {
			t.Fatalf("total %d, page %v; want %d, %v", got, page, total, want)
		}
	})
}
