// Package ratelimit has the limiter that all replicas of a service share: token buckets in Redis. What is
// limited, and what happens while Redis is away, is for the caller.
//
// The script is our own because the libraries at hand fall short: throttled compares and swaps in several
// round trips and gives up when many ask at once; redis_rate wants another client than ours, rounds what it stores
// and, after the server's clock went back, refuses for as long as it went back; rueidislimiter counts in
// fixed windows, which let twice the rate pass at their edges, by the clocks of its callers.
package ratelimit

import (
	"context"
	_ "embed"
	"fmt"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/redis/rueidis"

	"github.com/sametick/sametick/pkg/errs"
)

//go:embed bucket.lua
var bucket string

// Limit is a token bucket: Burst at once, and Rate more in each Period. Zero Rate is no limit.
type Limit struct {
	Rate   int
	Period time.Duration
	Burst  int
}

// Budget is a bucket by its name, which replicas share. Several budgets of one call need a common {tag} in
// their keys, for Redis Cluster.
type Budget struct {
	Key string
	Limit
}

// Result is what a call got.
type Result struct {
	Allowed bool
	// Budget is the one with the least left or, for a call that is refused, the one it has to wait for
	// longest. It is zero when there was no limit.
	Budget Budget
	// Remaining are the tokens left.
	Remaining int
	// RetryAfter is when the same call would pass if nobody else calls; 0 when it is allowed.
	RetryAfter time.Duration
	// ResetAfter is when the budget is whole again.
	ResetAfter time.Duration
}

// Options of a Limiter.
type Options struct {
	// Timeout bounds a call to Redis; 0 means 50 ms.
	Timeout time.Duration
	// Pause is how long Redis is left alone after it failed; 0 means a second.
	Pause time.Duration
}

// Limiter takes from budgets. It is safe for concurrent use.
type Limiter struct {
	client  rueidis.Client
	script  *rueidis.Lua
	options Options
	// askAt is when Redis, having failed, is asked again, in Unix nanoseconds; 0 while it answers.
	askAt atomic.Int64
}

// New makes a limiter. The client is closed by the caller.
func New(client rueidis.Client, o Options) *Limiter {
	if o.Timeout == 0 {
		o.Timeout = 50 * time.Millisecond
	}
	if o.Pause == 0 {
		o.Pause = time.Second
	}
	return &Limiter{client: client, script: rueidis.NewLuaScript(bucket), options: o}
}

// errDown is what callers see while Redis is left alone.
var errDown = errs.New(errs.Unavailable, "RATE_LIMIT_UNAVAILABLE", "rate limits cannot be told now")

// Allow takes n tokens from all budgets at once, or from none of them: in one round trip, and by the clock of
// Redis. It errs with errs.Unavailable when Redis does not answer in time, and then at once for a while: whether
// the call passes is for the caller to say. What it took then nobody knows. n must be from 1 to the smallest Burst.
func (l *Limiter) Allow(ctx context.Context, n int, budgets ...Budget) (Result, error) {
	limited, err := limited(n, budgets)
	if err != nil || len(limited) == 0 {
		return Result{Allowed: err == nil}, err
	}
	got, _, err := l.take(ctx, n, 0, limited)
	return got, err
}

// limited are the budgets that have a limit.
func limited(n int, budgets []Budget) ([]Budget, error) {
	out := make([]Budget, 0, len(budgets))
	for _, b := range budgets {
		switch {
		case b.Rate == 0:
			continue
		case b.Rate < 0 || b.Period < time.Microsecond || n < 1 || n > b.Burst:
			return nil, errs.New(errs.Internal, "INTERNAL", "internal error").WithCause(fmt.Errorf("ratelimit: %d of %+v", n, b))
		}
		out = append(out, b)
	}
	return out, nil
}

// take takes n tokens, and more if a quarter of each budget is left then, and tells how many it took. It leaves Redis
// alone while that is due. After the pause one call tries, and the others go on being refused until it has an answer.
func (l *Limiter) take(ctx context.Context, n, more int, budgets []Budget) (Result, int, error) {
	now := time.Now()
	if at := l.askAt.Load(); at != 0 && (now.UnixNano() < at || !l.askAt.CompareAndSwap(at, now.Add(l.options.Pause).UnixNano())) {
		return Result{}, 0, errDown
	}
	keys, args := make([]string, len(budgets)), make([]string, 2, 2+3*len(budgets))
	args[0], args[1] = strconv.Itoa(n), strconv.Itoa(more)
	for i, b := range budgets {
		keys[i] = b.Key
		args = append(args, strconv.Itoa(b.Rate), strconv.FormatInt(b.Period.Microseconds(), 10), strconv.Itoa(b.Burst))
	}
	within, cancel := context.WithTimeout(ctx, l.options.Timeout)
	defer cancel()
	answer, err := l.script.Exec(within, l.client, keys, args).AsIntSlice()
	switch {
	case err == nil && len(answer) == 1+3*len(budgets):
		l.askAt.Store(0)
		return tightest(answer, budgets), int(answer[0]), nil
	case ctx.Err() != nil: // the caller left: no fault of Redis
		return Result{}, 0, ctx.Err()
	case err == nil:
		err = fmt.Errorf("ratelimit: the script answered %v", answer)
	}
	l.askAt.Store(time.Now().Add(l.options.Pause).UnixNano())
	return Result{}, 0, errDown.WithCause(err)
}

func tightest(answer []int64, budgets []Budget) (out Result) {
	out.Allowed = answer[0] > 0
	for i, b := range budgets {
		left, wait, full := int(answer[3*i+1]), microseconds(answer[3*i+2]), microseconds(answer[3*i+3])
		if i == 0 || wait > out.RetryAfter || wait == out.RetryAfter && left < out.Remaining {
			out.Budget, out.Remaining, out.RetryAfter, out.ResetAfter = b, left, wait, full
		}
	}
	return out
}

func microseconds(n int64) time.Duration { return time.Duration(n) * time.Microsecond }
