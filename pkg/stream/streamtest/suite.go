package streamtest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/sametick/sametick/pkg/event"
	"github.com/sametick/sametick/pkg/stream"
)

// Fixture is one way of reading, with a log of its own.
type Fixture struct {
	Source *stream.Source
	Log    *Log
	// Publish makes what was appended readable; nil where the log alone is read.
	Publish func(ctx context.Context) error
	// Faults are what may befall it, by name. Each leaves it able to recover.
	Faults map[string]func(ctx context.Context) error
}

// patience bounds every wait of the suite: what takes longer is lost.
const patience = 20 * time.Second

// Run holds a way of reading to the contract. fresh gives a new fixture, whose life is t's.
func Run(t *testing.T, fresh func(t *testing.T) *Fixture) {
	t.Helper()
	for name, test := range map[string]func(*testing.T, *Fixture){
		"from anywhere": fromAnywhere, "one organisation": oneOrganisation, "live": live,
		"positions that do not exist": jumped, "retention": retention, "shards come and go": comeAndGo,
	} {
		t.Run(name, func(t *testing.T) { test(t, fresh(t)) })
	}
	for name := range fresh(t).Faults {
		t.Run("fault/"+name, func(t *testing.T) {
			f := fresh(t)
			fault(t, f, f.Faults[name])
		})
	}
	t.Run("random", func(t *testing.T) { random(t, fresh(t)) })
}

// Orgs gives n organisations of one shard: what a reader of one must never see of the other.
func Orgs(shard, n int) []int64 {
	var out []int64
	for org := int64(1); len(out) < n; org++ {
		if event.ShardOf(org) == shard {
			out = append(out, org)
		}
	}
	return out
}

type tester interface {
	Helper()
	Fatalf(format string, args ...any)
}

func must(t tester, err error) {
	t.Helper()
	if err != nil {
		t.Fatalf("%v", err)
	}
}

func (f *Fixture) append(ctx context.Context, t tester, n int, orgs ...int64) {
	t.Helper()
	for i := range n {
		f.Log.Append(orgs[i%len(orgs)], "task", "post_update", int64(i+1), "a\nb")
	}
	f.publish(ctx, t)
}

func (f *Fixture) publish(ctx context.Context, t tester) {
	t.Helper()
	if f.Publish != nil {
		must(t, f.Publish(ctx))
	}
}

// Check tells how what a reader got after a position differs from the log; nil when it does not.
func Check(log *Log, shard int, after, org int64, got []stream.Entry) error {
	want := log.Entries(shard, after, org)
	for i := range min(len(want), len(got)) {
		w, g := want[i], got[i]
		if w.Position != g.Position || w.OrgID != g.OrgID || w.EventType != g.EventType || w.AggregateType != g.AggregateType ||
			w.AggregateID != g.AggregateID || w.Traceparent != g.Traceparent || string(w.Envelope) != string(g.Envelope) {
			return fmt.Errorf("shard %d, entry %d after %d: got %+v, want %+v", shard, i, after, g, w)
		}
	}
	if len(got) != len(want) {
		return fmt.Errorf("shard %d after %d: got %d entries, want %d", shard, after, len(got), len(want))
	}
	return nil
}

// Reader collects what a follower gives and checks that stretches join.
type Reader struct {
	F   *stream.Follower
	At  map[int]int64
	Got map[int][]stream.Entry
}

// NewReader follows shards from positions. The caller closes F.
func NewReader(s *stream.Source, from map[int]int64) *Reader {
	r := &Reader{F: s.Follow(), At: from, Got: map[int][]stream.Entry{}}
	for shard, after := range from {
		r.F.Follow(shard, after)
	}
	return r
}

