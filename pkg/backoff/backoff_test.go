package backoff_test

import (
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/sametick/sametick/pkg/backoff"
)

func TestCeiling(t *testing.T) {
	p := backoff.Policy{Base: 10 * time.Millisecond, Cap: time.Second}
	for failures, want := range map[int]time.Duration{
		-1: 10 * time.Millisecond, 0: 10 * time.Millisecond, 1: 10 * time.Millisecond, 2: 20 * time.Millisecond,
		7: 640 * time.Millisecond, 8: time.Second, 63: time.Second, 64: time.Second, math.MaxInt: time.Second,
	} {
		require.Equal(t, want, p.Ceiling(failures), "after %d failures", failures)
	}
	require.Equal(t, time.Duration(1), backoff.Policy{}.Ceiling(1))
}

func TestBounds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := rapid.Int64Range(math.MinInt64/4, math.MaxInt64/4)
		p := backoff.Policy{
			Base: time.Duration(d.Draw(t, "base")), Cap: time.Duration(d.Draw(t, "cap")), Floor: time.Duration(d.Draw(t, "floor")),
		}
		n := rapid.Int().Draw(t, "failures")
		top := max(p.Cap, p.Base, 1)

		c := p.Ceiling(n)
		require.Positive(t, c)
		require.LessOrEqual(t, c, top)
		if n < math.MaxInt {
			require.LessOrEqual(t, c, p.Ceiling(n+1), "never shorter after one more failure")
		}
		w := p.Wait(n, rapid.Float64Range(0, math.Nextafter(1, 0)).Draw(t, "r"))
		require.GreaterOrEqual(t, w, time.Duration(0))
		require.LessOrEqual(t, w, top)
		require.GreaterOrEqual(t, w, min(max(p.Floor, 0), top))
	})
}

// Full jitter: the waits fill the whole interval, else callers that failed together return together.
func TestSpread(t *testing.T) {
	p := backoff.Policy{Base: time.Second, Cap: time.Second}
	var low, high int
	for range 1000 {
		switch w := p.Next(1); {
		case w < 250*time.Millisecond:
			low++
		case w > 750*time.Millisecond:
			high++
		}
	}
	require.InDelta(t, 250, low, 120)
	require.InDelta(t, 250, high, 120)
}
