// Package app puts sse-gateway together: configuration, connections, servers and the feed.
package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/rueidis"
	"google.golang.org/grpc"

	"github.com/sametick/sametick/pkg/auth"
	"github.com/sametick/sametick/pkg/config"
	"github.com/sametick/sametick/pkg/errs"
	"github.com/sametick/sametick/pkg/lifecycle"
	"github.com/sametick/sametick/pkg/redisconn"
	"github.com/sametick/sametick/pkg/rpc"
	"github.com/sametick/sametick/pkg/stream"
	"github.com/sametick/sametick/pkg/telemetry"
	relayv1 "github.com/sametick/sametick/proto/gen/go/sametick/relay/v1"
	"github.com/sametick/sametick/services/sse-gateway/internal/feed"
	"github.com/sametick/sametick/services/sse-gateway/internal/grpcapi"
	"github.com/sametick/sametick/services/sse-gateway/internal/hub"
	"github.com/sametick/sametick/services/sse-gateway/internal/resume"
	"github.com/sametick/sametick/services/sse-gateway/internal/sse"
)

const name = "sse-gateway"

const usage = `usage: sse-gateway

Serves GET /api/events/stream and gRPC StreamService.

`

// Run is the program: it gives the exit code.
func Run(ctx context.Context, args []string, getenv func(string) string, stderr io.Writer) int {
	c := defaults()
	if len(args) > 0 {
		switch args[0] {
		case "-h", "-help", "--help", "help":
			_, _ = fmt.Fprint(stderr, usage+config.Help(name, &c))
			return 0
		}
		_, _ = fmt.Fprintf(stderr, "sse-gateway: there is no command %q\n\n%s", args[0], usage)
		return 2
	}
	if err := config.Load(&c, getenv); err != nil {
		_, _ = fmt.Fprintln(stderr, err)
		return 2
	}
	log := telemetry.NewLogger(stderr, name, c.LogLevel)
	if err := serve(ctx, c, getenv, log); err != nil {
		log.ErrorContext(ctx, "ended with an error", "error", err)
		return 1
	}
	return 0
}

// linger is how long a shard without clients is followed.
const linger = 30 * time.Second

func serve(ctx context.Context, c Config, getenv func(string) string, log *slog.Logger) (err error) {
	tracing, err := telemetry.NewTracing(ctx, name, getenv)
	if err != nil {
		return err
	}
	registry := telemetry.NewRegistry()
	peers, err := dial(c, tracing)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, peers.close()) }()
	redis := stream.NewRedis(func(ctx context.Context) (rueidis.Client, error) {
		return redisconn.Open(ctx, c.RedisURL.Reveal(), redisconn.Options{Name: name, Log: log})
	})
	defer redis.Close()
	source := stream.New(stream.Options{Log: stream.NewLog(relayv1.NewLogServiceClient(peers.relay)), Redis: redis})
	tokens, err := newTokens(c, peers)
	if err != nil {
		return err
	}
	events := hub.New(hub.Options{RingBytes: c.RingBytes, MaxPerOrg: c.MaxPerOrg, MaxPerToken: c.MaxPerToken})
	streams := &resume.Streams{Hub: events, Reader: feed.Reader{Source: source}, Heartbeat: c.Heartbeat, DrainOver: c.DrainPeriod,
		CutAfter: (c.ShutdownGrace - c.DrainPeriod) / 2} // the servers need their part of the grace time
	newMetrics(registry, streams)
	ready := readiness(redis, peers)
	follow := &feed.Feed{Source: source, Hub: events, Linger: linger, Log: log}
	return lifecycle.Run(ctx, lifecycle.Options{Grace: c.ShutdownGrace, DrainDelay: c.DrainDelay, NotReady: ready.Draining, Ready: ready.Ready},
		telemetry.NewOps(c.OpsAddr, registry, ready, log),
		lifecycle.Closer(func() { closeTracing(tracing) }),
		lifecycle.NewLoop("feed", follow.Run),
		newHTTP(c, streams, tokens, log),
		newGRPC(c, streams, tokens, registry, tracing, log),
		// The last to start is the first to stop: streams end before the servers wait for them.
		lifecycle.NewLoop("streams", streams.Drain),
	)
}

// newHTTP serves HTTP/1.1 and HTTP/2, the latter also without TLS for proxies that speak it.
func newHTTP(c Config, streams *resume.Streams, tokens *tokens, log *slog.Logger) *lifecycle.Server {
	origins, _ := sse.ParseOrigins(c.CORSOrigins) // Validate has seen it
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	return lifecycle.NewHTTP("http", c.HTTPAddr, &http.Server{
		Handler:           &sse.Handler{Streams: streams, Verifier: tokens, WriteTimeout: c.WriteTimeout, Retry: c.Retry, Origins: origins, Log: log},
		Protocols:         &protocols,
		ConnContext:       lifecycle.LimitUnsent,
		ReadHeaderTimeout: 5 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    32 << 10,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	})
}

func newGRPC(c Config, streams *resume.Streams, tokens *tokens, registry *prometheus.Registry, tracing *telemetry.Tracing, log *slog.Logger) *lifecycle.Server {
	api := &grpcapi.Server{Streams: streams, SendTimeout: c.WriteTimeout,
		Authorize: func(ctx context.Context, token string) (auth.Principal, error) {
			return sse.Authorize(ctx, tokens, token)
		}}
	return rpc.NewServer(rpc.ServerOptions{Addr: c.GRPCAddr, Log: log, Registry: registry, Tracer: tracing.Provider(), Register: api.Register})
}

// readiness asks for one of the two places that events come from: with either, streams go on.
func readiness(redis *stream.Redis, p *peers) *telemetry.Readiness {
	ready := &telemetry.Readiness{}
	ready.Add("events", func(ctx context.Context) error {
		short, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
		defer cancel()
		err := redis.Ping(short)
		if err == nil {
			return nil
		}
		_, err2 := relayv1.NewLogServiceClient(p.relay).Read(ctx, &relayv1.ReadRequest{Limit: 1})
		if err2 == nil {
			return nil
		}
		return errs.New(errs.Unavailable, "EVENTS_UNAVAILABLE", "neither Redis nor outbox-relay answers").WithCause(errors.Join(err, err2))
	})
	return ready
}

func closeTracing(t *telemetry.Tracing) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	_ = t.Close(ctx) // spans that cannot be sent are lost, as with any crash
}

// peers are the siblings that this service calls.
type peers struct {
	relay *grpc.ClientConn
	api   *grpc.ClientConn // nil without API_ADDR
}

// maxPage bounds an answer of LogService: its own bound is 2 MiB and one event.
const maxPage = 8 << 20

func dial(c Config, tracing *telemetry.Tracing) (*peers, error) {
	var p peers
	var err error
	p.relay, err = rpc.Dial(c.RelayAddr, rpc.ClientOptions{Token: c.InternalToken.Reveal(), Tracer: tracing.Provider(), MaxRecvBytes: maxPage})
	if err == nil && c.APIAddr != "" {
		p.api, err = rpc.Dial(c.APIAddr, rpc.ClientOptions{Tracer: tracing.Provider()})
	}
	if err != nil {
		return nil, errors.Join(err, p.close())
	}
	return &p, nil
}

func (p *peers) close() error {
	var err error
	for _, c := range []*grpc.ClientConn{p.relay, p.api} {
		if c != nil {
			err = errors.Join(err, c.Close())
		}
	}
	return err
}