// Until reads until each shard has come to the position.
func (r *Reader) Until(ctx context.Context, to map[int]int64) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		done := true
		for shard, position := range to {
			done = done && r.At[shard] >= position
		}
		if done {
			return nil
		}
		batches, err := r.F.Next(ctx)
		if err != nil {
			return fmt.Errorf("at %v, want %v: %w", r.At, to, err)
		}
		for _, b := range batches {
			if at, ok := r.At[b.Shard]; !ok || b.After != at || b.Through <= b.After {
				return fmt.Errorf("a batch of shard %d, %d to %d, where the reader is at %d", b.Shard, b.After, b.Through, at)
			}
			r.At[b.Shard] = b.Through
			r.Got[b.Shard] = append(r.Got[b.Shard], b.Entries...)
		}
	}
}

func fromAnywhere(t *testing.T, f *Fixture) {
	org := Orgs(3, 1)[0]
	f.append(t.Context(), t, 120, org)
	for _, after := range []int64{0, 1, 60, 119, 120} {
		r := NewReader(f.Source, map[int]int64{3: after})
		must(t, r.Until(t.Context(), map[int]int64{3: 120}))
		must(t, Check(f.Log, 3, after, 0, r.Got[3]))
		r.F.Close()
	}
	head, err := f.Source.Head(t.Context(), 3)
	must(t, err)
	if head != 120 {
		t.Fatalf("head is %d", head)
	}
}

func oneOrganisation(t *testing.T, f *Fixture) {
	orgs := Orgs(5, 2)
	f.append(t.Context(), t, 200, orgs[0], orgs[0], orgs[0], orgs[0], orgs[0], orgs[0], orgs[1])
	for _, org := range append(orgs, 0) {
		var got []stream.Entry
		for after := int64(0); after < 200; {
			p, err := f.Source.Read(t.Context(), 5, after, org)
			must(t, err)
			if p.Through <= after {
				t.Fatalf("nothing after %d", after)
			}
			got, after = append(got, p.Entries...), p.Through
		}
		must(t, Check(f.Log, 5, 0, org, got))
	}
	p, err := f.Source.Read(t.Context(), 5, 200, 0)
	must(t, err)
	if p.Through != 200 || len(p.Entries) != 0 || p.Head != 200 {
		t.Fatalf("after the head: %+v", p)
	}
}

func live(t *testing.T, f *Fixture) {
	r := NewReader(f.Source, map[int]int64{1: 0, 2: 0})
	defer r.F.Close()
	for i := range 20 {
		f.append(t.Context(), t, 1, Orgs(1, 1)[0])
		f.append(t.Context(), t, 2, Orgs(2, 1)[0])
		must(t, r.Until(t.Context(), map[int]int64{1: int64(i + 1), 2: int64(2*i + 2)}))
	}
	must(t, Check(f.Log, 1, 0, 0, r.Got[1]))
	must(t, Check(f.Log, 2, 0, 0, r.Got[2]))
}

func jumped(t *testing.T, f *Fixture) {
	org := Orgs(4, 1)[0]
	f.append(t.Context(), t, 10, org)
	f.Log.Jump(4, 7)
	f.append(t.Context(), t, 10, org)
	f.Log.Jump(4, 3)
	r := NewReader(f.Source, map[int]int64{4: 0})
	defer r.F.Close()
	must(t, r.Until(t.Context(), map[int]int64{4: 30}))
	must(t, Check(f.Log, 4, 0, 0, r.Got[4]))
}

func retention(t *testing.T, f *Fixture) {
	org := Orgs(6, 1)[0]
	for range 100 { // not published: Redis may hold longer than the log
		f.Log.Append(org, "task", "post_create", 1, "")
	}
	f.Log.DropBefore(6, 41)
	f.publish(t.Context(), t)
	expect := func(after int64, err error) {
		t.Helper()
		var gone *stream.TrimmedError
		if !errors.As(err, &gone) || gone.First != 41 || gone.After != after || gone.Shard != 6 {
			t.Fatalf("after %d: %v", after, err)
		}
	}
	for _, after := range []int64{0, 39} {
		_, err := f.Source.Read(t.Context(), 6, after, 0)
		expect(after, err)
		r := NewReader(f.Source, map[int]int64{6: after})
		expect(after, r.Until(t.Context(), map[int]int64{6: 100}))
		r.At[6] = 40
		r.F.Follow(6, 40)
		must(t, r.Until(t.Context(), map[int]int64{6: 100}))
		must(t, Check(f.Log, 6, 40, 0, r.Got[6]))
		r.F.Close()
	}
}

