package sequence

import (
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// relay is something that gives positions in the simulated Postgres.
type relay interface {
	// step does one poll, or one claim of what the last poll found.
	step(s *sim)
	// idle tells that a step found nothing more to do.
	idle() bool
}

// ours is the product: its poll and its claim are separate steps, so that anything may come between.
type ours struct {
	n       int
	seq     *Sequencer
	pending *Batch
	resting bool
}

func (o *ours) idle() bool { return o.resting }

func (o *ours) step(s *sim) {
	o.resting = false
	if o.seq == nil {
		o.seq = s.load(o.n)
	}
	if o.pending != nil {
		b := o.pending
		o.pending = nil
		if xid, won := s.claim(b); won {
			o.seq.Claimed(b, xid)
		} else {
			o.seq = nil
		}
		return
	}
	var again bool
	o.pending, again = o.seq.Take(s.answer(o.seq.Next()))
	o.resting = o.pending == nil && !again
}

// crash forgets all that is in memory.
func (o *ours) crash() { o.seq, o.pending = nil, nil }

// greatestID is the first known-wrong relay: id > last.
type greatestID struct {
	last int64
	rest bool
}

func (g *greatestID) idle() bool { return g.rest }

func (g *greatestID) step(s *sim) {
	found := slices.DeleteFunc(slices.Clone(s.heap), func(r row) bool { return r.id <= g.last })
	g.rest = len(found) == 0
	slices.SortFunc(found, func(a, b row) int { return int(a.id - b.id) })
	for _, r := range found {
		g.last = r.id
		place(s, r)
	}
}

// watermark is the second: it pages by (txid, id) below xmin, as most outboxes on Postgres do.
type watermark struct {
	txid uint64
	rest bool
}

func (w *watermark) idle() bool { return w.rest }

func (w *watermark) step(s *sim) {
	xmin := s.snapshot().Xmin
	found := slices.DeleteFunc(slices.Clone(s.heap), func(r row) bool { return r.txid < w.txid || r.txid >= xmin })
	w.rest, w.txid = len(found) == 0, xmin
	slices.SortFunc(found, func(a, b row) int {
		if a.txid != b.txid {
			return int(int64(a.txid) - int64(b.txid))
		}
		return int(a.id - b.id)
	})
	for _, r := range found {
		place(s, r)
	}
}

func place(s *sim, r row) {
	var head int64
	for _, p := range s.placed {
		if p.shard == r.shard {
			head = max(head, p.position)
		}
	}
	s.placed = append(s.placed, placed{r.id, r.shard, head + 1})
}

// run plays a random history of writers and relays, lets all writers end, and drains.
func run(t *rapid.T, s *sim, relays []relay, onCrash func(i int)) verdict {
	coin := rapid.IntRange(0, 99)
	for range rapid.IntRange(1, 150).Draw(t, "steps") {
		switch c := coin.Draw(t, "what"); {
		case c < 10 || len(s.running) == 0:
			s.begin()
		case c < 50:
			tx := rapid.SampledFrom(s.running).Draw(t, "writer")
			s.write(tx, rapid.IntRange(0, 3).Draw(t, "entity"))
		case c < 65:
			tx := rapid.SampledFrom(s.running).Draw(t, "ending")
			s.end(tx, coin.Draw(t, "commit") < 80)
		case c < 95:
			rapid.SampledFrom(relays).Draw(t, "relay").step(s)
		case onCrash != nil:
			onCrash(rapid.IntRange(0, len(relays)-1).Draw(t, "crashed"))
		}
	}
	for _, tx := range slices.Clone(s.running) {
		s.end(tx, true)
	}
	for _, r := range relays {
		for calm := 0; calm < 2; {
			if r.step(s); r.idle() {
				calm++
			}
		}
	}
	return s.check()
}

func TestEachEventOnceInTheOrderOfCommits(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var relays []relay
		for range rapid.IntRange(1, 3).Draw(t, "relays") {
			relays = append(relays, &ours{n: rapid.IntRange(1, 6).Draw(t, "n")})
		}
		crash := func(i int) { relays[i].(*ours).crash() }
		s := newSim()
		s.maxBytes = rapid.Int64Range(0, 20).Draw(t, "bytes")
		if v := run(t, s, relays, crash); v != (verdict{}) {
			t.Fatalf("%+v", v)
		}
	})
}

// careless takes an answer that was cut for a whole one.
type careless struct{ ours }

func (o *careless) step(s *sim) {
	s.hideCuts = true
	o.ours.step(s)
}

// caught reports whether the checker finds fault with a relay in some of many histories.
func caught(t *testing.T, fresh func() relay, fault func(verdict) bool) bool {
	t.Helper()
	found := false
	rapid.Check(t, func(t *rapid.T) {
		s := newSim()
		s.maxBytes = 10
		found = found || fault(run(t, s, []relay{fresh()}, nil))
	})
	return found
}

func TestCheckerCatchesWrongRelays(t *testing.T) {
	require.True(t, caught(t, func() relay { return &greatestID{} }, func(v verdict) bool { return v.lost > 0 }),
		"id > last must lose events")
	require.True(t, caught(t, func() relay { return &watermark{} }, func(v verdict) bool { return v.disorder > 0 }),
		"a watermark must break an entity's order")
}

func TestControlCutAnswers(t *testing.T) {
	require.True(t, caught(t, func() relay { return &careless{ours{n: 5}} }, func(v verdict) bool { return v.lost > 0 }))
}

// sharp is ours with bounds one batch too new: the mistake that the package comment warns of.
type sharp struct{ ours }

func (o *sharp) step(s *sim) {
	o.ours.step(s)
	if o.seq != nil {
		c := o.seq.Cursor()
		o.seq.bounds = Bounds{list: []Bound{{Xid: 0, MaxID: c.MaxID}}}
	}
}

func TestCheckerCatchesBoundsThatAreTooSharp(t *testing.T) {
	require.True(t, caught(t, func() relay { return &sharp{ours{n: 3}} }, func(v verdict) bool { return v.lost > 0 }))
}

// byTxid is ours with pages in the order of txid instead of id.
type byTxid struct{ ours }

func (o *byTxid) step(s *sim) {
	slices.SortStableFunc(s.heap, func(a, b row) int { return int(int64(a.txid) - int64(b.txid)) })
	if o.seq == nil {
		o.seq = s.load(o.n)
	}
	q := o.seq.Next()
	if o.pending == nil && q.Paging != nil {
		paging := q.Paging
		q.Paging = nil // the simulation sorts by id only when paging
		q.Limit = o.n
		a := s.answer(q)
		a.Events = slices.DeleteFunc(a.Events, func(e Event) bool {
			i := slices.IndexFunc(s.heap, func(r row) bool { return r.id == e.ID })
			return !paging.Ended(s.heap[i].txid)
		})
		o.pending, _ = o.seq.Take(a)
		o.resting = false
		return
	}
	o.ours.step(s)
}

func TestCheckerCatchesPagesByTxid(t *testing.T) {
	require.True(t, caught(t, func() relay { return &byTxid{ours{n: 2}} },
		func(v verdict) bool { return v.lost > 0 || v.disorder > 0 || v.twice > 0 }))
}
