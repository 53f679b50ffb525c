package feed_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/sametick/sametick/pkg/stream"
	"github.com/sametick/sametick/services/webhook-worker/internal/delivery"
	"github.com/sametick/sametick/services/webhook-worker/internal/feed"
)

// verdict counts pairs of endpoint and event that were scheduled not at all or more than once.
func (s *stage) verdict(pairs int) (missing, twice int) {
	s.t.Helper()
	const all = `(SELECT endpoint_id, event_id, id AS delivery FROM sametick.webhook_queue
  UNION SELECT endpoint_id, event_id, delivery_id FROM sametick.webhook_attempts) d`
	require.NoError(s.t, s.admin.QueryRow(s.t.Context(), "SELECT $1 - count(DISTINCT (endpoint_id, event_id)), count(*) - count(DISTINCT (endpoint_id, event_id)) FROM "+all,
		pairs).Scan(&missing, &twice))
	return missing, twice
}

// Replicas crash and come back, transactions fail, Redis is emptied, attempts fail: each pair of endpoint and event is
// scheduled once and ends once.
func TestEachPairOnce(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	boom := errors.New("boom")
	o := options{handle: func(f *feed.Feed) func(context.Context, pgx.Tx, stream.Batch) error {
		return func(ctx context.Context, tx pgx.Tx, b stream.Batch) error {
			if err := f.Handle(ctx, tx, b); err != nil || rand.IntN(4) > 0 {
				return err
			}
			return boom
		}
	}}
	for org := range int64(6) {
		s.endpoint(org+1, 2*org+1, "")
		s.endpoint(org+1, 2*org+2, "ordered = true")
	}
	s.setAnswer(func(g got) int { return []int{200, 200, 200, 200, 503}[rand.IntN(5)] })
	ended := make(chan struct{})
	var all sync.WaitGroup
	for i := range 2 {
		all.Go(func() {
			for life := 0; ; life++ {
				w := s.work(fmt.Sprintf("replica-%d", i), o)
				select {
				case <-ended:
					w.stop()
					return
				case <-time.After(time.Duration(300+rand.IntN(700)) * time.Millisecond):
				}
				if life%3 == 0 {
					w.stop()
				} else {
					w.crash()
				}
			}
		})
	}
	for i := range 40 {
		for org := range int64(6) {
			s.emit(org+1, 3)
		}
		if i%15 == 5 {
			require.NoError(t, s.publisher.Flush(t.Context()))
		}
	}
	pairs := 6*2*40*3 + 6 // and the first endpoint of each organisation gets the creation of the second
	eventually(t, "all are scheduled", func() bool { missing, _ := s.verdict(pairs); return missing == 0 })
	close(ended)
	all.Wait()
	s.setAnswer(func(got) int { return 200 })
	s.exec("UPDATE sametick.webhook_queue SET due_at = now()")
	last := s.work("last", options{})
	eventually(t, "all are delivered", func() bool { return s.count("webhook_queue") == 0 })
	last.stop()
	_, twice := s.verdict(pairs)
	require.Zero(t, twice, "scheduled twice")
	require.Equal(t, pairs, s.count("webhook_attempts WHERE outcome = 'delivered'"))
	newest := map[int64]int64{}
	sent := map[int64]int{}
	for _, g := range s.requests() {
		sent[g.delivery]++
		if g.endpoint%2 == 0 {
			require.GreaterOrEqual(t, g.delivery, newest[g.endpoint], "ordered endpoint %d", g.endpoint)
			newest[g.endpoint] = g.delivery
		}
	}
	require.Len(t, sent, pairs)
}

// The control: what commits apart from the cursor is scheduled twice, and the verdict sees it.
func TestControlSchedulingApartFromTheCursor(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	s.endpoint(1, 1, "")
	s.emit(1, 20)
	var failed atomic.Bool
	s.work("a", options{handle: func(f *feed.Feed) func(context.Context, pgx.Tx, stream.Batch) error {
		return func(ctx context.Context, _ pgx.Tx, b stream.Batch) error {
			if err := pgx.BeginFunc(ctx, s.admin, func(tx pgx.Tx) error { return f.Handle(ctx, tx, b) }); err != nil || failed.Swap(true) {
				return err
			}
			return errors.New("boom")
		}
	}})
	eventually(t, "the verdict sees it", func() bool { _, twice := s.verdict(20); return twice == 20 })
}

// broken is a history that cannot save.
type broken struct{ delivery.History }

func (broken) Save(context.Context, *delivery.Batch) ([]int64, error) {
	return nil, errors.New("the disk is full")
}

// A crash between sending and persisting: it is sent again, as the same delivery, and ends once.
func TestCrashBetweenSendAndSave(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	s.endpoint(1, 1, "")
	s.emit(1, 5)
	w := s.work("a", options{history: func(h delivery.History) delivery.History { return broken{h} }})
	eventually(t, "sent", func() bool { return len(s.requests()) == 5 })
	require.Zero(t, s.count("webhook_attempts"))
	w.crash()
	s.work("b", options{})
	eventually(t, "ended", func() bool { return s.count("webhook_attempts WHERE outcome = 'delivered'") == 5 })
	times := map[int64]int{}
	for _, g := range s.requests() {
		times[g.delivery]++
	}
	require.Len(t, times, 5)
	for id, n := range times {
		require.Equal(t, 2, n, "delivery %d", id)
	}
}

// A second replica takes over half of the shards under load, and the first one ends: nothing is sent twice.
func TestHandOverSendsNothingTwice(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	for org := range int64(30) {
		s.endpoint(org+1, org+1, "")
	}
	a := s.work("a", options{})
	s.emit(1, 1)
	eventually(t, "it works", func() bool { return len(s.requests()) > 0 })
	s.setAnswer(func(got) int { time.Sleep(time.Duration(rand.IntN(20)) * time.Millisecond); return 200 })
	var b *worker
	for i := range 30 {
		for org := range int64(30) {
			s.emit(org+1, 2)
		}
		if i == 5 {
			b = s.work("b", options{})
		}
	}
	eventually(t, "half each", func() bool { return a.stats.Shards.Load() == 8 && b.stats.Shards.Load() == 8 })
	a.stop()
	eventually(t, "all are sent", func() bool { return s.count("webhook_attempts WHERE outcome = 'delivered'") == 30*60+1 })
	b.stop()
	require.Len(t, s.requests(), s.count("webhook_attempts"), "each request is an attempt in history, so none was sent by both")
}
