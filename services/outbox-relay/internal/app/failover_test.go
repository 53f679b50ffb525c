package app_test

import (
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sametick/sametick/pkg/redistest"
	"github.com/sametick/sametick/services/outbox-relay/internal/app"
	"github.com/sametick/sametick/services/outbox-relay/internal/relaytest"
)

func get(t *testing.T, url string) (int, string) {
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	require.NoError(t, err)
	transport := &http.Transport{DisableKeepAlives: true}
	res, err := transport.RoundTrip(req)
	if err != nil {
		return 0, err.Error()
	}
	defer func() { _ = res.Body.Close() }()
	body, err := io.ReadAll(res.Body)
	require.NoError(t, err)
	return res.StatusCode, string(body)
}

func leads(t *testing.T, r *relay) bool {
	_, body := get(t, "http://"+r.ops+"/metrics")
	return strings.Contains(body, "\nsametick_relay_leading 1\n")
}

// The lock's session ends, as a stopped leader's does: the standby leads within two seconds and the old
// leader steps down.
func TestStandbyTakesOver(t *testing.T) {
	db, red := relaytest.Database(t), redistest.New(t)
	pool, c := db.Pool(t), client(t, red.URL)
	url := db.URLAs(t, "sametick_relay")
	one := start(t, url, red.URL)
	relaytest.Eventually(t, func() bool { return leads(t, one) }, "the first leads")
	two := start(t, url, red.URL)
	relaytest.Eventually(t, func() bool { code, _ := get(t, "http://"+two.ops+"/readyz"); return code == 200 }, "a standby is ready")
	require.False(t, leads(t, two))

	require.Equal(t, 0, one.stop(), "a clean end gives the lock up")
	relaytest.Eventually(t, func() bool { return leads(t, two) }, "the second leads")
	three := start(t, url, red.URL)
	relaytest.Eventually(t, func() bool { code, _ := get(t, "http://"+three.ops+"/readyz"); return code == 200 }, "another standby")
	began := time.Now()
	_, err := pool.Exec(t.Context(), `SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE datname = current_database() AND application_name = 'outbox-relay lock' AND state = 'idle'`)
	require.NoError(t, err)
	relaytest.Eventually(t, func() bool { return leads(t, two) || leads(t, three) }, "one of them leads")
	require.Less(t, time.Since(began), 5*time.Second)
	relaytest.Write(t, pool, 1, 1, 3)
	relaytest.Eventually(t, func() bool { return relaytest.InStreams(t, c) == 3 }, "events go on")
}

// The server itself ends the lock's session of a leader that it does not hear from.
func TestSilentLeaderLosesTheLock(t *testing.T) {
	db := relaytest.Database(t)
	pool := db.Pool(t)
	began := time.Now()
	app.HoldLockSilently(t, db.URL)
	relaytest.Eventually(t, func() bool {
		var n int
		require.NoError(t, pool.QueryRow(t.Context(), `SELECT count(*) FROM pg_stat_activity
WHERE datname = current_database() AND application_name = 'outbox-relay lock'`).Scan(&n))
		return n == 0
	}, "the session is ended")
	require.Less(t, time.Since(began), 4*time.Second)
}

func TestHelpAndBadConfiguration(t *testing.T) {
	var log buffer
	none := func(string) string { return "" }
	require.Equal(t, 0, app.Run(t.Context(), []string{"--help"}, none, &log))
	for _, name := range []string{"DATABASE_URL", "REDIS_URL", "GRPC_ADDR", "STREAM_RETENTION", "EVENT_RETENTION", "PUBSUB", "rebase"} {
		require.Contains(t, log.String(), name)
	}
	log = buffer{}
	require.Equal(t, 2, app.Run(t.Context(), nil, none, &log))
	require.Contains(t, log.String(), "DATABASE_URL")
	require.Contains(t, log.String(), "INTERNAL_TOKEN")
	log = buffer{}
	require.Equal(t, 2, app.Run(t.Context(), []string{"relay"}, none, &log))
	require.Contains(t, log.String(), `no command "relay"`)
}

func TestWithoutSchemaItSaysSo(t *testing.T) {
	red := redistest.New(t)
	r := start(t, relaytest.Empty(t).URL, red.URL)
	relaytest.Eventually(t, func() bool {
		code, body := get(t, "http://"+r.ops+"/readyz")
		return code == 503 && strings.Contains(body, "migrate")
	}, "unready, and how to help it")
}
