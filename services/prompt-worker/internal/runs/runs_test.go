package runs

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"github.com/sametick/sametick/services/prompt-worker/internal/prompting"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestRetryAfter(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		asked := time.Duration(rapid.Int64Range(0, int64(100*24*time.Hour)).Draw(t, "asked"))
		attempts := rapid.IntRange(1, 8).Draw(t, "attempts")
		share := rapid.Float64Range(0, 1).Draw(t, "share")
		wait, again := RetryAfter(attempts, &prompting.ModelError{Cause: prompting.CauseRateLimited, RetryAfter: asked}, share)
		require.Equal(t, attempts < MaxAttempts, again)
		if !again {
			return
		}
		require.GreaterOrEqual(t, wait, min(asked, 24*time.Hour), "never earlier than the provider asks for")
		require.GreaterOrEqual(t, wait, waits()[attempts-1], "nor than the schedule says")
		require.LessOrEqual(t, wait, max(24*time.Hour, waits()[attempts-1]*5/4))
	})
	for _, cause := range []string{prompting.CauseQuota, prompting.CauseBudget, prompting.CauseRefused, prompting.CauseUnauthorized, prompting.CauseTruncated,
		prompting.CauseInvalid, prompting.CauseBadRequest, prompting.CauseTemplate, prompting.CauseTool, prompting.CauseCondition} {
		_, again := RetryAfter(1, &prompting.ModelError{Cause: cause, RetryAfter: time.Second}, 0)
		require.False(t, again, cause)
	}
}

// Everybody gets the answer to what he asked, in calls of at most so many, one at a time.
func TestGroup(t *testing.T) {
	var mu sync.Mutex
	var sizes []int
	g := &group[int, int]{most: 10, do: func(_ context.Context, values []int) ([]int, error) {
		if !mu.TryLock() {
			t.Error("two calls at once")
		}
		defer mu.Unlock()
		sizes = append(sizes, len(values))
		out := make([]int, len(values))
		for i, v := range values {
			if out[i] = v * v; v < 0 {
				return nil, errors.New("no")
			}
		}
		return out, nil
	}}
	var all sync.WaitGroup
	for i := range 1000 {
		all.Go(func() {
			got, err := g.Do(t.Context(), i)
			if err != nil || got != i*i {
				t.Errorf("%d: %d, %v", i, got, err)
			}
		})
	}
	all.Wait()
	sum := 0
	for _, n := range sizes {
		require.LessOrEqual(t, n, 10)
		sum += n
	}
	require.Equal(t, 1000, sum)
	_, err := g.Do(t.Context(), -1)
	require.EqualError(t, err, "no")
	got, err := g.Do(t.Context(), 3)
	require.NoError(t, err)
	require.Equal(t, 9, got, "an error is of its call alone")
}
