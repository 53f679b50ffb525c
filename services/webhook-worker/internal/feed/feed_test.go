package feed_test

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/require"
)

// From the event to the receiver and into history; each endpoint gets what comes after its creation, and only that.
func TestFromEventToHistory(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	s.emit(1, 3)
	s.endpoint(1, 10, "")
	s.emit(1, 3)
	s.endpoint(1, 11, "aggregate_ids = '{2}'")
	s.emit(1, 3)
	s.endpoint(2, 20, "")
	s.emit(2, 1)
	s.work("a", options{})
	// 10: its 3, the post_create of 11, 3 more; 11: one of 3; 20: one.
	eventually(t, "all are sent and persisted", func() bool {
		return s.count("webhook_attempts WHERE outcome = 'delivered'") == 7+1+1 && s.count("webhook_queue") == 0
	})
	per := map[int64]int{}
	for _, g := range s.requests() {
		per[g.endpoint]++
		var e struct {
			ID      int64
			Payload json.RawMessage
		}
		require.NoError(t, json.Unmarshal([]byte(g.body), &e))
		require.Equal(t, g.event, e.ID)
		if g.endpoint != 10 {
			require.JSONEq(t, `{"a": [1, 2], "b": "x  y"}`, string(e.Payload))
			require.Contains(t, g.body, `"payload":{"a":[1,2],"b":"x  y"}`, "minified")
		}
	}
	require.Equal(t, map[int64]int{10: 7, 11: 1, 20: 1}, per)
	require.Equal(t, 9, s.count(`webhook_attempts WHERE attempt = 1 AND status = 200 AND latency_us > 0 AND request_headers ? 'Endpoint'
		AND response_headers ? 'Date' AND cause = '' AND next_at IS NULL AND scheduled_at <= created_at AND trigger = 'event'`))
}
