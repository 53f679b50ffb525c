package sequence

import (
	"cmp"
	"slices"
)

// row is an event in the simulated table.
type row struct {
	txid   uint64
	id     int64
	shard  int
	entity int
}

// simTx is a running transaction. Its xid is 0 until it writes.
type simTx struct {
	xid   uint64
	rows  []row
	locks []int
}

// sim is as much of Postgres as sequencing rests on: transaction ids, snapshots, an id sequence that
// is drawn at writing and seen at commit, row locks, and a ledger with a unique key.
type sim struct {
	nextXid   uint64
	ended     uint64 // the greatest xid that has ended
	nextID    int64
	running   []*simTx
	heap      []row // committed, in the order of commits
	locked    map[int]*simTx
	ledger    []Cursor
	claimXids []uint64
	placed    []placed
	maxBytes  int64 // of an answer; 0 for no limit. A row has id % 7 bytes.
	hideCuts  bool
}

type placed struct {
	id       int64
	shard    int
	position int64
}

func newSim() *sim { return &sim{nextXid: 3, ended: 2, nextID: 1, locked: map[int]*simTx{}} }

func (s *sim) begin() *simTx {
	tx := &simTx{}
	s.running = append(s.running, tx)
	return tx
}

// write locks the entity, or reports that it must wait; then draws an xid if needed and an id.
func (s *sim) write(tx *simTx, entity int) bool {
	if holder := s.locked[entity]; holder != nil && holder != tx {
		return false
	}
	if tx.xid == 0 {
		tx.xid = s.nextXid
		s.nextXid++
	}
	if s.locked[entity] == nil {
		s.locked[entity] = tx
		tx.locks = append(tx.locks, entity)
	}
	tx.rows = append(tx.rows, row{tx.xid, s.nextID, entity % 2, entity})
	s.nextID++
	return true
}

func (s *sim) end(tx *simTx, commit bool) {
	if commit {
		s.heap = append(s.heap, tx.rows...)
	}
	s.ended = max(s.ended, tx.xid)
	for _, e := range tx.locks {
		delete(s.locked, e)
	}
	s.running = slices.DeleteFunc(s.running, func(t *simTx) bool { return t == tx })
}

// snapshot is like Postgres': xmax follows the greatest xid that has ended, and more may run beyond.
func (s *sim) snapshot() Snapshot {
	snap := Snapshot{Xmin: s.ended + 1, Xmax: s.ended + 1}
	for _, tx := range s.running {
		if tx.xid != 0 && tx.xid < snap.Xmax {
			snap.Xip = append(snap.Xip, tx.xid)
		}
	}
	slices.Sort(snap.Xip)
	if len(snap.Xip) > 0 {
		snap.Xmin = snap.Xip[0]
	}
	return snap
}

// answer does what the statements of internal/store do.
func (s *sim) answer(q Query) Answer {
	to := s.snapshot()
	if q.Paging != nil {
		to = *q.Paging
	}
	var found []row
	for _, r := range s.heap {
		fresh := r.txid >= q.Since.Xmax && r.id > q.Start
		late := slices.Contains(q.Since.Xip, r.txid) && r.id > q.Floor
		if (fresh || late) && to.Ended(r.txid) {
			found = append(found, r)
		}
	}
	if q.Paging != nil {
		slices.SortFunc(found, func(a, b row) int { return cmp.Compare(a.id, b.id) })
	}
	a := Answer{Snapshot: to}
	bytes := int64(0)
	for _, r := range found[:min(len(found), q.Limit)] {
		if bytes += r.id % 7; s.maxBytes > 0 && bytes > s.maxBytes && len(a.Events) > 0 {
			a.Cut = !s.hideCuts
			break
		}
		a.Events = append(a.Events, Event{ID: r.id, Shard: r.shard})
	}
	return a
}

// claim is the INSERT with its unique key; the claiming transaction draws an xid either way.
func (s *sim) claim(b *Batch) (xid uint64, won bool) {
	xid = s.nextXid
	s.nextXid++
	s.ended = max(s.ended, xid)
	if b.Cursor.Batch != int64(len(s.ledger))+1 {
		return xid, false
	}
	s.ledger = append(s.ledger, b.Cursor)
	s.claimXids = append(s.claimXids, xid)
	for _, e := range b.Events {
		s.placed = append(s.placed, placed{e.ID, e.Shard, e.Position})
	}
	return xid, true
}

// load makes a sequencer from the ledger, as a relay does that takes over. It is given every
// second bound only, since any subset must do.
func (s *sim) load(n int) *Sequencer {
	if len(s.ledger) == 0 {
		return New(First(Identity{}), nil, n)
	}
	var known []Bound
	for i := len(s.ledger) % 2; i < len(s.ledger); i += 2 {
		known = append(known, Bound{s.claimXids[i], s.ledger[i].MaxID})
	}
	return New(s.ledger[len(s.ledger)-1], known, n)
}

// verdict compares positions with what was committed.
type verdict struct{ lost, twice, gaps, disorder int }

func (s *sim) check() verdict {
	var v verdict
	position := map[int64]int64{}
	heads := map[int]int64{}
	for _, p := range s.placed {
		if _, again := position[p.id]; again {
			v.twice++
		}
		position[p.id] = p.position
		heads[p.shard]++
		if p.position != heads[p.shard] {
			v.gaps++
		}
	}
	last := map[int]int64{}
	for _, r := range s.heap { // in the order of commits
		p, ok := position[r.id]
		switch {
		case !ok:
			v.lost++
		case p < last[r.entity]:
			v.disorder++
		default:
			last[r.entity] = p
		}
	}
	return v
}
