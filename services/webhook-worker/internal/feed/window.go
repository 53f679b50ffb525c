package feed

import (
	"context"
	"errors"
	"slices"

	"github.com/sametick/sametick/pkg/stream"
	"github.com/sametick/sametick/services/webhook-worker/internal/delivery"
	"github.com/sametick/sametick/services/webhook-worker/internal/schedule"
	"github.com/sametick/sametick/services/webhook-worker/internal/store"
)

// Source reads events by position (stream.Source).
type Source interface {
	Read(ctx context.Context, shard int, after, org int64) (stream.Page, error)
	Entry(ctx context.Context, shard int, position, org int64) (stream.Entry, bool, error)
}

// Queue is the table of what waits, with the events from the stream. It implements delivery.Queue.
type Queue struct {
	*store.Worker
	Source Source
}

const (
	// A page reaches about so many positions on; from so many wanted among them it costs less than one by one.
	pageReach  = 500
	pageWorthy = 8
)

// Load gives a window with its events. Those that retention has dropped are missing.
func (q *Queue) Load(ctx context.Context, w delivery.Want) (delivery.Window, error) {
	got, err := q.Window(ctx, w)
	if err != nil {
		return got, err
	}
	wanted := make([]int64, len(got.Deliveries))
	for i, d := range got.Deliveries {
		wanted[i] = d.Position
	}
	slices.Sort(wanted)
	found, err := q.events(ctx, w, slices.Compact(wanted))
	if err != nil {
		return delivery.Window{}, err
	}
	for _, d := range got.Deliveries {
		d.Event = found[d.Position]
	}
	return got, nil
}

// events reads those at increasing positions.
func (q *Queue) events(ctx context.Context, w delivery.Want, wanted []int64) (map[int64][]byte, error) {
	found := make(map[int64][]byte, len(wanted))
	for len(wanted) > 0 {
		page, err := q.next(ctx, w, wanted)
		if err != nil {
			return nil, err
		}
		for i := range page.Entries {
			e := &page.Entries[i]
			if _, ok := slices.BinarySearch(wanted, e.Position); ok {
				found[e.Position] = schedule.Compact(e.Envelope)
			}
		}
		n, _ := slices.BinarySearch(wanted, page.Through+1)
		wanted = wanted[max(n, 1):]
	}
	return found, nil
}

// next reads at least the first of the positions.
func (q *Queue) next(ctx context.Context, w delivery.Want, wanted []int64) (stream.Page, error) {
	first := wanted[0]
	if near, _ := slices.BinarySearch(wanted, first+pageReach); near >= pageWorthy {
		page, err := q.Source.Read(ctx, w.Shard, first-1, w.OrgID)
		var gone *stream.TrimmedError
		if errors.As(err, &gone) {
			return stream.Page{Through: gone.First - 1}, nil
		}
		return page, err
	}
	e, ok, err := q.Source.Entry(ctx, w.Shard, first, w.OrgID)
	if !ok || err != nil {
		return stream.Page{Through: first}, err
	}
	return stream.Page{Entries: []stream.Entry{e}, Through: first}, nil
}
