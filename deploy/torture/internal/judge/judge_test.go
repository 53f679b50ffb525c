package judge_test

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/sametick/sametick/deploy/torture/internal/envelope"
	"github.com/sametick/sametick/deploy/torture/internal/follow"
	"github.com/sametick/sametick/deploy/torture/internal/judge"
	"github.com/sametick/sametick/pkg/event"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// truth is a small history that is right: org 1 (shard of org 1), two tasks, events 1 to 6, each in a
// transaction of its own; the tests then spoil one thing at a time.
type truth struct {
	events  []event.Event
	writes  judge.Writes
	audits  judge.Audits
	ledger  []string
	rows    []judge.Row
	streams []entry
}

type entry struct {
	id     string
	fields map[string]string
}

var shard = event.ShardOf(1)

func newTruth() *truth {
	t := &truth{writes: judge.Writes{}, audits: make(judge.Audits, 7)}
	for i := range int64(6) {
		e := event.Event{ID: i + 1, OrgID: 1, AggregateType: "task", AggregateID: 1 + i%2, EventType: "task.post_update",
			Payload: fmt.Appendf(nil, `{"tx": %d}`, i+1), OccurredAt: time.UnixMilli(1000 + i)}
		t.events = append(t.events, e)
		t.writes[i+1] = 1
		t.audits[i] = 1
		t.ledger = append(t.ledger, fmt.Sprintf("C %d short %d:1:task:%d:%d\n", i+1, e.ID, e.AggregateID, 1+i/2))
		t.rows = append(t.rows, judge.Row{Shard: shard, Position: i + 1, EventID: e.ID})
		t.streams = append(t.streams, entry{fmt.Sprintf("%d-0", i+1), fieldsOf(e)})
	}
	return t
}

func fieldsOf(e event.Event) map[string]string {
	return map[string]string{"e": string(e.AppendJSON(nil)), "o": strconv.FormatInt(e.OrgID, 10), "t": e.EventType,
		"a": e.AggregateType, "i": strconv.FormatInt(e.AggregateID, 10)}
}

// facts numbers the sequences of each entity in the order of the events.
func (t *truth) facts() *judge.Facts {
	f := judge.NewFacts()
	for i := range t.events {
		f.Add(&t.events[i], shard, 1+(t.events[i].ID-1)/2, t.events[i].ID)
	}
	return f
}

func (t *truth) log(f *judge.Facts) (*judge.Log, *judge.Verdict) {
	b := judge.NewLogBuilder(f)
	for _, r := range t.rows {
		b.Add(r)
	}
	return b.Finish()
}

// counts are a verdict's columns: lost, twice, out of order, gaps, foreign.
type counts [5]int64

func columns(v *judge.Verdict) counts {
	return counts{v.Lost, v.Twice, v.OutOfOrder, v.Gaps, v.Foreign}
}

func TestCommits(t *testing.T) {
	for name, test := range map[string]struct {
		spoil func(*truth)
		want  counts
	}{
		"right":                       {func(*truth) {}, counts{}},
		"acknowledged, row lost":      {func(x *truth) { delete(x.writes, 6); x.events = x.events[:5] }, counts{1, 0, 0, 0, 0}},
		"event lost":                  {func(x *truth) { x.events = x.events[:5] }, counts{2, 0, 0, 0, 0}},
		"rolled back, still there":    {func(x *truth) { x.ledger[5] = "A 6 abort\n" }, counts{0, 0, 0, 0, 1}},
		"event without a transaction": {func(x *truth) { delete(x.writes, 6); x.ledger = x.ledger[:5] }, counts{0, 0, 0, 0, 1}},
		"unknown and there":           {func(x *truth) { x.ledger[5] = "U 6 async 6:1:task:2:3\n" }, counts{}},
		"unknown and gone whole": {func(x *truth) {
			x.ledger[5] = "U 6 async 6:1:task:2:3\n"
			delete(x.writes, 6)
			x.events = x.events[:5]
		}, counts{}},
		"unknown, half of it": {func(x *truth) { x.ledger[5] = "U 6 async\n"; x.events = x.events[:5] }, counts{1, 0, 0, 0, 0}},
		"no audit entry":      {func(x *truth) { x.audits[3] = 0 }, counts{1, 0, 0, 0, 0}},
		"two audit entries":   {func(x *truth) { x.audits[3] = 2 }, counts{0, 1, 0, 0, 0}},
		"audit of nothing":    {func(x *truth) { x.audits[len(x.audits)-1] = 1 }, counts{0, 0, 0, 0, 1}},
		"other entity":        {func(x *truth) { x.ledger[5] = "C 6 short 6:1:task:1:3\n" }, counts{0, 0, 0, 0, 1}},
		"hole in sequences":   {func(x *truth) { x.events = slices.Delete(x.events, 2, 3); x.ledger = nil; delete(x.writes, 3) }, counts{0, 0, 0, 1, 0}},
	} {
		t.Run(name, func(t *testing.T) {
			x := newTruth()
			test.spoil(x)
			f := x.facts()
			audits := append(slices.Clone(x.audits[:f.Len()]), x.audits[len(x.audits)-1])
			v, err := judge.Commits(f, x.writes, audits, strings.NewReader(strings.Join(x.ledger, "")))
			require.NoError(t, err)
			require.Equal(t, test.want, columns(v), "%v", v.First)
		})
	}
}

