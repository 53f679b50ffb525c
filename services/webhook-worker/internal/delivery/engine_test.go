package delivery_test

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sametick/sametick/services/webhook-worker/internal/delivery"
)

// until waits, in the bubble's time, for a condition.
func until(t *testing.T, cond func() bool, what string) {
	t.Helper()
	for range 100_000 {
		synctest.Wait()
		if cond() {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("never: %s", what)
}

func (w *world) empty() bool { return w.left() == 0 }

func (w *world) delivered(endpoint int64) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.sent[endpoint])
}

func (w *world) endpoint(id int64) *delivery.Endpoint {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.endpoints[id]
}

// A receiver that hangs costs the others nothing.
func TestHangingReceiverDelaysNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(1)
		for id := range int64(40) { // the even ones hang: more of them than may be in doubt

			w.add(id, false)
		}
		w.answer = func(ctx context.Context, e *delivery.Endpoint, _ *delivery.Delivery) delivery.Result {
			if e.ID%2 == 0 {
				time.Sleep(15 * time.Second)
				return delivery.Result{Cause: delivery.CauseTimeout}
			}
			time.Sleep(time.Millisecond)
			return delivery.Result{}
		}
		r := w.begin(t, func(c *delivery.Config) { c.InAll = 30 })
		defer r.crash()
		began := time.Now()
		for id := range int64(40) {
			r.Take(w.schedule(id, 50))
		}
		until(t, func() bool {
			w.mu.Lock()
			defer w.mu.Unlock()
			n := 0
			for id := int64(1); id < 40; id += 2 {
				n += len(w.sent[id])
			}
			return n == 20*50
		}, "the good ones have everything")
		require.Less(t, time.Since(began), 2*time.Second)
		w.mu.Lock()
		defer w.mu.Unlock()
		for id := int64(0); id < 40; id += 2 {
			require.LessOrEqual(t, w.widest[id], 1, "one slot for who hangs")
		}
	})
}

// The head of an ordered endpoint blocks its own, nobody else's.
func TestOrderedHeadBlocksItsOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(1)
		w.add(1, true)
		w.add(2, true)
		bad := true
		w.answer = func(_ context.Context, e *delivery.Endpoint, d *delivery.Delivery) delivery.Result {
			if w.mu.Lock(); e.ID == 1 && d.ID == 3 && bad {
				w.mu.Unlock()
				return delivery.Result{Cause: delivery.CauseStatus, Status: 500}
			}
			w.mu.Unlock()
			return delivery.Result{}
		}
		r := w.begin(t, nil)
		defer r.crash()
		r.Take(w.schedule(1, 1000))
		r.Take(w.schedule(2, 1000))
		until(t, func() bool { return w.delivered(2) == 1000 }, "the other goes on")
		time.Sleep(4 * time.Hour)
		w.mu.Lock()
		require.Equal(t, []int64{1, 2}, w.sent[1])
		require.GreaterOrEqual(t, w.attempts[3], 4)
		require.Less(t, w.loads, 300, "a blocked endpoint is not read over and over")
		bad = false
		w.mu.Unlock()
		time.Sleep(10 * time.Hour)
		until(t, w.empty, "it goes on")
		require.Equal(t, 1, w.widest[1])
		for i, id := range w.sent[1] {
			require.EqualValues(t, i+1, id)
		}
	})
}

// Memory has a window, whatever waits: the rest is loaded piece by piece.
func TestBacklogIsWorkedOffInWindows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(1)
		w.add(1, false)
		w.add(2, false)
		w.schedule(1, 4000)
		r := w.begin(t, func(c *delivery.Config) { c.MaxBytes = 1000 })
		defer r.crash()
		r.Take(w.schedule(2, 2000))
		peak := int64(0)
		until(t, func() bool {
			peak = max(peak, r.stats.Bytes.Load())
			return w.empty()
		}, "all is sent")
		require.LessOrEqual(t, peak, int64(1000+4*256*8), "bytes in memory")
		require.LessOrEqual(t, w.rowsRead, 6000, "no row is read twice")
		for id, n := range w.attempts {
			require.Equal(t, 1, n, "delivery %d", id)
		}
		until(t, func() bool { return r.stats.Waiting.Load() == 0 && r.stats.Bytes.Load() == 0 }, "nothing is left in memory")
	})
}

