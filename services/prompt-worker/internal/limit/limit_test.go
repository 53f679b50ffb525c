package limit_test

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"github.com/sametick/sametick/services/prompt-worker/internal/limit"
	"github.com/sametick/sametick/services/prompt-worker/internal/prompting"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var (
	one        = limit.Key{ProviderID: 1, Model: "m"}
	overloaded = &prompting.ModelError{Cause: prompting.CauseOverloaded, Text: "full"}
)

func acquire(t require.TestingT, l *limit.Limiter, most int, org int64, c limit.Class) *limit.Turn {
	turn, err := l.Acquire(context.Background(), one, most, org, c)
	require.NoError(t, err)
	return turn
}

func refused(t require.TestingT, l *limit.Limiter) *prompting.ModelError {
	ctx, cancel := context.WithTimeout(context.Background(), time.Millisecond)
	defer cancel()
	_, err := l.Acquire(ctx, one, 0, 1, limit.Review)
	var e *prompting.ModelError
	require.ErrorAs(t, err, &e)
	require.False(t, e.Unknown, "nobody was asked")
	return e
}

// fake is a model that fails with err, or answers.
type fake struct {
	asked    atomic.Int64
	err      *prompting.ModelError
	took     time.Duration
	enforces bool
	seen     atomic.Pointer[prompting.Request]
}

func (f *fake) Complete(ctx context.Context, r prompting.Request) (prompting.Response, error) {
	f.asked.Add(1)
	f.seen.Store(&r)
	select {
	case <-time.After(f.took):
	case <-ctx.Done():
		return prompting.Response{}, &prompting.ModelError{Cause: prompting.CauseTimeout, Unknown: true}
	}
	if f.err != nil {
		return prompting.Response{}, f.err
	}
	return prompting.Response{Text: "yes"}, nil
}

func (f *fake) Enforces(schema json.RawMessage) bool { return schema == nil || f.enforces }

func caller(l *limit.Limiter, models ...*fake) limit.Caller {
	c := limit.Caller{Limiter: l, OrgID: 1, Class: limit.Async}
	for i, m := range models {
		c.Candidates = append(c.Candidates, limit.Candidate{Key: limit.Key{ProviderID: int64(i + 1), Model: fmt.Sprint("m", i+1)}, Model: m})
	}
	return c
}

// Eleven requests, each tried three times, at a provider that is down: without a breaker it is asked 33 times.
func TestElevenRequestsAreNot33Attempts(t *testing.T) {
	for _, attempts := range []struct {
		cause string
		most  int64
	}{{prompting.CauseUnavailable, 5}, {prompting.CauseRateLimited, 5}, {prompting.CauseTimeout, 5}, {prompting.CauseQuota, 1}, {prompting.CauseUnauthorized, 1}} {
		synctest.Test(t, func(t *testing.T) {
			down := &fake{err: &prompting.ModelError{Cause: attempts.cause}}
			c := caller(limit.New(limit.Options{}), down)
			for range 11 {
				for range 3 {
					_, err := c.Complete(t.Context(), prompting.Request{})
					var e *prompting.ModelError
					require.ErrorAs(t, err, &e)
					require.Equal(t, attempts.cause, e.Cause)
					require.Equal(t, int64(1), e.From.ProviderID)
				}
			}
			require.Equal(t, attempts.most, down.asked.Load())
		})
	}
	// The negative control: with no breaker it is 33.
	synctest.Test(t, func(t *testing.T) {
		down := &fake{err: overloaded}
		c := caller(limit.New(limit.Options{Failures: 1000}), down)
		for range 33 {
			_, err := c.Complete(t.Context(), prompting.Request{})
			require.Error(t, err)
		}
		require.Equal(t, int64(33), down.asked.Load())
	})
}

// A shut gate lets one probe through at a time, each later than the last; the first that is answered opens it.
func TestProbes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := limit.New(limit.Options{})
		for range 5 {
			acquire(t, l, 0, 1, limit.Async).Done(overloaded, false)
		}
		for _, seconds := range []int{1, 2, 4, 8, 16, 32, 60, 60} {
			wait := time.Duration(seconds) * time.Second
			require.InDelta(t, wait, refused(t, l).RetryAfter, float64(time.Millisecond))
			time.Sleep(wait - time.Millisecond)
			refused(t, l)
			time.Sleep(time.Millisecond)
			probe := acquire(t, l, 0, 1, limit.Async)
			require.Equal(t, prompting.CauseOverloaded, refused(t, l).Cause, "one probe, and nobody waits for it")
			probe.Done(overloaded, false)
		}
		time.Sleep(time.Minute)
		acquire(t, l, 0, 1, limit.Async).Done(nil, true)
		probe := acquire(t, l, 0, 1, limit.Async) // the first one was cancelled, which says nothing
		refused(t, l)
		probe.Done(nil, false)
		acquire(t, l, 0, 1, limit.Async).Done(nil, false)
		acquire(t, l, 0, 1, limit.Async).Done(overloaded, false)
		acquire(t, l, 0, 1, limit.Async).Done(nil, false)
	})
}

