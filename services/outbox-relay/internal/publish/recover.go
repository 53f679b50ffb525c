package publish

import (
	"bytes"
	"context"

	"github.com/sametick/sametick/pkg/event"
	"github.com/sametick/sametick/services/outbox-relay/internal/sequence"
)

// recover compares every stream with the log, and marks as lagging what must be filled.
func (p *Publisher) recover(ctx context.Context) error {
	p.takeAskers()
	// The owner before the streams: what another relay of ours found foreign is cleared before it is noted.
	mine, owner, err := p.owners(ctx)
	if err != nil {
		return err
	}
	tails, err := p.Streams.Tails(ctx)
	if err != nil {
		return err
	}
	// The ledger after the streams: what another relay publishes meanwhile is in the ledger before.
	heads, err := p.Ledger.Heads(ctx)
	if err != nil {
		return err
	}
	kept, err := p.Ledger.HeadsAt(ctx, p.Retention)
	if err != nil {
		return err
	}
	p.disown(ctx, &tails, heads, mine, owner)
	if p.tellAhead(tails, heads) {
		return errAhead
	}
	for i := range tails {
		good, err := p.continues(ctx, i, tails[i], kept[i])
		if err != nil {
			return err
		}
		if good {
			p.stands(i, tails[i].Last, tails[i].Last)
		} else if err := p.rebuild(ctx, i, tails[i], heads[i], kept[i]); err != nil {
			return err
		}
		p.lagging[i] = p.through[i] < heads[i]
	}
	if owner != mine { // not before all are cleared: a crash in between must find them foreign again
		if err := p.Owner.SetOwner(ctx, mine); err != nil {
			return err
		}
	}
	p.Stats.Compared.Add(1)
	for _, c := range p.owed {
		close(c)
	}
	p.owed = nil
	return nil
}

// owners names the database, and the one that the streams are of.
func (p *Publisher) owners(ctx context.Context) (mine, owner string, err error) {
	if mine, err = p.Database(ctx); err != nil {
		return "", "", err
	}
	owner, err = p.Owner.Owner(ctx)
	return mine, owner, err
}

// disown makes all entries foreign that are not of this database, or of one that was begun anew: their positions and
// envelopes look like ours, and readers would be served a stranger's events.
func (p *Publisher) disown(ctx context.Context, tails *[event.Shards]Tail, heads sequence.Positions, mine, owner string) {
	if owner == mine && heads != (sequence.Positions{}) {
		return
	}
	found := false
	for i := range tails {
		if tails[i].Length > 0 {
			tails[i].Foreign, found = true, true
		}
	}
	if found {
		p.Logger.WarnContext(ctx, "the streams are not of this database, clearing all", "owner", owner, "database", mine)
	}
}

// takeAskers notes who waits for this comparison, or for one that failed; not who asks from now on.
func (p *Publisher) takeAskers() {
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case <-p.resync:
	default:
	}
	if p.waiting != nil {
		p.owed = append(p.owed, p.waiting)
		p.waiting = nil
	}
}

// tellAhead reports streams of ours that have more than Postgres.
func (p *Publisher) tellAhead(tails [event.Shards]Tail, heads sequence.Positions) bool {
	var past sequence.Positions
	found := false
	for i, t := range tails {
		if !t.Foreign && t.Last > heads[i] {
			past[i], found = t.Last, true
		}
	}
	if found {
		select {
		case <-p.ahead: // an older sight of the same
		default:
		}
		p.ahead <- past
	}
	return found
}

// continues tells whether a stream can be added to: it is whole, reaches back as far as is kept, and its
// last entry is what the log has at that position.
func (p *Publisher) continues(ctx context.Context, shard int, t Tail, kept int64) (bool, error) {
	if t.Last == 0 || t.Last < kept || !t.Whole() {
		return false, nil
	}
	if t.First > kept+1 { // it was emptied and begun anew, unless the log has nothing older itself
		page, err := p.Log.Read(ctx, shard, kept, 1, fillBytes, 0)
		if err != nil {
			return false, err
		}
		if len(page.Events) > 0 && page.Events[0].Position < t.First {
			return false, nil
		}
	}
	page, err := p.Log.Read(ctx, shard, t.Last-1, 1, fillBytes, 0)
	if err != nil {
		return false, err
	}
	if len(page.Events) == 0 || page.Events[0].Position != t.Last {
		return true, nil // dropped by retention, or jumped over: nothing to compare with
	}
	return bytes.Equal(page.Events[0].Envelope, t.Envelope), nil
}

// rebuild empties a stream, to be filled from what is kept on.
func (p *Publisher) rebuild(ctx context.Context, shard int, t Tail, head, kept int64) error {
	if t.Last != 0 || t.Foreign {
		p.Logger.WarnContext(ctx, "a stream is not what the position log says, filling it anew", "shard", shard,
			"first", t.First, "last", t.Last, "length", t.Length, "head", head)
	}
	if head != 0 || t.Last != 0 || t.Foreign {
		p.Stats.Rebuilt.Add(1)
		// Also when it is empty: its last ID, which outlives its entries, would refuse ours.
		if err := p.Cutter.Clear(ctx, shard); err != nil {
			return err
		}
	}
	if p.announced[shard] == 0 { // history is not news
		p.announced[shard] = head
	}
	p.stands(shard, 0, kept)
	return nil
}

// stands notes where a stream ends, and up to where it holds all that the log has.
func (p *Publisher) stands(shard int, end, through int64) {
	p.end[shard], p.through[shard] = end, through
	p.announced[shard] = max(p.announced[shard], end)
	var sum int64
	for _, t := range p.through {
		sum += t
	}
	p.Stats.Through.Store(sum)
}

// fill adds the next page of the log to each stream that lags. Batches go on in between.
func (p *Publisher) fill(ctx context.Context) error {
	var (
		groups   []Group
		throughs []int64
	)
	for i := range p.lagging {
		if !p.lagging[i] {
			continue
		}
		page, err := p.Log.Read(ctx, i, p.through[i], fillEvents, fillBytes, 0)
		if err != nil {
			return err
		}
		p.lagging[i] = page.Through < page.Head
		if len(page.Events) == 0 {
			p.stands(i, p.end[i], max(p.through[i], page.Through))
			continue
		}
		groups = append(groups, Group{Shard: i, After: p.end[i], Events: page.Events, Announce: p.announced[i]})
		throughs = append(throughs, page.Through)
	}
	if len(groups) == 0 {
		return nil
	}
	replies, err := p.Streams.Add(ctx, groups)
	if err != nil {
		return err
	}
	for i := range groups {
		g := &groups[i]
		if Judge(g, replies[i]) != Added {
			return errDisturbed
		}
		p.stands(g.Shard, g.End(), throughs[i])
		p.Stats.Refilled.Add(int64(len(g.Events)))
	}
	return nil
}
