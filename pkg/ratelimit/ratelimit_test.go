package ratelimit

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/rueidis"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/sametick/sametick/pkg/errs"
	"github.com/sametick/sametick/pkg/redisconn"
	"github.com/sametick/sametick/pkg/redistest"
)

// The client's reconnect delay is a sleep of at most a second that its Close does not wait for.
func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("github.com/redis/rueidis.(*call).DelayDo.func1"))
}

// patient is for tests that are not about time: the machine may be busy.
var patient = Options{Timeout: 10 * time.Second}

func replica(t testing.TB, url string, o Options) *Limiter {
	t.Helper()
	c, err := redisconn.Open(t.Context(), url, redisconn.Options{})
	require.NoError(t, err)
	t.Cleanup(c.Close)
	return New(c, o)
}

func take(t *testing.T, l *Limiter, n int, budgets ...Budget) Result {
	t.Helper()
	got, err := l.Allow(t.Context(), n, budgets...)
	require.NoError(t, err)
	return got
}

// turn makes the server's clock seem to have gone on by d since the bucket was last used; back, if negative.
func turn(t *testing.T, c rueidis.Client, key string, d time.Duration) {
	t.Helper()
	stored, err := c.Do(t.Context(), c.B().Get().Key(key).Build()).ToString()
	require.NoError(t, err)
	gone, at, ok := strings.Cut(stored, " ")
	require.True(t, ok)
	micro, err := strconv.ParseInt(at, 10, 64)
	require.NoError(t, err)
	value := fmt.Sprintf("%s %d", gone, micro-d.Microseconds())
	require.NoError(t, c.Do(t.Context(), c.B().Set().Key(key).Value(value).Keepttl().Build()).Error())
}

// one takes a token.
func (l *Limiter) one(ctx context.Context, b Budget) (Result, error) { return l.Allow(ctx, 1, b) }

// rush lets many goroutines of each limiter call, and counts the calls that pass.
func rush(t *testing.T, calls int, budget func(replica int) Budget, limiters ...func(context.Context, Budget) (Result, error)) int {
	t.Helper()
	var passed atomic.Int64
	var all sync.WaitGroup
	for i, one := range limiters {
		for range 20 {
			all.Go(func() {
				for range calls / 20 {
					got, err := one(t.Context(), budget(i))
					if err != nil {
						t.Error(err)
					}
					if got.Allowed {
						passed.Add(1)
					}
				}
			})
		}
	}
	all.Wait()
	return int(passed.Load())
}

func TestReplicasShareOneBudgetExactly(t *testing.T) {
	t.Parallel()
	server := redistest.New(t)
	a, b := replica(t, server.URL, patient), replica(t, server.URL, patient)
	require.Equal(t, 137, rush(t, 400, func(int) Budget { return Budget{"shared", hourly(137)} }, a.one, b.one))
	// The control: replicas that do not share let twice as many pass, and rush sees it.
	require.Equal(t, 2*137, rush(t, 400, func(i int) Budget { return Budget{strconv.Itoa(i), hourly(137)} }, a.one, b.one))
}

func TestBurstThenRate(t *testing.T) {
	t.Parallel()
	l := replica(t, redistest.New(t).URL, patient)
	b := Budget{"b", Limit{Rate: 1, Period: time.Minute, Burst: 3}}
	for left := range 3 {
		got := take(t, l, 1, b)
		require.True(t, got.Allowed)
		require.Equal(t, 2-left, got.Remaining)
		require.Equal(t, b, got.Budget)
		require.Zero(t, got.RetryAfter)
	}
	got := take(t, l, 1, b)
	require.False(t, got.Allowed)
	require.Zero(t, got.Remaining)
	require.InDelta(t, time.Minute, got.RetryAfter, float64(20*time.Second))
	require.InDelta(t, 3*time.Minute, got.ResetAfter, float64(20*time.Second))

	turn(t, l.client, "b", got.RetryAfter)
	require.True(t, take(t, l, 1, b).Allowed, "RetryAfter is long enough")
	require.False(t, take(t, l, 1, b).Allowed, "and gives one")
	turn(t, l.client, "b", 90*time.Second)
	require.False(t, take(t, l, 2, b).Allowed, "a call of two is taken whole or not at all")
	turn(t, l.client, "b", 30*time.Second)
	require.True(t, take(t, l, 2, b).Allowed)
}

