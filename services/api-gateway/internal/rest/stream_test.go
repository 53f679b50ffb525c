package rest

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sametick/sametick/pkg/lifecycle"
)

// anyToken lets every stream pass.
type anyToken struct{}

func (anyToken) StreamToken(_ context.Context, token string) (string, error) { return token, nil }

// proxied starts the way to an sse-gateway that upstream stands for; ended gets a value for each stream that ends.
func proxied(t *testing.T, limits StreamLimits, upstream http.HandlerFunc) (address string, ended <-chan struct{}) {
	gateway := httptest.NewServer(upstream)
	t.Cleanup(gateway.Close)
	target, err := url.Parse(gateway.URL)
	require.NoError(t, err)
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	stream := NewStream(target, anyToken{}, transport, limits, slog.New(slog.DiscardHandler))
	over := make(chan struct{}, 10)
	front := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() { over <- struct{}{} }()
		stream.ServeHTTP(w, r)
	}))
	front.Config.ConnContext = lifecycle.LimitUnsent
	front.Start()
	t.Cleanup(front.Close)
	return strings.TrimPrefix(front.URL, "http://"), over
}

func get(t *testing.T, address string) *http.Response {
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+address+streamPath, nil)
	require.NoError(t, err)
	transport := &http.Transport{DisableKeepAlives: true}
	res, err := transport.RoundTrip(req)
	require.NoError(t, err)
	t.Cleanup(func() { _ = res.Body.Close() })
	return res
}

// An sse-gateway that is stopped, or whose host vanished, sends nothing and ends nothing. EventSource waits for
// ever then; an end it answers by connecting again. Heartbeats are enough to stay.
func TestASilentStreamEnds(t *testing.T) {
	const beats = 5
	address, _ := proxied(t, StreamLimits{Silence: 500 * time.Millisecond, Write: time.Minute}, func(w http.ResponseWriter, r *http.Request) {
		beat := time.NewTicker(200 * time.Millisecond)
		defer beat.Stop()
		for range beats {
			_, _ = io.WriteString(w, ": heartbeat\n\n")
			_ = http.NewResponseController(w).Flush()
			<-beat.C
		}
		<-r.Context().Done()
	})
	begin := time.Now()
	body, err := io.ReadAll(get(t, address).Body)
	require.NoError(t, err, "it ends, and is not broken off")
	require.Equal(t, beats, strings.Count(string(body), ": heartbeat\n\n"))
	require.Greater(t, time.Since(begin), beats*150*time.Millisecond, "a stream with heartbeats goes on")
	require.Less(t, time.Since(begin), 10*time.Second)
}

// endless is an sse-gateway with more than any buffer holds.
func endless(w http.ResponseWriter, r *http.Request) {
	line := fmt.Sprintf("data: %s\n\n", strings.Repeat("x", 8<<10))
	for r.Context().Err() == nil {
		if _, err := io.WriteString(w, line); err != nil {
			return
		}
	}
}

// A client that does not read is left; else it holds a stream for as long as it likes.
func TestAStreamThatIsNotReadEnds(t *testing.T) {
	address, ended := proxied(t, StreamLimits{Silence: time.Minute, Write: 300 * time.Millisecond}, endless)
	client, err := net.Dial("tcp", address)
	require.NoError(t, err)
	defer func() { _ = client.Close() }()
	_, err = fmt.Fprintf(client, "GET %s HTTP/1.1\r\nHost: x\r\n\r\n", streamPath)
	require.NoError(t, err)
	select {
	case <-ended:
	case <-time.After(20 * time.Second):
		require.Fail(t, "the stream is held")
	}
}

// One that reads steadily is not, though all that is in between takes it longer than a write may last.
func TestAStreamThatIsReadSlowlyGoesOn(t *testing.T) {
	address, ended := proxied(t, StreamLimits{Silence: time.Minute, Write: time.Second}, endless)
	body := bufio.NewReader(get(t, address).Body)
	tick := time.NewTicker(250 * time.Millisecond)
	defer tick.Stop()
	for range 16 {
		<-tick.C
		_, err := io.CopyN(io.Discard, body, 64<<10)
		require.NoError(t, err)
	}
	require.Empty(t, ended)
}