func TestPositions(t *testing.T) {
	for name, test := range map[string]struct {
		spoil func(*truth)
		want  counts
	}{
		"right":           {func(*truth) {}, counts{}},
		"lost at the end": {func(x *truth) { x.rows = x.rows[:5] }, counts{1, 0, 0, 0, 0}},
		"hole":            {func(x *truth) { x.rows = slices.Delete(x.rows, 2, 3) }, counts{1, 0, 0, 1, 0}},
		"twice":           {func(x *truth) { x.rows = append(x.rows, judge.Row{Shard: shard, Position: 7, EventID: 2}) }, counts{0, 1, 0, 0, 0}},
		// 1 and 3 are of one entity, 1 and 2 are not.
		"entity out of order":       {func(x *truth) { x.rows[0].EventID, x.rows[2].EventID = 3, 1 }, counts{0, 0, 1, 0, 0}},
		"other order of entities":   {func(x *truth) { x.rows[0].EventID, x.rows[1].EventID = 2, 1 }, counts{}},
		"position of no event":      {func(x *truth) { x.rows = append(x.rows, judge.Row{Shard: shard, Position: 7, EventID: 99}) }, counts{0, 0, 0, 0, 1}},
		"position in another shard": {func(x *truth) { x.rows[5].Shard, x.rows[5].Position = (shard+1)%event.Shards, 1 }, counts{0, 0, 0, 0, 1}},
	} {
		t.Run(name, func(t *testing.T) {
			x := newTruth()
			test.spoil(x)
			_, v := x.log(x.facts())
			require.Equal(t, test.want, columns(v), "%v", v.First)
		})
	}
}

func TestStreams(t *testing.T) {
	for name, test := range map[string]struct {
		spoil func(*truth)
		want  counts
	}{
		"right":               {func(*truth) {}, counts{}},
		"trimmed":             {func(x *truth) { x.streams = x.streams[4:] }, counts{}},
		"hole":                {func(x *truth) { x.streams = slices.Delete(x.streams, 2, 3) }, counts{1, 0, 0, 1, 0}},
		"tail lost":           {func(x *truth) { x.streams = x.streams[:4] }, counts{2, 0, 0, 1, 0}},
		"emptied":             {func(x *truth) { x.streams = nil }, counts{6, 0, 0, 1, 0}},
		"twice":               {func(x *truth) { x.streams[5] = entry{"6-0", x.streams[4].fields} }, counts{1, 1, 0, 0, 1}},
		"swapped":             {func(x *truth) { x.streams[0].fields, x.streams[2].fields = x.streams[2].fields, x.streams[0].fields }, counts{0, 0, 1, 0, 2}},
		"other bytes":         {func(x *truth) { x.streams[3].fields["e"] += " " }, counts{0, 0, 0, 0, 1}},
		"other organisation":  {func(x *truth) { x.streams[3].fields["o"] = "2" }, counts{0, 0, 0, 0, 1}},
		"id is no position":   {func(x *truth) { x.streams[5].id = "1700000000000-3" }, counts{0, 0, 0, 1, 2}},
		"event without a log": {func(x *truth) { x.rows = x.rows[:5]; x.streams = x.streams[:5] }, counts{1, 0, 0, 0, 0}},
		"trimmed, and no log": {func(x *truth) { x.rows, x.streams = nil, x.streams[5:] }, counts{5, 0, 0, 0, 1}},
	} {
		t.Run(name, func(t *testing.T) {
			x := newTruth()
			test.spoil(x)
			f := x.facts()
			log, _ := x.log(f)
			s := judge.NewStreamJudge(f, log)
			for n := range event.Shards {
				if n == shard {
					for _, e := range x.streams {
						s.Add(shard, e.id, e.fields)
					}
				}
				s.EndShard(n)
			}
			v := s.Finish()
			require.Equal(t, test.want, columns(v), "%v", v.First)
		})
	}
}

