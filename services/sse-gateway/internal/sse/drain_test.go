package sse_test

import (
	"context"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// A client that stops reading holds a write for as long as the write timeout; when the process stops it holds it no
// longer than CutAfter, or it alone would take the grace time of all.
func TestAClientThatDoesNotReadDoesNotHoldUpTheDrain(t *testing.T) {
	for name, protocol := range map[string]func(*http.Protocols){
		"HTTP/1.1": func(p *http.Protocols) { p.SetHTTP1(true) },
		"HTTP/2":   func(p *http.Protocols) { p.SetUnencryptedHTTP2(true) },
	} {
		t.Run(name, func(t *testing.T) {
			g := start(t, func(s *settings) { s.writeTimeout = time.Minute; s.hub.RingBytes = 64 << 10 })
			text := strings.Repeat("x", 200<<10)
			for range 60 { // more than the sockets hold
				g.log.Append(g.org, "task", "post_update", 1, text)
			}
			require.NoError(t, g.redis.Publish(t.Context()))
			transport := &http.Transport{Protocols: new(http.Protocols), DisableKeepAlives: true}
			protocol(transport.Protocols)
			defer transport.CloseIdleConnections()
			req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, g.url+"?last_event_id=0&token="+g.token(), nil)
			require.NoError(t, err)
			res, err := (&http.Client{Transport: transport}).Do(req)
			require.NoError(t, err)
			defer func() { _ = res.Body.Close() }()
			_, err = io.CopyN(io.Discard, res.Body, 1<<20)
			require.NoError(t, err)
			delivered := int64(-1)
			require.Eventually(t, func() bool { // it has come to a halt
				before := delivered
				delivered = g.streams.Stats.Delivered.Load()
				return delivered > 0 && delivered == before
			}, 20*time.Second, 500*time.Millisecond)
			require.Less(t, delivered, int64(60))

			g.streams.CutAfter = time.Second
			begin := time.Now()
			work, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			g.drain(work)
			require.NoError(t, work.Err(), "the drain took until the end of the grace time")
			require.GreaterOrEqual(t, time.Since(begin), time.Second, "it is given CutAfter to read on")
			require.Zero(t, g.streams.Stats.Open.Load())
		})
	}
}
