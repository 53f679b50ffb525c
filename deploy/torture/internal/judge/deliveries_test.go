package judge_test

import (
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sametick/sametick/deploy/torture/internal/hooks"
	"github.com/sametick/sametick/deploy/torture/internal/judge"
	"github.com/sametick/sametick/pkg/event"
)

// hookTruth is a right run of two endpoints over the events of truth: 7 gets all of task 1 in order (events 1, 3, 5), 8 gets
// everything in any order.
type hookTruth struct {
	*truth
	endpoints []*hooks.Endpoint
	receipts  []hooks.Receipt
	history   []judge.History
}

func newHookTruth() *hookTruth {
	t := &hookTruth{truth: newTruth(), endpoints: []*hooks.Endpoint{
		{ID: 7, OrgID: 1, Ordered: true, IDs: []int64{1}}, {ID: 8, OrgID: 1, Types: []string{"task"}}}}
	for _, id := range []int64{2, 1, 4, 3, 6, 5} {
		t.accept(8, id)
	}
	for _, id := range []int64{1, 3, 5} {
		t.accept(7, id)
	}
	return t
}

// accept is a delivery that went well at once.
func (t *hookTruth) accept(endpoint, id int64) {
	t.receipts = append(t.receipts, t.receipt(hooks.Accepted, endpoint, id))
	t.history = append(t.history, judge.History{EndpointID: endpoint, EventID: id, Deliveries: 1, Delivered: 1})
}

func (t *hookTruth) receipt(a hooks.Answer, endpoint, id int64) hooks.Receipt {
	var hash uint64
	f := t.facts()
	for i := range f.Len() {
		if f.At(i).ID == id {
			hash = f.At(i).Compact
		}
	}
	return hooks.Receipt{Answer: a, EndpointID: endpoint, EventID: id, Hash: hash}
}

// add puts receipts before the n-th from the end.
func (t *hookTruth) add(n int, list ...hooks.Receipt) {
	t.receipts = slices.Insert(t.receipts, len(t.receipts)-n, list...)
}

func (t *hookTruth) of(endpoint, id int64) *judge.History {
	for i := range t.history {
		if t.history[i].EndpointID == endpoint && t.history[i].EventID == id {
			return &t.history[i]
		}
	}
	panic("no such pair")
}

// drop takes out what was received of a pair.
func (t *hookTruth) drop(endpoint, id int64) {
	t.receipts = slices.DeleteFunc(t.receipts, func(r hooks.Receipt) bool { return r.EndpointID == endpoint && r.EventID == id })
}

