package feed_test

import (
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sametick/sametick/services/webhook-worker/internal/delivery"
)

// BenchmarkDeliveries is one delivery from the position log to history, with a receiver that costs nothing: what the
// worker and Postgres add to a POST. -cpu 1 gives the worker one core; Postgres has what else there is.
//
// Learned by profiles: the engine's own goroutine is some 5 % of the worker's time, most is net/http when the receiver is
// real. In Postgres the attempt's row costs about twice what scheduling and taking off do together, a third of it the
// ON CONFLICT that is therefore left to repeats, and each index a fifth. A window too small for a burst has every
// delivery read back from the table: hence delivery's window.
func BenchmarkDeliveries(b *testing.B) {
	s := newStage(b)
	const orgs = 16
	for org := range int64(orgs) {
		s.endpoint(org+1, org+1, "event_types = '{task.*}'")
	}
	payload := `{"record_name": "` + strings.Repeat("x", 700) + `"}`
	for i := range b.N {
		s.log.AppendPayload(int64(i%orgs+1), "task", "task.post_update", int64(i+1), payload)
	}
	require.NoError(b, s.publisher.Publish(b.Context()))
	b.ResetTimer()
	began := time.Now()
	var ended atomic.Int64
	w := s.work("bench", options{change: func(c *delivery.Config) {
		c.Sender, c.MaxBytes, c.InAll, c.PerOrg, c.PerEndpoint = instantSender{}, 128<<20, 2048, 512, 32
		c.Observe = func(*delivery.Outcome) { ended.Add(1) }
	}})
	look := time.NewTicker(5 * time.Millisecond)
	defer look.Stop()
	for ended.Load() < int64(b.N) || w.stats.Unsaved.Load() > 0 {
		<-look.C
	}
	b.ReportMetric(float64(b.N)/time.Since(began).Seconds(), "deliveries/s")
	b.StopTimer()
	w.stop()
}