// A probe that hangs for an hour does not keep a provider that has come back away for as long.
func TestProbeHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := limit.New(limit.Options{})
		for range 5 {
			acquire(t, l, 0, 1, limit.Async).Done(overloaded, false)
		}
		time.Sleep(time.Second)
		hangs := acquire(t, l, 0, 1, limit.Async)
		time.Sleep(59 * time.Second)
		refused(t, l)
		time.Sleep(time.Second)
		acquire(t, l, 0, 1, limit.Review).Done(nil, false)
		acquire(t, l, 0, 1, limit.Review).Done(nil, false)
		hangs.Done(&prompting.ModelError{Cause: prompting.CauseTimeout}, false)
	})
}

func TestRetryAfterShuts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := limit.New(limit.Options{})
		acquire(t, l, 0, 1, limit.Async).Done(&prompting.ModelError{Cause: prompting.CauseRateLimited, RetryAfter: 7 * time.Second}, false)
		require.Equal(t, 7*time.Second, refused(t, l).RetryAfter)
		time.Sleep(7 * time.Second)
		acquire(t, l, 0, 1, limit.Async).Done(&prompting.ModelError{Cause: prompting.CauseRateLimited, RetryAfter: 24 * time.Hour}, false)
		require.Equal(t, 10*time.Minute, refused(t, l).RetryAfter, "a day is not believed")
	})
}

// Whoever waits when the gate shuts is told at once.
func TestWaitersAreToldOfFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := limit.New(limit.Options{Max: 1})
		turn := acquire(t, l, 0, 1, limit.Async)
		var wg sync.WaitGroup
		for range 10 {
			wg.Go(func() {
				_, err := l.Acquire(t.Context(), one, 0, 1, limit.Async)
				require.ErrorContains(t, err, prompting.CauseQuota)
			})
		}
		synctest.Wait()
		turn.Done(&prompting.ModelError{Cause: prompting.CauseQuota}, false)
		wg.Wait()
	})
}

// Calls that fail for their own fault shut nothing.
func TestOwnFaults(t *testing.T) {
	l := limit.New(limit.Options{})
	for range 50 {
		for _, cause := range []string{prompting.CauseRefused, prompting.CauseTruncated, prompting.CauseInvalid, prompting.CauseBadRequest} {
			acquire(t, l, 0, 1, limit.Async).Done(&prompting.ModelError{Cause: cause}, false)
		}
	}
}

// capacity is how many calls of a class begin at once; they end neutrally.
func capacity(t *testing.T, l *limit.Limiter, c limit.Class) int {
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	var turns []*limit.Turn
	for {
		turn, err := l.Acquire(ctx, one, 0, 1, c)
		if err != nil {
			break
		}
		turns = append(turns, turn)
	}
	for _, turn := range turns {
		turn.Done(nil, true)
	}
	return len(turns)
}

func TestAdapts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := limit.New(limit.Options{Max: 16, Initial: 4})
		require.Equal(t, 4, capacity(t, l, limit.Review))
		require.Equal(t, 3, capacity(t, l, limit.Async), "one is for reviews")
		busy := func(rounds int, took time.Duration) {
			for range rounds {
				var turns []*limit.Turn
				for range capacity(t, l, limit.Review) {
					turns = append(turns, acquire(t, l, 0, 1, limit.Review))
				}
				time.Sleep(took)
				for _, turn := range turns {
					turn.Done(nil, false)
				}
			}
		}
		busy(40, time.Second)
		require.Equal(t, 16, capacity(t, l, limit.Review), "no further")
		require.Equal(t, 12, capacity(t, l, limit.Async))

		var turns []*limit.Turn
		for range 16 {
			turns = append(turns, acquire(t, l, 0, 1, limit.Review))
		}
		time.Sleep(time.Second)
		for _, turn := range turns[:3] {
			turn.Done(overloaded, false)
		}
		for _, turn := range turns[3:] {
			turn.Done(nil, true)
		}
		require.Equal(t, 8, capacity(t, l, limit.Review), "halved once for calls that were under way together")

		busy(1, 10*time.Second)
		require.Equal(t, 7, capacity(t, l, limit.Review), "much slower than usual")
	})
}

