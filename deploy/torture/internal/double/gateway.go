package double

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"

	"google.golang.org/grpc"

	"github.com/sametick/sametick/deploy/torture/internal/follow"
	"github.com/sametick/sametick/pkg/auth"
	"github.com/sametick/sametick/pkg/event"
	"github.com/sametick/sametick/pkg/rpc"
	relayv1 "github.com/sametick/sametick/proto/gen/go/sametick/relay/v1"
)

// Gateway is the simplest sse-gateway that is right: each client reads LogService again and again, and
// Redis is not asked at all. It shows that the harness passes a gateway that is right, and puts
// LogService alone under torture. Its methods are a process'.
type Gateway struct {
	name, address, relay, token string
	verifier                    *auth.Verifier
	gate                        gate

	mu     sync.Mutex
	server *http.Server
	log    *grpc.ClientConn
	done   chan struct{}
}

// NewGateway prepares one that listens on address, reads from the relay's LogService with the internal
// token, and takes access tokens of the public keys.
func NewGateway(name, address, relay, token, keys string) (*Gateway, error) {
	verifier, err := auth.NewVerifier(keys)
	if err != nil {
		return nil, fmt.Errorf("public keys: %w", err)
	}
	return &Gateway{name: name, address: address, relay: relay, token: token, verifier: verifier}, nil
}

// Name is the replica's.
func (g *Gateway) Name() string { return g.name }

// Start starts it, unless it runs.
func (g *Gateway) Start(ctx context.Context) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.server != nil {
		return nil
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", g.address)
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	log, err := rpc.Dial(g.relay, rpc.ClientOptions{Token: g.token, MaxRecvBytes: 64 << 20, Timeout: 2 * time.Second})
	if err != nil {
		return errors.Join(err, listener.Close())
	}
	client := relayv1.NewLogServiceClient(log)
	server := &http.Server{ReadHeaderTimeout: time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { g.stream(w, r, client) })}
	done := make(chan struct{})
	g.server, g.log, g.done = server, log, done
	go func() {
		defer close(done)
		_ = server.Serve(listener) // ends when Kill closes it
	}()
	return nil
}

// Kill ends it with all its connections.
func (g *Gateway) Kill() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.server == nil {
		return
	}
	g.gate.open()
	_ = g.server.Close() // the listener and each connection; what fails is closed already
	_ = g.log.Close()
	<-g.done
	g.server = nil
}

// Pause holds it before whatever it reads next.
func (g *Gateway) Pause() { g.gate.shut() }

// Continue lets it go on.
func (g *Gateway) Continue() { g.gate.open() }

// Terminate is Kill.
func (g *Gateway) Terminate(time.Duration) error {
	g.Kill()
	return nil
}

// stream is GET /api/events/stream.
func (g *Gateway) stream(w http.ResponseWriter, r *http.Request, log relayv1.LogServiceClient) {
	query := r.URL.Query()
	token := auth.Bearer(r.Header.Get("Authorization"))
	if token == "" {
		token = query.Get("token")
	}
	who, err := g.verifier.Verify(r.Context(), token)
	if err != nil {
		http.Error(w, err.Error(), http.StatusUnauthorized)
		return
	}
	filter := follow.Filter{AggregateType: query.Get("aggregate_type"), EventTypes: query["event_type"]}
	filter.AggregateID, _ = strconv.ParseInt(query.Get("aggregate_id"), 10, 64) // absent is 0
	last := int64(-1)
	for _, id := range []string{r.Header.Get("Last-Event-ID"), query.Get("last_event_id"), query.Get("lastEventId")} {
		if n, err := strconv.ParseInt(id, 10, 64); err == nil {
			last = n
		}
	}
	w.Header().Set("Content-Type", "text/event-stream")
	_ = http.NewResponseController(w).Flush() // a dead connection shows at the first event
	g.follow(r.Context(), w, log, who.OrgID, filter, last)
}

// follow reads and writes until the connection ends.
func (g *Gateway) follow(ctx context.Context, w http.ResponseWriter, log relayv1.LogServiceClient, org int64, filter follow.Filter, last int64) {
	for ctx.Err() == nil {
		g.gate.pass()
		page, err := log.Read(ctx, &relayv1.ReadRequest{Shard: int32(event.ShardOf(org)), After: max(last, 0), Limit: 1000, OrgId: org})
		if err != nil || last >= 0 && page.GetThrough() == last {
			pause(ctx, 50*time.Millisecond)
			continue
		}
		if last < 0 { // a client without an id begins at the head
			last = page.GetHead()
			continue
		}
		for _, e := range page.GetEntries() {
			if filter.Matches(e.GetEventType(), e.GetAggregateType(), e.GetAggregateId()) {
				if _, err := fmt.Fprintf(w, "id: %d\ndata: %s\n\n", e.GetPosition(), e.GetEnvelope()); err != nil {
					return
				}
			}
		}
		last = page.GetThrough()
		if _, err := fmt.Fprintf(w, ": heartbeat\nid: %d\n\n", last); err != nil {
			return
		}
		if http.NewResponseController(w).Flush() != nil {
			return
		}
	}
}
