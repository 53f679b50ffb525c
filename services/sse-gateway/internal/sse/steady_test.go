package sse_test

import (
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// A client that reads all the time, at a quarter of a megabyte each 100 ms, does not stall: design
// section 5 ends a stream for "a write that stalls", not for a page that takes longer than the timeout.
func TestASteadyReaderIsNotCutOff(t *testing.T) {
	const timeout = 1 * time.Second
	g := start(t, func(s *settings) { s.writeTimeout = timeout; s.hub.RingBytes = 64 << 10 })
	text := strings.Repeat("x", 200<<10)
	for range 60 { // 12 MB: pages of 100 events, which from Redis are bounded in number only
		g.log.Append(g.org, "task", "post_update", 1, text)
	}
	require.NoError(t, g.redis.Publish(t.Context()))
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, g.url+"?last_event_id=0&token="+g.token(), nil)
	require.NoError(t, err)
	res, err := g.client.Do(req)
	require.NoError(t, err)
	defer func() { _ = res.Body.Close() }()
	require.Equal(t, 200, res.StatusCode)
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	total := int64(0)
	for total < 11<<20 {
		<-tick.C
		n, err := io.CopyN(io.Discard, res.Body, 256<<10)
		total += n
		require.NoError(t, err, "cut off after %d bytes, slow: %d", total, g.streams.Stats.Slow.Load())
	}
}

// Nor does one that takes 128 KiB in half a second, though it takes longer than the timeout for the third of a buffer
// of 4 MiB that Linux would have it take before the next write.
func TestAModestReaderIsNotCutOff(t *testing.T) {
	const timeout = 2 * time.Second
	g := start(t, func(s *settings) { s.writeTimeout = timeout; s.hub.RingBytes = 64 << 10 })
	text := strings.Repeat("x", 10<<10)
	for range 1000 { // 10 MB
		g.log.Append(g.org, "task", "post_update", 1, text)
	}
	require.NoError(t, g.redis.Publish(t.Context()))
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, g.url+"?last_event_id=0&token="+g.token(), nil)
	require.NoError(t, err)
	res, err := g.client.Do(req)
	require.NoError(t, err)
	defer func() { _ = res.Body.Close() }()
	tick := time.NewTicker(500 * time.Millisecond)
	defer tick.Stop()
	for range 16 {
		<-tick.C
		_, err := io.CopyN(io.Discard, res.Body, 128<<10)
		require.NoError(t, err)
		require.Zero(t, g.streams.Stats.Slow.Load())
	}
}