// A rate that no clock divides evenly neither loses nor makes a token.
func TestUnevenRate(t *testing.T) {
	t.Parallel()
	l := replica(t, redistest.New(t).URL, patient)
	b := Budget{"b", Limit{Rate: 7, Period: time.Hour, Burst: 7}}
	for range 20 {
		for range 7 {
			require.True(t, take(t, l, 1, b).Allowed)
		}
		require.False(t, take(t, l, 1, b).Allowed)
		turn(t, l.client, "b", time.Hour)
	}
}

func TestClockThatJumpsHarmsNobody(t *testing.T) {
	t.Parallel()
	l := replica(t, redistest.New(t).URL, patient)
	b := Budget{"b", Limit{Rate: 1, Period: time.Minute, Burst: 2}}
	require.True(t, take(t, l, 2, b).Allowed)

	turn(t, l.client, "b", -24*time.Hour)
	got := take(t, l, 1, b)
	require.False(t, got.Allowed, "going back gives nothing")
	require.LessOrEqual(t, got.RetryAfter, time.Minute, "and is not waited for")
	turn(t, l.client, "b", got.RetryAfter)
	require.True(t, take(t, l, 1, b).Allowed)

	turn(t, l.client, "b", 24*time.Hour)
	require.True(t, take(t, l, 2, b).Allowed)
	require.False(t, take(t, l, 1, b).Allowed, "a jump forward gives one burst, not more")
}

// A call that one budget refuses takes nothing of the others: a caller over its limit leaves its
// organisation's alone.
func TestAllBudgetsOrNone(t *testing.T) {
	t.Parallel()
	l := replica(t, redistest.New(t).URL, patient)
	org := Budget{"{1}", Limit{Rate: 1, Period: time.Hour, Burst: 5}}
	key, other := Budget{"{1}:key", Limit{Rate: 1, Period: time.Hour, Burst: 2}}, Budget{"{1}:other", Limit{Rate: 1, Period: time.Hour, Burst: 9}}
	require.Equal(t, key, take(t, l, 1, org, key).Budget, "the one with the least left is told")
	require.True(t, take(t, l, 1, org, key).Allowed)
	for range 10 {
		got := take(t, l, 1, org, key)
		require.False(t, got.Allowed)
		require.Equal(t, key, got.Budget)
	}
	for range 3 {
		require.True(t, take(t, l, 1, org, other).Allowed)
	}
	got := take(t, l, 1, org, other)
	require.False(t, got.Allowed)
	require.Equal(t, org, got.Budget)
}

func TestSmallerLimitCountsFromNow(t *testing.T) {
	t.Parallel()
	l := replica(t, redistest.New(t).URL, patient)
	require.True(t, take(t, l, 1000, Budget{"b", Limit{Rate: 1, Period: time.Minute, Burst: 1000}}).Allowed)
	got := take(t, l, 1, Budget{"b", Limit{Rate: 1, Period: time.Minute, Burst: 2}})
	require.False(t, got.Allowed)
	require.LessOrEqual(t, got.RetryAfter, time.Minute)
}

func TestNoLimitAsksNobody(t *testing.T) {
	t.Parallel()
	server := redistest.New(t)
	l := replica(t, server.URL, patient)
	require.NoError(t, server.Kill())
	got, err := l.Allow(t.Context(), 1, Budget{Key: "b"})
	require.NoError(t, err)
	require.Equal(t, Result{Allowed: true}, got)
}

func TestImpossibleLimits(t *testing.T) {
	t.Parallel()
	l := replica(t, redistest.New(t).URL, patient)
	for _, c := range []struct {
		n int
		Limit
	}{
		{3, Limit{Rate: 1, Period: time.Second, Burst: 2}}, {0, Limit{Rate: 1, Period: time.Second, Burst: 2}},
		{1, Limit{Rate: -1, Period: time.Second, Burst: 2}}, {1, Limit{Rate: 1, Burst: 2}}, {1, Limit{Rate: 1, Period: time.Second}},
	} {
		_, err := l.Allow(t.Context(), c.n, Budget{"b", c.Limit})
		require.Equal(t, errs.Internal, errs.KindOf(err), "%+v", c)
	}
}