func TestDeliveries(t *testing.T) {
	for name, test := range map[string]struct {
		spoil             func(*hookTruth)
		received, history counts
	}{
		"right":                  {func(*hookTruth) {}, counts{}, counts{}},
		"refused, then accepted": {func(x *hookTruth) { x.add(2, x.receipt(hooks.Refused, 7, 3), x.receipt(hooks.Refused, 7, 3)) }, counts{}, counts{}},
		"sent again after a crash": {func(x *hookTruth) {
			x.add(1, x.receipt(hooks.Accepted, 7, 1), x.receipt(hooks.Accepted, 7, 3))
			x.add(0, x.receipt(hooks.Accepted, 8, 1))
		}, counts{}, counts{}},
		"sent again by two holders, both saved": {func(x *hookTruth) {
			x.add(0, x.receipt(hooks.Accepted, 8, 1))
			x.of(8, 1).Delivered = 2
			x.of(8, 1).Cancelled = 1
		}, counts{}, counts{}},
		"never sent": {func(x *hookTruth) {
			x.drop(8, 4)
			x.history = slices.DeleteFunc(x.history, func(h judge.History) bool { return h.EndpointID == 8 && h.EventID == 4 })
		}, counts{1, 0, 0, 0, 0}, counts{1, 0, 0, 0, 0}},
		"sent and never accepted": {func(x *hookTruth) {
			x.drop(8, 4)
			x.add(0, x.receipt(hooks.Refused, 8, 4))
			x.of(8, 4).Delivered, x.of(8, 4).Waiting = 0, 1
		}, counts{1, 0, 0, 0, 0}, counts{1, 0, 0, 0, 0}},
		"acknowledged by nobody, history says delivered": {func(x *hookTruth) { x.drop(8, 4) }, counts{1, 0, 0, 0, 0}, counts{0, 0, 0, 0, 1}},
		"delivered more often than accepted":             {func(x *hookTruth) { x.of(8, 1).Delivered = 2 }, counts{}, counts{0, 0, 0, 0, 1}},
		"not saved":                                      {func(x *hookTruth) { x.history = x.history[1:] }, counts{}, counts{1, 0, 0, 0, 0}},
		"still waiting":                                  {func(x *hookTruth) { x.of(8, 1).Waiting = 1 }, counts{}, counts{1, 0, 0, 0, 0}},
		"given up":                                       {func(x *hookTruth) { x.of(8, 1).Failed = 1 }, counts{}, counts{1, 0, 0, 0, 0}},
		"cancelled":                                      {func(x *hookTruth) { x.of(8, 1).Delivered, x.of(8, 1).Cancelled = 0, 1 }, counts{}, counts{1, 0, 0, 0, 0}},
		"scheduled twice":                                {func(x *hookTruth) { x.of(8, 1).Deliveries = 2 }, counts{}, counts{0, 1, 0, 0, 0}},
		"inversion": {func(x *hookTruth) {
			x.drop(7, 3)
			x.add(0, x.receipt(hooks.Accepted, 7, 3))
		}, counts{0, 0, 1, 0, 0}, counts{}},
		"inversion by a request that was refused": {func(x *hookTruth) { x.add(2, x.receipt(hooks.Refused, 7, 5)) }, counts{0, 0, 1, 0, 0}, counts{}},
		"forged":        {func(x *hookTruth) { x.add(0, x.receipt(hooks.Forged, 7, 3)) }, counts{0, 0, 0, 0, 1}, counts{}},
		"other bytes":   {func(x *hookTruth) { x.receipts[2].Hash++ }, counts{0, 0, 0, 0, 1}, counts{}},
		"not selected":  {func(x *hookTruth) { x.accept(7, 2) }, counts{0, 0, 0, 0, 1}, counts{0, 0, 0, 0, 1}},
		"unknown event": {func(x *hookTruth) { x.accept(7, 99) }, counts{0, 0, 0, 0, 1}, counts{0, 0, 0, 0, 1}},
		"another organisation's": {func(x *hookTruth) {
			x.endpoints = append(x.endpoints, &hooks.Endpoint{ID: 9, OrgID: 22})
			x.accept(9, 2)
		}, counts{0, 0, 0, 0, 1}, counts{0, 0, 0, 0, 1}},
		"before its creation": {func(x *hookTruth) {
			x.events = append(x.events, event.Event{ID: 7, OrgID: 1, AggregateType: "webhook_endpoint", AggregateID: 9, EventType: "webhook_endpoint.post_create"})
			x.rows = append(x.rows, judge.Row{Shard: shard, Position: 7, EventID: 7})
			x.endpoints = append(x.endpoints, &hooks.Endpoint{ID: 9, OrgID: 1})
			x.accept(9, 2)
		}, counts{0, 0, 0, 0, 1}, counts{0, 0, 0, 0, 1}},
	} {
		t.Run(name, func(t *testing.T) {
			x := newHookTruth()
			test.spoil(x)
			f := x.facts()
			log, _ := x.log(f)
			d := judge.NewDeliveries(f, log, x.endpoints)
			for _, r := range x.receipts {
				require.NoError(t, d.Take(r))
			}
			for _, h := range x.history {
				d.Recall(h)
			}
			verdicts, counted := d.Finish()
			require.Equal(t, test.received, columns(verdicts[0]), "%v", verdicts[0].First)
			require.Equal(t, test.history, columns(verdicts[1]), "%v", verdicts[1].First)
			require.EqualValues(t, 9, counted.Pairs)
		})
	}
}