func comeAndGo(t *testing.T, f *Fixture) {
	r := NewReader(f.Source, map[int]int64{0: 0})
	defer r.F.Close()
	f.append(t.Context(), t, 5, Orgs(0, 1)[0])
	must(t, r.Until(t.Context(), map[int]int64{0: 5}))
	f.append(t.Context(), t, 5, Orgs(9, 1)[0])
	r.At[9] = 2
	r.F.Follow(9, 2)
	must(t, r.Until(t.Context(), map[int]int64{9: 5}))
	r.F.Drop(0)
	delete(r.At, 0)
	f.append(t.Context(), t, 5, Orgs(0, 1)[0])
	f.append(t.Context(), t, 5, Orgs(9, 1)[0])
	must(t, r.Until(t.Context(), map[int]int64{9: 10})) // fails on a batch of shard 0
	must(t, Check(f.Log, 9, 2, 0, r.Got[9]))
}

// fault lets it happen before, between and while entries come.
func fault(t *testing.T, f *Fixture, happen func(context.Context) error) {
	org := Orgs(7, 1)[0]
	r := NewReader(f.Source, map[int]int64{7: 0})
	defer r.F.Close()
	for i := range 6 {
		f.append(t.Context(), t, 20, org)
		if i%2 == 0 {
			must(t, r.Until(t.Context(), map[int]int64{7: f.Log.Head(7) - 10}))
		}
		must(t, happen(t.Context()))
		f.append(t.Context(), t, 5, org)
	}
	must(t, r.Until(t.Context(), map[int]int64{7: f.Log.Head(7)}))
	must(t, Check(f.Log, 7, 0, 0, r.Got[7]))
}

// random runs programs of appends, faults and readers that start anywhere, over one fixture, whose
// log and Redis grow older from program to program.
func random(t *testing.T, f *Fixture) {
	names := make([]string, 0, len(f.Faults))
	for name := range f.Faults {
		names = append(names, name)
	}
	slices.Sort(names)
	// A log without any entry left cannot tell what was dropped from what never was.
	for shard := range event.Shards {
		f.append(t.Context(), t, 1, Orgs(shard, 1)[0])
	}
	rapid.Check(t, func(rt *rapid.T) {
		ctx := t.Context()
		shards := rapid.SliceOfNDistinct(rapid.IntRange(0, event.Shards-1), 1, 3, rapid.ID[int]).Draw(rt, "shards")
		from, start := map[int]int64{}, map[int]int64{}
		for _, shard := range shards {
			from[shard] = rapid.Int64Range(max(0, f.Log.Head(shard)-200), f.Log.Head(shard)).Draw(rt, "after")
			start[shard] = from[shard]
		}
		r := NewReader(f.Source, from)
		defer r.F.Close()
		for range rapid.IntRange(1, 8).Draw(rt, "steps") {
			shard := rapid.SampledFrom(shards).Draw(rt, "shard")
			switch rapid.IntRange(0, 9).Draw(rt, "step") {
			case 0:
				f.Log.Jump(shard, rapid.Int64Range(1, 5).Draw(rt, "jump"))
			case 1, 2, 3:
				if len(names) > 0 {
					must(rt, f.Faults[rapid.SampledFrom(names).Draw(rt, "fault")](ctx))
				}
			case 4:
				must(rt, r.Until(ctx, map[int]int64{shard: f.Log.Head(shard)}))
			default:
				f.append(ctx, rt, rapid.IntRange(1, 40).Draw(rt, "n"), Orgs(shard, 2)...)
			}
		}
		heads := map[int]int64{}
		for _, shard := range shards {
			heads[shard] = f.Log.Head(shard)
		}
		must(rt, r.Until(ctx, heads))
		for _, shard := range shards {
			must(rt, Check(f.Log, shard, start[shard], 0, r.Got[shard]))
		}
	})
}
