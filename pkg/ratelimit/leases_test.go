package ratelimit

import (
	"context"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/rueidis"
	"github.com/stretchr/testify/require"

	"github.com/sametick/sametick/pkg/errs"
	"github.com/sametick/sametick/pkg/redistest"
)

// clock stands still until a test moves it.
type clock struct {
	mu sync.Mutex
	at time.Time
}

func newClock() *clock { return &clock{at: time.Unix(1_800_000_000, 0)} }

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at
}

func (c *clock) pass(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = c.at.Add(d)
}

// calls lets n calls come, one after another, all of which must pass, and gives the last result.
func calls(t *testing.T, l *Leases, n int, budgets ...Budget) (got Result) {
	t.Helper()
	for range n {
		var err error
		got, err = l.Allow(t.Context(), budgets...)
		require.NoError(t, err)
		require.True(t, got.Allowed)
	}
	return got
}

func (l *Leases) one(ctx context.Context, b Budget) (Result, error) { return l.Allow(ctx, b) }

// trips counts how often the script has run on the server.
func trips(t *testing.T, c rueidis.Client) (n int) {
	t.Helper()
	stats, err := c.Do(t.Context(), c.B().Info().Section("commandstats").Build()).ToString()
	require.NoError(t, err)
	for line := range strings.Lines(stats) {
		if strings.HasPrefix(line, "cmdstat_evalsha:") || strings.HasPrefix(line, "cmdstat_eval:") {
			number, _, _ := strings.Cut(strings.SplitAfterN(line, "calls=", 2)[1], ",")
			calls, err := strconv.Atoi(number)
			require.NoError(t, err)
			n += calls
		}
	}
	return n
}

func hourly(burst int) Limit { return Limit{Rate: 1, Period: time.Hour, Burst: burst} }

func TestLeasesSaveTrips(t *testing.T) {
	t.Parallel()
	c := newClock()
	limiter := replica(t, redistest.New(t).URL, patient)
	l := NewLeases(limiter, c.now)
	b := Budget{"b", hourly(10_000)}
	calls(t, l, 2, b)
	before := trips(t, limiter.client)
	for i := range 1000 {
		require.Equal(t, 10_000-3-i, calls(t, l, 1, b).Remaining, "as if each had asked")
	}
	require.Less(t, trips(t, limiter.client)-before, 30, "leases grow with use, to a hundredth of the burst")

	// The control: without leases each call is a trip.
	before = trips(t, limiter.client)
	for range 100 {
		take(t, limiter, 1, b)
	}
	require.Equal(t, 100, trips(t, limiter.client)-before)
}

// Who calls seldom holds nothing, and so loses nothing.
func TestSeldomCallsTakeNoLease(t *testing.T) {
	t.Parallel()
	c := newClock()
	l := NewLeases(replica(t, redistest.New(t).URL, patient), c.now)
	b := Budget{"b", hourly(10_000)}
	for i := range 50 {
		calls(t, l, 1, b)
		c.pass(2 * LeaseTime)
		require.Equal(t, 10_000-2*(i+1), take(t, l.limiter, 1, b).Remaining)
	}
}

// A clock that stands still lets nothing lapse: then two replicas let exactly the burst pass, near its end too.
func TestLeasesShareOneBudgetExactly(t *testing.T) {
	t.Parallel()
	server := redistest.New(t)
	c := newClock()
	one, two := NewLeases(replica(t, server.URL, patient), c.now), NewLeases(replica(t, server.URL, patient), c.now)
	require.Equal(t, 3000, rush(t, 4000, func(int) Budget { return Budget{"shared", hourly(3000)} }, one.one, two.one))
	require.Less(t, trips(t, one.limiter.client), 7000, "of 8000 calls those that pass early made few trips")
	// The control: replicas that do not share let twice as many pass, and rush sees it.
	require.Equal(t, 6000, rush(t, 4000, func(i int) Budget { return Budget{strconv.Itoa(i), hourly(3000)} }, one.one, two.one))
}