// Windows go on where the last one ended; what is queued behind them is found all the same before the backlog is worked off.
func TestWhatIsQueuedBehindTheWindowsIsFound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(1)
		w.add(1, false)
		const backlog = 10_000 // more than the 32 windows after which the whole table is looked at
		old := time.Now()
		for i, d := range w.schedule(1, backlog).Deliveries {
			w.rows[d.ID].Due = old.Add(time.Duration(i) * time.Millisecond)
		}
		time.Sleep(time.Hour)
		r := w.begin(t, nil)
		defer r.crash()
		until(t, func() bool { return w.left() < backlog-1000 }, "some are sent")
		late := w.schedule(1, 1).Deliveries[0].ID // it does not arrive
		w.mu.Lock()
		w.rows[late].Due = old.Add(-time.Second)
		onward := w.onward
		w.mu.Unlock()
		require.Positive(t, onward)
		until(t, func() bool { w.mu.Lock(); defer w.mu.Unlock(); return w.attempts[late] > 0 }, "it is sent")
		require.Positive(t, w.left(), "before the others")
		until(t, w.empty, "all is sent")
		for id, n := range w.attempts {
			require.Equal(t, 1, n, "delivery %d", id)
		}
	})
}

// 410 disables at once, and what waits is cancelled; so does a success-less time of five days, not before.
func TestDisabling(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(1)
		w.add(1, false)
		w.add(2, false)
		w.answer = func(_ context.Context, e *delivery.Endpoint, _ *delivery.Delivery) delivery.Result {
			if e.ID == 1 {
				return delivery.Result{Cause: delivery.CauseGone, Status: 410}
			}
			return delivery.Result{Cause: delivery.CauseStatus, Status: 500}
		}
		r := w.begin(t, nil)
		defer r.crash()
		r.Take(w.schedule(1, 200))
		until(t, func() bool { return !w.endpoint(1).Enabled }, "disabled")
		r.Take(w.change(1, func(*delivery.Endpoint) {})) // its event
		until(t, w.empty, "cancelled")
		require.Len(t, w.attempts, 1)
		require.Equal(t, []string{delivery.Failed}, w.ends[1])
		require.Equal(t, []string{delivery.Cancelled}, w.ends[2])

		began := time.Now()
		for w.endpoint(2).Enabled && time.Since(began) < 7*24*time.Hour {
			r.Take(w.schedule(2, 1))
			time.Sleep(time.Hour)
		}
		require.WithinRange(t, time.Now(), began.Add(5*24*time.Hour), began.Add(5*24*time.Hour+2*time.Hour))
	})
}

// While a breaker is open nothing is sent and nothing counts; one attempt probes. Then everything goes out.
func TestBreaker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(1)
		w.add(1, false)
		down := true
		w.answer = func(context.Context, *delivery.Endpoint, *delivery.Delivery) delivery.Result {
			w.mu.Lock()
			defer w.mu.Unlock()
			if down {
				return delivery.Result{Cause: delivery.CauseConnect}
			}
			return delivery.Result{}
		}
		r := w.begin(t, nil)
		defer r.crash()
		r.Take(w.schedule(1, 500))
		time.Sleep(time.Hour)
		w.mu.Lock()
		made := 0
		for _, n := range w.attempts {
			made += n
		}
		require.LessOrEqual(t, made, 5+80, "an hour of probes")
		require.GreaterOrEqual(t, made, 5+8)
		require.EqualValues(t, 1, r.stats.Broken.Load())
		down = false
		w.mu.Unlock()
		began := time.Now()
		until(t, func() bool { return w.left() < 60 }, "what has not been tried is sent")
		require.Less(t, time.Since(began), 6*time.Minute)
		require.Zero(t, r.stats.Broken.Load())
	})
}

