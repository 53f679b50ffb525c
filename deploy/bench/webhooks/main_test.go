package main

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/sametick/sametick/deploy/bench/internal/latency"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestTheShortFormIsAStartAndNoLimit(t *testing.T) {
	o, err := parse([]string{"--short", "--rounds", "7", "--legs", "drain,dead"}, io.Discard)
	require.NoError(t, err)
	require.Equal(t, 7, o.rounds)
	require.Equal(t, 20_000, o.events)
	require.Equal(t, []string{"drain", "dead"}, o.legs)
	long, err := parse([]string{"--long"}, io.Discard)
	require.NoError(t, err)
	require.Equal(t, 10*time.Minute, long.hold)
	for _, args := range [][]string{{"--legs", "none"}, {"--rounds", "0"}, {"--events", "10"}} {
		_, err := parse(args, io.Discard)
		require.Error(t, err, "%v", args)
	}
}

func TestProgressReadsTheWorkersMetrics(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "# HELP x\n"+`sametick_webhooks_attempts_total{cause="",outcome="delivered"} 1.2345e+04
sametick_webhooks_attempts_total{cause="status",outcome="retrying"} 7
sametick_webhooks_unsaved 3
`)
	}))
	defer s.Close()
	delivered, unsaved, err := progress(t.Context(), strings.TrimPrefix(s.URL, "http://"))
	require.NoError(t, err)
	require.Equal(t, 12345, delivered)
	require.Equal(t, 3, unsaved)
	http.DefaultClient.CloseIdleConnections()
}

func TestTheReceiverCountsWhatItAnswers(t *testing.T) {
	r, err := listen(t.Context())
	require.NoError(t, err)
	clock := latency.NewClock()
	r.clock.Store(clock)
	client := &http.Client{Timeout: 200 * time.Millisecond, Transport: &http.Transport{DisableKeepAlives: true}}
	for path, answered := range map[string]bool{pathWell: true, pathHanging: false} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, r.url+path+"1", strings.NewReader("{}"))
		require.NoError(t, err)
		req.Header.Set("webhook-id", "msg_5_1")
		resp, err := client.Do(req)
		require.Equal(t, answered, err == nil, path)
		if err == nil {
			require.NoError(t, resp.Body.Close())
		}
	}
	require.EqualValues(t, 1, r.taken.Load())
	require.NoError(t, r.close())
}
