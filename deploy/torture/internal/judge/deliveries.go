package judge

import (
	"fmt"
	"math"

	"github.com/sametick/sametick/deploy/torture/internal/hooks"
)

// endpointType is the aggregate of endpoints' own events, which no writer of the harness writes.
const endpointType = "webhook_endpoint"

// Deliveries judges webhooks, pair by pair of an endpoint and a committed event that it selects, of those after its
// creation:
//
//   - each pair is accepted by the receiver at least once; what comes again is counted, and is no failure as long as it
//     has the same webhook-id and bytes;
//   - at an ordered endpoint no pair is accepted for the first time after a later one has reached the receiver, whatever
//     it answered. What comes again of an accepted pair is no inversion;
//   - nothing else comes: not signed for the endpoint, of another organisation, not selected, with other bytes;
//   - history has one delivery for each pair, which was delivered, and never says so more often than the receiver
//     accepted it. It may say so more than once, when a replica that was stopped and the one that took over both saw an
//     answer. An attempt may be cancelled only beside one that delivered.
type Deliveries struct {
	facts     *Facts
	log       *Log
	endpoints map[int64]*endpointCase
	received  *Verdict
	history   *Verdict
	counts    DeliveryCounts
}

// DeliveryCounts is what a run came to.
type DeliveryCounts struct {
	// Pairs were to be delivered. Repeats are requests beyond the first that a receiver accepted of a pair, Refused those it
	// did not accept, Twice the pairs that history has as delivered more than once.
	Pairs, Repeats, Refused, Twice int64
}

// endpointCase is what is known of an endpoint. The slices go by index of Facts.
type endpointCase struct {
	*hooks.Endpoint
	from     int64
	accepted []uint8
	saved    []bool
	// high is the highest position that has reached the receiver.
	high int64
}

// NewDeliveries starts with nothing received.
func NewDeliveries(f *Facts, l *Log, endpoints []*hooks.Endpoint) *Deliveries {
	d := &Deliveries{facts: f, log: l, endpoints: map[int64]*endpointCase{},
		received: &Verdict{What: "webhooks received"}, history: &Verdict{What: "webhooks in history"}}
	for _, e := range endpoints {
		d.endpoints[e.ID] = &endpointCase{Endpoint: e, from: d.begins(e), accepted: make([]uint8, f.Len()), saved: make([]bool, f.Len())}
	}
	return d
}

// begins is the position of an endpoint's creation; 0 when it has no event, and gets everything.
func (d *Deliveries) begins(e *hooks.Endpoint) int64 {
	entity, ok := d.facts.entityOf[Entity{OrgID: e.OrgID, Type: endpointType, ID: e.ID}]
	for i := range d.facts.list {
		if ok && d.facts.list[i].entity == entity {
			return d.log.at[i]
		}
	}
	return 0
}

// wants tells whether an event is the endpoint's to get. One without a position is lost already, by the relay.
func (d *Deliveries) wants(e *endpointCase, i int) bool {
	a := &d.facts.list[i]
	of := d.facts.entities[a.entity]
	return of.OrgID == e.OrgID && d.log.at[i] > e.from && e.Selects(d.facts.kinds[a.kind], of.Type, of.ID)
}

// pair finds the pair of an endpoint and an event; a failure of v when there is none.
func (d *Deliveries) pair(v *Verdict, what string, endpointID, eventID int64) (e *endpointCase, i int) {
	e, i = d.endpoints[endpointID], d.facts.find(eventID)
	switch {
	case e == nil || i < 0:
		v.note(&v.Foreign, "%s of event %d to endpoint %d, one of which does not exist", what, eventID, endpointID)
	case !d.wants(e, i):
		v.note(&v.Foreign, "%s of %s to %s, which it is not for", what, d.facts.describe(i), e.Name())
	default:
		return e, i
	}
	return nil, 0
}

// Take judges the next request in the order in which they came. It never fails.
func (d *Deliveries) Take(r hooks.Receipt) error {
	v := d.received
	v.Checked++
	if r.Answer == hooks.Forged {
		v.note(&v.Foreign, "a request for event %d at endpoint %d was refused as forged; the record says why", r.EventID, r.EndpointID)
		return nil
	}
	e, i := d.pair(v, "a request", r.EndpointID, r.EventID)
	if e == nil {
		return nil
	}
	if r.Hash != d.facts.list[i].Compact {
		v.note(&v.Foreign, "%s came to %s with other bytes", d.facts.describe(i), e.Name())
	}
	first, position := e.accepted[i] == 0, d.log.at[i]
	if r.Answer == hooks.Refused {
		d.counts.Refused++
	} else {
		if e.Ordered && first && position < e.high {
			v.note(&v.OutOfOrder, "%s: %s, position %d, was first accepted after position %d had come", e.Name(), d.facts.describe(i), position, e.high)
		}
		if !first {
			d.counts.Repeats++
		}
		e.accepted[i] = min(e.accepted[i], math.MaxUint8-1) + 1
	}
	e.high = max(e.high, position)
	return nil
}

// History is what the product has of a pair.
type History struct {
	EndpointID, EventID int64
	// Deliveries are how many were made of the pair; Delivered, Failed and Cancelled attempts by outcome; Waiting are rows of the
	// queue.
	Deliveries, Delivered, Failed, Cancelled, Waiting int
}

// Recall judges what history has of a pair, once all receipts are taken.
func (d *Deliveries) Recall(h History) {
	v := d.history
	v.Checked++
	e, i := d.pair(v, "a delivery", h.EndpointID, h.EventID)
	if e == nil {
		return
	}
	at := fmt.Sprintf("%s to %s", d.facts.describe(i), e.Name())
	if h.Deliveries > 1 {
		v.note(&v.Twice, "%s was scheduled %d times", at, h.Deliveries)
	}
	if accepted := int(e.accepted[i]); h.Delivered > accepted && accepted < math.MaxUint8 {
		v.note(&v.Foreign, "%s was delivered %d times by its history, accepted %d times", at, h.Delivered, accepted)
	}
	if h.Waiting > 0 || h.Failed > 0 || h.Delivered == 0 {
		v.note(&v.Lost, "%s has not ended well: %+v", at, h)
	}
	if h.Delivered > 1 {
		d.counts.Twice++
	}
	e.saved[i] = true
}

// Finish notes the pairs that are missing.
func (d *Deliveries) Finish() ([]*Verdict, DeliveryCounts) {
	for _, e := range d.endpoints {
		for i := range d.facts.list {
			if !d.wants(e, i) {
				continue
			}
			d.counts.Pairs++
			if e.accepted[i] == 0 {
				d.received.note(&d.received.Lost, "%s, position %d, was never accepted by %s", d.facts.describe(i), d.log.at[i], e.Name())
			}
			if !e.saved[i] {
				d.history.note(&d.history.Lost, "%s, position %d, to %s is not in history", d.facts.describe(i), d.log.at[i], e.Name())
			}
		}
	}
	return []*Verdict{d.received, d.history}, d.counts
}
