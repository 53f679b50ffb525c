package latency

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

func TestClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		clock, start := NewClock(), time.Now()
		ms := func(n int) time.Time { return start.Add(time.Duration(n) * time.Millisecond) }
		clock.commit(1, ms(10))
		clock.Arrived(1, ms(13))
		clock.Arrived(2, ms(19)) // before its writer heard of the commit
		clock.commit(2, ms(20))
		clock.commit(3, ms(30))
		time.AfterFunc(time.Second, func() {
			clock.Arrived(3, ms(41))
			clock.Arrived(3, ms(99)) // a second reader's
		})
		require.NoError(t, clock.wait(t.Context()))
		r := clock.result(start, 4)
		require.Equal(t, Result{P50: 3, P99: 10.84, Max: 11, Events: 3, Late: 4}, rounded(r))
		require.Equal(t, 1, clock.result(ms(25), 0).Events, "what came in the warm-up is not counted")
	})
}

// The measurement must not pass over an event that never arrives: it would be the slowest of all.
func TestClockMissesWhatIsLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		clock := NewClock()
		clock.commit(1, time.Now())
		clock.Arrived(2, time.Now())
		require.ErrorContains(t, clock.wait(t.Context()), "1 committed events did not reach the reader")
	})
}

func rounded(r Result) Result {
	for _, v := range []*float64{&r.P50, &r.P99, &r.Max} {
		*v = float64(int(*v*100+0.5)) / 100
	}
	return r
}

func TestEventID(t *testing.T) {
	id, err := eventID([]byte(`{"id":8401,"org_id":1}`))
	require.NoError(t, err)
	require.EqualValues(t, 8401, id)
	for _, text := range []string{``, `{"id":`, `{"id":8401`, `{"org_id":1,"id":8401}`, `{"id":"8401",`} {
		_, err := eventID([]byte(text))
		require.Error(t, err, text)
	}
}