// One organisation's thousand runs delay another's by one call, and a review by none of those that wait.
func TestFair(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := limit.New(limit.Options{Max: 1})
		first := acquire(t, l, 0, 1, limit.Async)
		var mu sync.Mutex
		var order []string
		var wg sync.WaitGroup
		wait := func(name string, org int64, c limit.Class) {
			wg.Go(func() {
				turn := acquire(t, l, 0, org, c)
				mu.Lock()
				order = append(order, name)
				mu.Unlock()
				turn.Done(nil, false)
			})
			synctest.Wait()
		}
		for i := range 100 {
			wait(fmt.Sprint("a", i), 1, limit.Async)
		}
		wait("b0", 2, limit.Async)
		wait("b1", 2, limit.Async)
		wait("review", 3, limit.Review)
		first.Done(nil, false)
		wg.Wait()
		require.Equal(t, []string{"review", "a0", "b0", "a1", "b1", "a2"}, order[:6])
	})
}

func TestQueueIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := limit.New(limit.Options{Max: 1, Queue: 3})
		turn := acquire(t, l, 0, 1, limit.Review)
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		for range 3 {
			wg.Go(func() {
				_, err := l.Acquire(ctx, one, 0, 1, limit.Async)
				require.ErrorContains(t, err, prompting.CauseTimeout)
			})
		}
		synctest.Wait()
		require.Equal(t, prompting.CauseOverloaded, refused(t, l).Cause)
		cancel()
		wg.Wait()
		turn.Done(nil, false)
		turn.Done(nil, false) // twice is once
		require.Equal(t, 1, capacity(t, l, limit.Review))
	})
}

// A turn that comes in the moment its caller gives up is given back.
func TestTurnForWhoHasGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := limit.New(limit.Options{Max: 1})
		for range 500 {
			held := acquire(t, l, 0, 1, limit.Review)
			ctx, cancel := context.WithCancel(t.Context())
			gone := make(chan struct{})
			go func() {
				defer close(gone)
				if turn, err := l.Acquire(ctx, one, 0, 1, limit.Review); err == nil {
					turn.Done(nil, true)
				}
			}()
			synctest.Wait()
			cancel()
			held.Done(nil, true)
			<-gone
		}
		require.Equal(t, 1, capacity(t, l, limit.Review))
	})
}

func TestFallback(t *testing.T) {
	schema := json.RawMessage(`{}`)
	for name, c := range map[string]struct {
		first   *prompting.ModelError
		schema  json.RawMessage
		second  bool // enforces
		answers int64
		cause   string
	}{
		"answered":             {nil, schema, true, 1, ""},
		"down":                 {&prompting.ModelError{Cause: prompting.CauseUnavailable}, schema, true, 2, ""},
		"without money":        {&prompting.ModelError{Cause: prompting.CauseQuota}, schema, true, 2, ""},
		"schema not enforced":  {&prompting.ModelError{Cause: prompting.CauseUnavailable}, schema, false, 0, prompting.CauseUnavailable},
		"no schema":            {&prompting.ModelError{Cause: prompting.CauseUnavailable}, nil, false, 2, ""},
		"perhaps carried out":  {&prompting.ModelError{Cause: prompting.CauseUnavailable, Unknown: true}, schema, true, 0, prompting.CauseUnavailable},
		"refused":              {&prompting.ModelError{Cause: prompting.CauseRefused}, schema, true, 0, prompting.CauseRefused},
		"an answer of rubbish": {&prompting.ModelError{Cause: prompting.CauseInvalid}, schema, true, 0, prompting.CauseInvalid},
	} {
		t.Run(name, func(t *testing.T) {
			first, second := &fake{err: c.first, enforces: true}, &fake{enforces: c.second}
			got, err := caller(limit.New(limit.Options{}), first, second).Complete(t.Context(), prompting.Request{Model: "x", Schema: c.schema})
			require.Equal(t, c.answers, got.From.ProviderID)
			if c.cause == "" {
				require.NoError(t, err)
				require.Equal(t, fmt.Sprint("m", c.answers), got.From.Model)
				return
			}
			require.ErrorContains(t, err, c.cause)
			require.Zero(t, second.asked.Load())
		})
	}
	_, err := caller(limit.New(limit.Options{}), &fake{}).Complete(t.Context(), prompting.Request{Schema: schema})
	require.ErrorContains(t, err, prompting.CauseBadRequest)
	_, err = caller(limit.New(limit.Options{}), &fake{err: overloaded}, &fake{err: &prompting.ModelError{Cause: prompting.CauseQuota}}).
		Complete(t.Context(), prompting.Request{})
	require.ErrorContains(t, err, prompting.CauseOverloaded, "what may be retried")
}