// What may pass beyond the limit is what was held when the bucket was filled, a hundredth of the burst for each replica, and
// for LeaseTime only.
func TestLeasesAreBounded(t *testing.T) {
	t.Parallel()
	for _, x := range []struct {
		name string
		age  time.Duration
		over int
	}{{"held", LeaseTime - 1, 2 * 10}, {"lapsed", LeaseTime, 0}} {
		t.Run(x.name, func(t *testing.T) {
			t.Parallel()
			server := redistest.New(t)
			c := newClock()
			one, two := NewLeases(replica(t, server.URL, patient), c.now), NewLeases(replica(t, server.URL, patient), c.now)
			b := Budget{"b", hourly(1000)}
			for _, l := range []*Leases{one, two} {
				hold(t, l, b)
			}
			turn(t, one.limiter.client, "b", 1000*time.Hour)
			c.pass(x.age)
			require.Equal(t, 1000+x.over, rush(t, 2000, func(int) Budget { return b }, one.one, two.one))
		})
	}
}

// held are the tokens held for a caller.
func (l *Leases) held(key string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	if h := l.holders[key]; h != nil && l.now().Before(h.until) {
		return h.tokens
	}
	return 0
}

// hold calls until a hundredth of the burst is held, the most that can be.
func hold(t *testing.T, l *Leases, b Budget) {
	t.Helper()
	for range 100 {
		calls(t, l, 1, b)
		require.LessOrEqual(t, l.held(b.Key), b.Burst/100)
	}
	for range 100 {
		if l.held(b.Key) == b.Burst/100 {
			return
		}
		calls(t, l, 1, b)
	}
	t.Fatal("that much is never held")
}

// With less than a quarter left nothing is held: what one replica leaves another can use.
func TestNothingIsHeldNearTheLimit(t *testing.T) {
	t.Parallel()
	server := redistest.New(t)
	c := newClock()
	one, two := NewLeases(replica(t, server.URL, patient), c.now), NewLeases(replica(t, server.URL, patient), c.now)
	org, caller := Budget{"{1}", hourly(1000)}, Budget{"{1}:c", hourly(5000)}
	for range 750 {
		if calls(t, one, 1, org, caller).Remaining == 250 {
			break
		}
	}
	require.Zero(t, one.held(caller.Key))
	for range 100 {
		left := calls(t, one, 1, org, caller).Remaining
		require.Equal(t, left-1, calls(t, two, 1, org, caller).Remaining)
		require.Zero(t, one.held(caller.Key)+two.held(caller.Key))
	}
}

// After idleness a whole burst passes at once, and no more.
func TestLeasesBurstAfterIdleness(t *testing.T) {
	t.Parallel()
	c := newClock()
	l := NewLeases(replica(t, redistest.New(t).URL, patient), c.now)
	b := Budget{"b", hourly(1000)}
	budget := func(int) Budget { return b }
	require.Equal(t, 1000, rush(t, 1500, budget, l.one))
	c.pass(1000 * time.Hour)
	turn(t, l.limiter.client, "b", 1000*time.Hour)
	require.Equal(t, 1000, rush(t, 1500, budget, l.one))
}

// Redis may be lost whole: what is held goes on for a moment, and then the budget is a new one.
func TestLeasesRedisEmptied(t *testing.T) {
	t.Parallel()
	c := newClock()
	l := NewLeases(replica(t, redistest.New(t).URL, patient), c.now)
	b := Budget{"b", hourly(1000)}
	hold(t, l, b)
	for _, command := range [][]string{{"FLUSHALL"}, {"SCRIPT", "FLUSH"}} {
		require.NoError(t, l.limiter.client.Do(t.Context(), l.limiter.client.B().Arbitrary(command...).Build()).Error())
	}
	require.Equal(t, 1010, rush(t, 1500, func(int) Budget { return b }, l.one))
}

