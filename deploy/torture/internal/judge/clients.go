package judge

import (
	"fmt"

	"github.com/sametick/sametick/deploy/torture/internal/follow"
	"github.com/sametick/sametick/pkg/event"
)

// Clients judges P8 and P10 over many clients.
type Clients struct {
	facts *Facts
	log   *Log
	v     *Verdict
}

// NewClients starts with no client.
func NewClients(f *Facts, l *Log) *Clients {
	return &Clients{facts: f, log: l, v: &Verdict{What: "SSE clients (P8 P10)"}}
}

// Verdict is the sum over the clients so far.
func (c *Clients) Verdict() *Verdict { return c.v }

// Judge takes one client's life: nothing it should have seen between its first and its last id is
// missing, nothing comes twice or back, and nothing is there that it must not see. A client that
// lived to the end, after everything had healed, must have come to the head of its shard.
func (c *Clients) Judge(life follow.Life, read func(visit func(follow.Record) error) error) error {
	one := &client{Clients: c, life: life, shard: event.ShardOf(life.OrgID), last: life.Start}
	if err := read(one.take); err != nil {
		return fmt.Errorf("record of %s: %w", life.Name, err)
	}
	if life.ToTheEnd && one.last >= 0 {
		one.walk(c.log.Head(one.shard)+1, "before the head")
	}
	return nil
}

// client walks the log beside one client's record.
type client struct {
	*Clients
	life  follow.Life
	shard int
	// last is the newest position the client knows of, -1 before the first.
	last int64
}

// take judges one record.
func (c *client) take(r follow.Record) error {
	v := c.v
	switch {
	case r.Kind == follow.Reset:
		// Retention drops nothing in a run, and no client asks for a position that was never.
		v.note(&v.Gaps, "%s was told to reset after position %d", c.life.Name, c.last)
	case r.Kind == follow.Mark:
		if r.Position < c.last {
			v.note(&v.OutOfOrder, "%s: id %d after %d", c.life.Name, r.Position, c.last)
			return nil
		}
		if c.last >= 0 {
			c.walk(r.Position+1, "before the id-only block")
		}
		c.last = r.Position
	case r.Kind == follow.Delivery:
		v.Checked++
		c.deliver(r)
	}
	return nil
}

// deliver judges one event that the client received.
func (c *client) deliver(r follow.Record) {
	v := c.v
	if r.Position == c.last {
		v.note(&v.Twice, "%s: position %d (event %d) again", c.life.Name, r.Position, r.EventID)
		return
	}
	if r.Position < c.last {
		v.note(&v.OutOfOrder, "%s: position %d (event %d) after %d", c.life.Name, r.Position, r.EventID, c.last)
		return
	}
	if c.last >= 0 {
		c.walk(r.Position, "before the next event")
	}
	c.last = r.Position
	i := c.log.fact(c.shard, r.Position)
	if i == absent || c.facts.list[i].ID != r.EventID {
		v.note(&v.Foreign, "%s: position %d came with event %d, which is not the log's", c.life.Name, r.Position, r.EventID)
		return
	}
	if !c.selects(i) {
		v.note(&v.Foreign, "%s: %s is not for this client (%v)", c.life.Name, c.facts.describe(int(i)), c.life.Filter)
	}
	if c.facts.list[i].Hash != r.Hash {
		v.note(&v.Foreign, "%s: %s came with other bytes", c.life.Name, c.facts.describe(int(i)))
	}
}

// walk notes what the client should have had in (last, before) as lost.
func (c *client) walk(before int64, when string) {
	for p := c.last + 1; p < before; p++ {
		if i := c.log.fact(c.shard, p); i != absent && c.selects(i) {
			c.v.note(&c.v.Lost, "%s: position %d, %s, is missing %s", c.life.Name, p, c.facts.describe(int(i)), when)
		}
	}
}

// selects tells whether an event is the client's to see.
func (c *client) selects(i int32) bool {
	a := &c.facts.list[i]
	e := c.facts.entities[a.entity]
	return e.OrgID == c.life.OrgID && c.life.Filter.Matches(c.facts.kinds[a.kind], e.Type, e.ID)
}

// Target is the newest position that a client of this kind must come to; 0 when there is none.
func (c *Clients) Target(life follow.Life) int64 {
	one := &client{Clients: c, life: life, shard: event.ShardOf(life.OrgID)}
	for p := c.log.Head(one.shard); p > 0; p-- {
		if i := c.log.fact(one.shard, p); i != absent && one.selects(i) {
			return p
		}
	}
	return 0
}
