package follow_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/sametick/sametick/deploy/torture/internal/follow"
	"github.com/sametick/sametick/deploy/torture/internal/judge"
	"github.com/sametick/sametick/pkg/event"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// orgs share a shard.
var orgs = []int64{1, 22}

// gateway is an sse-gateway in memory, and a history that grows while clients listen. Faulty ones make
// one of the usual mistakes.
type gateway struct {
	mistake string

	mu     sync.Mutex
	grown  chan struct{}
	events []event.Event
}

func (g *gateway) grow(n int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for range n {
		id := int64(len(g.events) + 1)
		kind := []string{"task", "team"}[id%2]
		g.events = append(g.events, event.Event{ID: 1000 + id, OrgID: orgs[id/2%2], AggregateType: kind, AggregateID: 1 + id/4%3,
			EventType: kind + ".post_create", Payload: []byte(`{}`), OccurredAt: time.UnixMilli(id)})
	}
	close(g.grown)
	g.grown = make(chan struct{})
}

func (g *gateway) head() int64 {
	g.mu.Lock()
	defer g.mu.Unlock()
	return int64(len(g.events))
}

// after gives the events beyond a position and a channel that closes when there are more.
func (g *gateway) after(position int64) ([]event.Event, <-chan struct{}) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.events[min(position, int64(len(g.events))):], g.grown
}

func (g *gateway) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	org, err := strconv.ParseInt(r.Header.Get("Authorization")[len("Bearer "):], 10, 64)
	if err != nil {
		http.Error(w, err.Error(), http.StatusUnauthorized)
		return
	}
	query := r.URL.Query()
	last := g.head()
	resumed := false
	for _, text := range []string{r.Header.Get("Last-Event-ID"), query.Get("last_event_id"), query.Get("lastEventId")} {
		if n, err := strconv.ParseInt(text, 10, 64); err == nil {
			last, resumed = n, true
		}
	}
	switch {
	case g.mistake == "skips at resume" && resumed && last > 0:
		last += 6
	case g.mistake == "repeats at resume" && resumed:
		last = max(0, last-6)
	case g.mistake == "refuses":
		http.Error(w, "no", http.StatusForbidden)
		return
	}
	_, _ = fmt.Fprint(w, "retry: 100\n\n: heartbeat\n\n")
	g.serve(r.Context(), w, org, filterOf(query), last)
}

func filterOf(query map[string][]string) (f follow.Filter) {
	f.EventTypes = query["event_type"]
	if v := query["aggregate_type"]; len(v) > 0 {
		f.AggregateType = v[0]
	}
	if v := query["aggregate_id"]; len(v) > 0 {
		f.AggregateID, _ = strconv.ParseInt(v[0], 10, 64)
	}
	return f
}

func (g *gateway) serve(ctx context.Context, w http.ResponseWriter, org int64, filter follow.Filter, last int64) {
	for {
		list, more := g.after(last)
		for i := range list {
			e := &list[i]
			last++
			seen := filter.Matches(e.EventType, e.AggregateType, e.AggregateID) || g.mistake == "ignores filters"
			if (e.OrgID == org || g.mistake == "shows all organisations") && seen {
				_, _ = fmt.Fprintf(w, "id: %d\ndata: %s\n\n", last, e.AppendJSON(nil))
			}
		}
		_, _ = fmt.Fprintf(w, ": heartbeat\nid: %d\n\n", last)
		if http.NewResponseController(w).Flush() != nil {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-more:
		}
	}
}

// listen lets a crowd listen to a gateway while its history grows, and has it judged.
func listen(t *testing.T, mistake string) (*judge.Verdict, *follow.Crowd) {
	t.Helper()
	g := &gateway{mistake: mistake, grown: make(chan struct{})}
	g.grow(50)
	server := httptest.NewServer(g)
	defer server.Close()
	crowd := follow.NewCrowd(follow.Options{
		Gateways: []string{server.URL}, Token: func(org int64) (string, error) { return strconv.FormatInt(org, 10), nil },
		Header: true, Orgs: orgs, Types: []string{"task", "team"}, Hot: 3, Clients: 12, Dir: t.TempDir(), Seed: 7, LifeTime: 500 * time.Millisecond,
	})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- crowd.Run(ctx) }()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for range 400 {
		<-tick.C
		g.grow(4)
	}
	crowd.Settle()
	head := g.head()
	require.Eventually(t, func() bool {
		behind := 0
		for _, p := range crowd.Places() {
			if p.Last < head {
				behind++
			}
		}
		return behind == 0 || mistake == "refuses"
	}, 20*time.Second, 10*time.Millisecond)
	cancel()
	require.NoError(t, <-done)

	facts := judge.NewFacts()
	for i := range g.events {
		facts.Add(&g.events[i], event.ShardOf(1), int64(i+1), int64(i+1))
	}
	builder := judge.NewLogBuilder(facts)
	for i := range g.events {
		builder.Add(judge.Row{Shard: event.ShardOf(1), Position: int64(i + 1), EventID: g.events[i].ID})
	}
	log, _ := builder.Finish()
	clients := judge.NewClients(facts, log)
	for _, life := range crowd.Lives() {
		require.NoError(t, clients.Judge(*life, life.ReadRecord))
	}
	return clients.Verdict(), crowd
}

func TestARightGatewayIsClean(t *testing.T) {
	t.Parallel()
	v, crowd := listen(t, "")
	require.Zero(t, v.Failures(), "%v", v.First)
	require.Empty(t, crowd.Refused())
	counts := crowd.Counts()
	require.Greater(t, counts.Reconnects, int64(5), "clients must come and go")
	require.Greater(t, counts.Lives, int64(20))
	require.Greater(t, v.Checked, int64(1000))
	require.Positive(t, counts.Marks)
}

func TestAWrongGatewayIsCaught(t *testing.T) {
	t.Parallel()
	for mistake, of := range map[string]func(*judge.Verdict) int64{
		"skips at resume":         func(v *judge.Verdict) int64 { return v.Lost },
		"repeats at resume":       func(v *judge.Verdict) int64 { return v.Twice + v.OutOfOrder },
		"ignores filters":         func(v *judge.Verdict) int64 { return v.Foreign },
		"shows all organisations": func(v *judge.Verdict) int64 { return v.Foreign },
	} {
		t.Run(mistake, func(t *testing.T) {
			t.Parallel()
			v, _ := listen(t, mistake)
			require.Positive(t, of(v), "%+v", v)
		})
	}
}

func TestARefusalIsReported(t *testing.T) {
	t.Parallel()
	_, crowd := listen(t, "refuses")
	require.NotEmpty(t, crowd.Refused())
}