// With Redis frozen what is held passes; then calls are told that nobody knows, none after more than a trip of another's.
func TestLeasesFrozenRedis(t *testing.T) {
	t.Parallel()
	server := redistest.New(t)
	c := newClock()
	l := NewLeases(replica(t, server.URL, Options{Pause: time.Hour, Timeout: 2 * time.Second}), c.now)
	b := Budget{"b", hourly(1000)}
	hold(t, l, b)
	require.NoError(t, server.Pause())
	calls(t, l, 10, b)
	var all sync.WaitGroup
	begin := time.Now()
	for range 20 {
		all.Go(func() {
			got, err := l.Allow(t.Context(), b)
			if got.Allowed || errs.KindOf(err) != errs.Unavailable {
				t.Errorf("%+v %v", got, err)
			}
		})
	}
	all.Wait()
	require.Less(t, time.Since(begin), 20*time.Second, "not one trip after another")
	require.NoError(t, server.Continue())
	back(t, l.limiter, b)
	calls(t, l, 100, b)
}

// While one call asks for more the others wait for it, unless they leave, and do not ask too.
func TestCallersWaitForOneTrip(t *testing.T) {
	t.Parallel()
	server := redistest.New(t)
	c := newClock()
	l := NewLeases(replica(t, server.URL, patient), c.now)
	b := Budget{"b", hourly(100_000)}
	calls(t, l, 300, b)
	calls(t, l, l.held("b"), b)
	before := trips(t, l.limiter.client)
	came := l.holders["b"].recent
	require.NoError(t, server.Pause())
	var all sync.WaitGroup
	for range 50 {
		all.Go(func() {
			if got, err := l.Allow(t.Context(), b); err != nil || !got.Allowed {
				t.Errorf("%+v %v", got, err)
			}
		})
	}
	require.Eventually(t, func() bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		return l.holders["b"].recent == came+50
	}, 10*time.Second, time.Millisecond)
	gone, leave := context.WithCancel(t.Context())
	leave()
	_, err := l.Allow(gone, b)
	require.ErrorIs(t, err, context.Canceled)
	require.NoError(t, server.Continue())
	all.Wait()
	require.Equal(t, 1, trips(t, l.limiter.client)-before)
}

// However many callers there are, memory is bounded, and no call is let pass or refused for it.
func TestLeasesForgetCallers(t *testing.T) {
	t.Parallel()
	c := newClock()
	l := NewLeases(replica(t, redistest.New(t).URL, patient), c.now)
	for i := range 2*maxHolders + 1 {
		l.arrive(strconv.Itoa(i))
		require.LessOrEqual(t, len(l.holders), maxHolders)
	}
	got := calls(t, l, 3, Budget{"b", hourly(1000)})
	require.Equal(t, 997, got.Remaining)
}

func TestLeasesWithoutLimit(t *testing.T) {
	t.Parallel()
	server := redistest.New(t)
	l := NewLeases(replica(t, server.URL, patient), time.Now)
	require.NoError(t, server.Kill())
	require.Equal(t, Result{Allowed: true}, calls(t, l, 3, Budget{Key: "b"}))
	require.Empty(t, l.holders)
	_, err := l.Allow(t.Context(), Budget{"b", Limit{Rate: -1, Period: time.Second, Burst: 2}})
	require.Equal(t, errs.Internal, errs.KindOf(err))
}

// BenchmarkAllow is what a call costs of one caller, with and without leases.
func BenchmarkAllow(b *testing.B) {
	limiter := replica(b, redistest.New(b).URL, patient)
	leases := NewLeases(limiter, time.Now)
	perSecond := Limit{Rate: 1_000_000, Period: time.Second, Burst: 2_000_000}
	org, caller := Budget{"{1}", perSecond}, Budget{"{1}:c", perSecond}
	for _, x := range []struct {
		name  string
		allow func(context.Context) (Result, error)
	}{
		{"limiter", func(ctx context.Context) (Result, error) { return limiter.Allow(ctx, 1, org, caller) }},
		{"leases", func(ctx context.Context) (Result, error) { return leases.Allow(ctx, org, caller) }},
	} {
		b.Run(x.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if got, err := x.allow(b.Context()); err != nil || !got.Allowed {
					b.Fatal(got, err)
				}
			}
		})
	}
}
