package follow_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sametick/sametick/deploy/torture/internal/follow"
)

// backlog sends the same long replay to whoever asks for it, in pieces of some 64 KiB as sse-gateway does, and then
// is silent but for heartbeats.
func backlog(events int) http.Handler {
	data := strings.Repeat("x", 300)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		last := 0
		for _, text := range []string{r.Header.Get("Last-Event-ID"), r.URL.Query().Get("last_event_id"), r.URL.Query().Get("lastEventId")} {
			if n, err := strconv.Atoi(text); err == nil {
				last = n
			}
		}
		for id := last + 1; id <= events; id++ {
			_, _ = fmt.Fprintf(w, "id: %d\ndata: {\"id\":%d,\"org_id\":1,\"text\":%q}\n\n", id, id, data)
			if id%180 == 0 && http.NewResponseController(w).Flush() != nil {
				return
			}
		}
		_, _ = fmt.Fprint(w, ": heartbeat\n\n")
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	})
}

// What a settled client is given it takes as fast as it comes: 7 MB in far less than the minute and a half that it
// takes at the pace of a window which has shrunk.
func TestASettledClientReadsFast(t *testing.T) {
	t.Parallel()
	const events = 20_000
	server := httptest.NewServer(backlog(events))
	defer server.Close()
	crowd := follow.NewCrowd(follow.Options{Gateways: []string{server.URL}, Token: func(int64) (string, error) { return "t", nil },
		Header: true, Orgs: orgs[:1], Types: []string{"task"}, Hot: 3, Clients: 1, Dir: t.TempDir(), Seed: 7, LifeTime: 5 * time.Minute})
	crowd.Settle()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- crowd.Run(ctx) }()
	require.Eventually(t, func() bool { return latecomer(crowd).Last == events }, time.Minute, 10*time.Millisecond)
	require.Eventually(t, func() bool { return !latecomer(crowd).Heartbeat.IsZero() }, 10*time.Second, 10*time.Millisecond)
	require.Contains(t, latecomer(crowd).String(), "connected")
	cancel()
	require.NoError(t, <-done)
}

// latecomer is where the client is that asks for everything.
func latecomer(c *follow.Crowd) follow.Place {
	for _, p := range c.Places() {
		if p.Life.Name == "latecomer" {
			return p
		}
	}
	return follow.Place{Life: &follow.Life{}}
}