// A cancelled review (another hook rejected) says nothing about the provider; a deadline does.
func TestCancelledIsNoFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hangs := &fake{took: time.Hour}
		c := caller(limit.New(limit.Options{}), hangs)
		for range 20 {
			ctx, cancel := context.WithCancel(t.Context())
			time.AfterFunc(time.Second, cancel)
			_, err := c.Complete(ctx, prompting.Request{})
			require.Error(t, err)
		}
		require.Equal(t, int64(20), hangs.asked.Load())
		for range 20 {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			_, err := c.Complete(ctx, prompting.Request{})
			require.Error(t, err)
			cancel()
		}
		require.Less(t, hangs.asked.Load(), int64(32))
	})
}

// step is one thing that happens to a limiter.
type step struct {
	Do    string
	Class limit.Class
	Org   int64
	Which int
	Cause string
	After time.Duration
}

func drawStep(t *rapid.T) step {
	return step{
		Do:    rapid.SampledFrom([]string{"acquire", "acquire", "done", "time"}).Draw(t, "do"),
		Class: rapid.SampledFrom([]limit.Class{limit.Async, limit.Review}).Draw(t, "class"),
		Org:   rapid.Int64Range(1, 3).Draw(t, "org"),
		Which: rapid.IntRange(0, 5).Draw(t, "which"),
		Cause: rapid.SampledFrom([]string{"", "cancelled", prompting.CauseOverloaded, prompting.CauseQuota, prompting.CauseRefused}).Draw(t, "cause"),
		After: time.Duration(rapid.IntRange(0, 100).Draw(t, "after")) * 100 * time.Millisecond,
	}
}

// Whatever happens: no more calls at once than the bound, async ones leave a slot, no turn is lost, and a gate that has
// been shut opens again.
func TestModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		most := rapid.IntRange(1, 6).Draw(rt, "most")
		steps := rapid.SliceOfN(rapid.Custom(drawStep), 0, 60).Draw(rt, "steps")
		// In the bubble nothing may fail: rapid's own goroutine must.
		wrong := ""
		synctest.Test(t, func(*testing.T) { wrong = play(most, steps) })
		require.Empty(rt, wrong)
	})
}

// play gives the first thing that was wrong.
func play(most int, steps []step) string {
	l := limit.New(limit.Options{})
	try := func(c limit.Class, org int64) *limit.Turn {
		ctx, cancel := context.WithTimeout(context.Background(), time.Millisecond)
		defer cancel()
		turn, _ := l.Acquire(ctx, one, most, org, c) // an error is no turn
		return turn
	}
	type held struct {
		*limit.Turn
		class limit.Class
	}
	var turns []held
	for i, s := range steps {
		switch {
		case s.Do == "acquire":
			if turn := try(s.Class, s.Org); turn != nil {
				turns = append(turns, held{turn, s.Class})
			}
		case s.Do == "time":
			time.Sleep(s.After)
		case len(turns) > 0:
			which := s.Which % len(turns)
			var err *prompting.ModelError
			if s.Cause != "" && s.Cause != "cancelled" {
				err = &prompting.ModelError{Cause: s.Cause, RetryAfter: s.After}
			}
			turns[which].Done(err, s.Cause == "cancelled")
			turns = slices.Delete(turns, which, which+1)
		}
		async := 0
		for _, turn := range turns {
			if turn.class == limit.Async {
				async++
			}
		}
		if len(turns) > most || async > max(most-1, 1) {
			return fmt.Sprintf("after step %d %d calls, %d async, of %d", i, len(turns), async, most)
		}
	}
	for _, turn := range turns {
		turn.Done(nil, true)
	}
	time.Sleep(11 * time.Minute)
	for _, c := range []limit.Class{limit.Async, limit.Review} {
		turn := try(c, 1)
		if turn == nil {
			return "the gate stays shut"
		}
		turn.Done(nil, false)
	}
	return ""
}