// Retry-After holds the endpoint's others back, and comes before the schedule's own time when it is later.
func TestRetryAfterAndRateLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(1)
		w.add(1, false)
		w.add(2, false).RateLimit = 20
		var at []time.Duration
		began := time.Now()
		w.answer = func(_ context.Context, e *delivery.Endpoint, _ *delivery.Delivery) delivery.Result {
			w.mu.Lock()
			defer w.mu.Unlock()
			if e.ID == 1 {
				at = append(at, time.Since(began))
				if len(at) == 1 {
					return delivery.Result{Cause: delivery.CauseStatus, Status: 429, RetryAfter: time.Minute}
				}
			}
			return delivery.Result{}
		}
		r := w.begin(t, nil)
		defer r.crash()
		r.Take(w.schedule(1, 5))
		until(t, w.empty, "sent")
		for _, d := range at[1:] {
			require.GreaterOrEqual(t, d, time.Minute)
		}
		began = time.Now()
		r.Take(w.schedule(2, 201))
		until(t, w.empty, "sent")
		require.InDelta(t, 10, time.Since(began).Seconds(), 0.3, "201 at 20 a second")
	})
}

// Nothing begins unless the shard is held for longer than an attempt may take; what is released waits for what is
// under way; a lost shard's deliveries are left alone.
func TestLeases(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(1)
		w.add(1, false)
		w.answer = func(context.Context, *delivery.Endpoint, *delivery.Delivery) delivery.Result {
			time.Sleep(5 * time.Second)
			return delivery.Result{}
		}
		r := w.begin(t, func(c *delivery.Config) { c.PerEndpoint = 1 })
		defer r.crash()
		r.Held([]int{0}, time.Now().Add(16*time.Second))
		r.Begin(0, w.newest())
		r.Take(w.schedule(1, 10))
		time.Sleep(time.Minute)
		require.Equal(t, 1, w.delivered(1), "the lease was too short for a second")
		r.Held([]int{0}, time.Now().Add(30*time.Second))
		r.Begin(0, w.newest())
		time.Sleep(time.Second)
		began := time.Now()
		r.Release(t.Context(), []int{0})
		require.InDelta(t, 4, time.Since(began).Seconds(), 0.1)
		require.Equal(t, 8, w.left(), "it is persisted")
		time.Sleep(time.Hour)
		require.Equal(t, 2, w.delivered(1))
		r.Take(w.schedule(1, 1)) // of a shard that is not held
		time.Sleep(time.Minute)
		require.Equal(t, 2, w.delivered(1))
		r.Held([]int{0}, time.Now().Add(1000*time.Hour))
		r.Begin(0, w.newest())
		until(t, w.empty, "gained again")
		require.Equal(t, 11, w.delivered(1))
	})
}

// Many that wait for a retry are not read while others are sent.
func TestWaitingRetriesCostNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(1)
		w.add(1, false)
		w.schedule(1, 20_000)
		for _, d := range w.rows {
			d.Due = time.Now().Add(10 * time.Hour)
			d.Attempts = 5
		}
		r := w.begin(t, nil)
		defer r.crash()
		for range 500 {
			r.Take(w.schedule(1, 1))
		}
		until(t, func() bool { return w.left() == 20_000 }, "the new ones are sent")
		require.Less(t, w.rowsRead, 500)
		require.Less(t, w.loads, 50)
	})
}

// An event that retention has dropped ends its delivery; one whose transform fails is not tried again.
func TestEndsWithoutARequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(1)
		w.add(1, false)
		w.answer = func(context.Context, *delivery.Endpoint, *delivery.Delivery) delivery.Result {
			return delivery.Result{Cause: delivery.CauseTransform}
		}
		var got []string
		r := w.begin(t, func(c *delivery.Config) {
			c.Observe = func(o *delivery.Outcome) { got = append(got, fmt.Sprint(o.Kind, o.Attempt, o.Result.Cause)) }
		})
		a := w.schedule(1, 2)
		a.Deliveries[0].Event = nil
		r.Take(a)
		until(t, w.empty, "ended")
		r.stop()
		require.ElementsMatch(t, []string{"failed0event_gone", "failed0transform"}, got)
		require.True(t, w.endpoints[1].FailingSince.IsZero(), "not the receiver's fault")
	})
}