func TestClients(t *testing.T) {
	got := func(x *truth, positions ...int64) (list []follow.Record) {
		for _, p := range positions {
			list = append(list, follow.Record{Kind: follow.Delivery, Position: p, EventID: p, Hash: envelope.Hash(x.events[p-1].AppendJSON(nil))})
		}
		return list
	}
	mark := func(p int64) follow.Record { return follow.Record{Kind: follow.Mark, Position: p} }
	whole := follow.Life{OrgID: 1, Start: 0, ToTheEnd: true}
	later := follow.Life{OrgID: 1, Start: -1, ToTheEnd: true}
	one := follow.Life{OrgID: 1, Start: 0, ToTheEnd: true, Filter: follow.Filter{AggregateType: "task", AggregateID: 1}}
	left := follow.Life{OrgID: 1, Start: 0}
	x := newTruth()
	otherBytes, otherEvent := got(x, 1, 2, 3, 4, 5, 6), got(x, 1, 2, 3, 4, 5, 6)
	otherBytes[3].Hash++
	otherEvent[3].EventID = 1
	for name, test := range map[string]struct {
		life    follow.Life
		records []follow.Record
		want    counts
	}{
		"right":                     {whole, got(x, 1, 2, 3, 4, 5, 6), counts{}},
		"came later":                {later, got(x, 4, 5, 6), counts{}},
		"came and saw nothing":      {later, nil, counts{}},
		"left early":                {left, got(x, 1, 2, 3), counts{}},
		"filtered":                  {one, append(got(x, 1, 3, 5), mark(6)), counts{}},
		"filtered, without marks":   {one, got(x, 1, 3, 5), counts{}},
		"lost one":                  {whole, got(x, 1, 2, 4, 5, 6), counts{1, 0, 0, 0, 0}},
		"lost the first":            {left, got(x, 2, 3), counts{1, 0, 0, 0, 0}},
		"lost the end":              {whole, got(x, 1, 2, 3, 4), counts{2, 0, 0, 0, 0}},
		"a mark hides a loss":       {one, append(got(x, 1, 3), mark(6)), counts{1, 0, 0, 0, 0}},
		"twice":                     {whole, got(x, 1, 2, 3, 3, 4, 5, 6), counts{0, 1, 0, 0, 0}},
		"back":                      {whole, got(x, 1, 2, 3, 4, 2, 5, 6), counts{0, 0, 1, 0, 0}},
		"a mark goes back":          {whole, append(got(x, 1, 2, 3, 4, 5, 6), mark(2)), counts{0, 0, 1, 0, 0}},
		"the filter let through":    {one, got(x, 1, 2, 3, 5), counts{0, 0, 0, 0, 1}},
		"another organisation's":    {follow.Life{OrgID: 22, Start: 0}, got(x, 1), counts{0, 0, 0, 0, 1}},
		"reset":                     {whole, append([]follow.Record{{Kind: follow.Reset, Position: 1}}, got(x, 1, 2, 3, 4, 5, 6)...), counts{0, 0, 0, 1, 0}},
		"other bytes":               {whole, otherBytes, counts{0, 0, 0, 0, 1}},
		"event at a wrong position": {whole, otherEvent, counts{0, 0, 0, 0, 1}},
		"position beyond the head":  {whole, append(got(x, 1, 2, 3, 4, 5, 6), follow.Record{Kind: follow.Delivery, Position: 7, EventID: 9}), counts{0, 0, 0, 0, 1}},
	} {
		t.Run(name, func(t *testing.T) {
			require.Equal(t, shard, event.ShardOf(22), "the other organisation must share the shard")
			f := x.facts()
			log, _ := x.log(f)
			c := judge.NewClients(f, log)
			err := c.Judge(test.life, func(visit func(follow.Record) error) error {
				for _, r := range test.records {
					if err := visit(r); err != nil {
						return err
					}
				}
				return nil
			})
			require.NoError(t, err)
			require.Equal(t, test.want, columns(c.Verdict()), "%v", c.Verdict().First)
		})
	}
}

func TestThePrintedTableNamesTheFirstOffenders(t *testing.T) {
	x := newTruth()
	x.rows = x.rows[:5]
	_, v := x.log(x.facts())
	var b strings.Builder
	require.NoError(t, judge.Print(&b, []*judge.Verdict{v}))
	require.Contains(t, b.String(), "event 6 (org 1, task.post_update, task#2, sequence 3, transaction 6")
	require.EqualValues(t, 1, judge.Failures([]*judge.Verdict{v}))
}