// Redis may be lost whole, with the scripts it knew: budgets are full again, and nothing fails.
func TestRedisEmptied(t *testing.T) {
	t.Parallel()
	l := replica(t, redistest.New(t).URL, patient)
	b := Budget{"b", Limit{Rate: 1, Period: time.Hour, Burst: 1}}
	require.True(t, take(t, l, 1, b).Allowed)
	require.False(t, take(t, l, 1, b).Allowed)
	for _, command := range [][]string{{"FLUSHALL"}, {"SCRIPT", "FLUSH"}} {
		require.NoError(t, l.client.Do(t.Context(), l.client.B().Arbitrary(command...).Build()).Error())
	}
	require.True(t, take(t, l, 1, b).Allowed)
	require.False(t, take(t, l, 1, b).Allowed)
}

// Buckets leave Redis by themselves when they are full.
func TestBucketsExpire(t *testing.T) {
	t.Parallel()
	l := replica(t, redistest.New(t).URL, patient)
	take(t, l, 2, Budget{"b", Limit{Rate: 1, Period: time.Minute, Burst: 5}})
	left, err := l.client.Do(t.Context(), l.client.B().Pttl().Key("b").Build()).AsInt64()
	require.NoError(t, err)
	require.InDelta(t, 2*time.Minute.Milliseconds(), left, 20_000)
}

// One call waits for a Redis that does not answer; those after it do not, and one of them finds it back.
func TestFrozenRedis(t *testing.T) {
	t.Parallel()
	server := redistest.New(t)
	l := replica(t, server.URL, Options{Pause: time.Hour})
	b := Budget{"b", Limit{Rate: 1, Period: time.Hour, Burst: 1000}}
	_, _ = l.Allow(t.Context(), 1, b) // the script is there
	l.askAt.Store(0)

	require.NoError(t, server.Pause())
	begin := time.Now()
	_, err := l.Allow(t.Context(), 1, b)
	require.Equal(t, errs.Unavailable, errs.KindOf(err))
	require.GreaterOrEqual(t, time.Since(begin), 50*time.Millisecond)
	require.Less(t, time.Since(begin), 2*time.Second)
	asked := l.askAt.Load()
	for range 1000 {
		_, err = l.Allow(t.Context(), 1, b)
		require.ErrorIs(t, err, errDown)
	}
	require.Equal(t, asked, l.askAt.Load(), "none of them asked")

	l.askAt.Store(time.Now().UnixNano()) // the pause is over
	_, err = l.Allow(t.Context(), 1, b)
	require.ErrorIs(t, err, errDown)
	require.Greater(t, l.askAt.Load(), asked, "that one did, and found it frozen still")

	require.NoError(t, server.Continue())
	back(t, l, b)
}

func TestDeadRedis(t *testing.T) {
	t.Parallel()
	server := redistest.New(t)
	l := replica(t, server.URL, Options{Pause: time.Millisecond})
	b := Budget{"b", Limit{Rate: 1, Period: time.Hour, Burst: 1000}}
	require.NoError(t, server.Kill())
	begin := time.Now()
	_, err := l.Allow(t.Context(), 1, b)
	require.Equal(t, errs.Unavailable, errs.KindOf(err))
	require.Less(t, time.Since(begin), 2*time.Second)
	require.NoError(t, server.Start(t.Context()))
	back(t, l, b)
}

// back waits until Redis is found again.
func back(t *testing.T, l *Limiter, b Budget) {
	t.Helper()
	require.Eventually(t, func() bool {
		l.askAt.CompareAndSwap(l.askAt.Load(), 0)
		got, err := l.Allow(t.Context(), 1, b)
		return err == nil && got.Allowed
	}, 30*time.Second, 10*time.Millisecond)
	require.Zero(t, l.askAt.Load())
}

// A caller that goes away says nothing about Redis.
func TestCallerLeaves(t *testing.T) {
	t.Parallel()
	l := replica(t, redistest.New(t).URL, patient)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	b := Budget{"b", Limit{Rate: 1, Period: time.Hour, Burst: 1}}
	_, err := l.Allow(ctx, 1, b)
	require.ErrorIs(t, err, context.Canceled)
	require.True(t, take(t, l, 1, b).Allowed)
}
