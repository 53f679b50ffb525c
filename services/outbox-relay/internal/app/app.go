// Package app puts the outbox relay together: configuration, subcommands, servers and the loop.
package app

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"runtime/debug"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/redis/rueidis"
	"google.golang.org/grpc"

	"github.com/sametick/sametick/pkg/config"
	"github.com/sametick/sametick/pkg/lifecycle"
	"github.com/sametick/sametick/pkg/outbox"
	"github.com/sametick/sametick/pkg/pg"
	"github.com/sametick/sametick/pkg/redisconn"
	"github.com/sametick/sametick/pkg/rpc"
	"github.com/sametick/sametick/pkg/telemetry"
	relayv1 "github.com/sametick/sametick/proto/gen/go/sametick/relay/v1"
	"github.com/sametick/sametick/services/outbox-relay/internal/grpcapi"
	"github.com/sametick/sametick/services/outbox-relay/internal/lead"
	"github.com/sametick/sametick/services/outbox-relay/internal/publish"
	"github.com/sametick/sametick/services/outbox-relay/internal/redis"
	"github.com/sametick/sametick/services/outbox-relay/internal/store"
)

const name = "outbox-relay"

const usage = `usage: outbox-relay [command]

  (none)    run the relay
  migrate   bring the core schema to the newest version
  rebase    give positions to all events that have none, after Postgres was restored from a dump
  audit-key NAME
            make a pair of keys for the audit log, named after the installation (audit.example.com)

`

// Run is the program: it gives the exit code.
func Run(ctx context.Context, args []string, getenv func(string) string, stderr io.Writer) int {
	c := defaults()
	command := ""
	if len(args) > 0 {
		command = args[0]
	}
	switch command {
	case "-h", "-help", "--help", "help":
		_, _ = fmt.Fprint(stderr, usage+config.Help(name, &c))
		return 0
	case "audit-key":
		return auditKey(args[1:], stderr)
	case "", "migrate", "rebase":
	default:
		_, _ = fmt.Fprintf(stderr, "outbox-relay: there is no command %q\n\n%s", command, usage)
		return 2
	}
	var dst any = &c
	small := databaseConfig{Common: c.Common}
	if command != "" {
		dst = &small // no need of Redis or tokens
	}
	if err := config.Load(dst, getenv); err != nil {
		_, _ = fmt.Fprintln(stderr, err)
		return 2
	}
	if command != "" {
		c.Common, c.Postgres = small.Common, small.Postgres
	}
	log := telemetry.NewLogger(stderr, name, c.LogLevel)
	if err := run(ctx, command, c, getenv, log); err != nil {
		log.ErrorContext(ctx, "ended with an error", "error", err)
		return 1
	}
	return 0
}

type databaseConfig struct {
	config.Common
	config.Postgres
}

func run(ctx context.Context, command string, c Config, getenv func(string) string, log *slog.Logger) error {
	switch command {
	case "migrate":
		return outbox.Migrate(ctx, c.DatabaseURL.Reveal(), log)
	case "rebase":
		placed, err := store.Rebase(ctx, c.DatabaseURL.Reveal(), log)
		if err == nil {
			log.InfoContext(ctx, "rebased: relays may start", "placed", placed)
		}
		return err
	default:
		return serve(ctx, c, getenv, log)
	}
}

// poolConns bounds the pool that reads: LogService, filling, upkeep and checks.
const poolConns = 8

func serve(ctx context.Context, c Config, getenv func(string) string, log *slog.Logger) error {
	url := c.DatabaseURL.Reveal()
	pool, err := pg.Open(ctx, url, pg.Options{AppName: name, MaxConns: poolConns})
	if err != nil {
		return err
	}
	tracing, err := telemetry.NewTracing(ctx, name, getenv)
	if err != nil {
		pool.Close()
		return err
	}
	streams := redis.New(func(ctx context.Context) (rueidis.Client, error) {
		return redisconn.Open(ctx, c.RedisURL.Reveal(), redisconn.Options{Name: name, Log: log})
	}, c.Pubsub)
	if err := streams.Check(ctx); err != nil {
		pool.Close()
		closeTracing(tracing)
		return err
	}
	registry := telemetry.NewRegistry()
	leadStats, publishStats := newMetrics(registry)
	events := store.NewLog(pool)
	leader := lead.New(lead.Config{
		TryLock:   func(ctx context.Context) (lead.Lock, error) { return tryLock(ctx, url) },
		Heartbeat: store.Heartbeat,
		Open:      func(ctx context.Context) (lead.Session, error) { return store.OpenSession(ctx, url) },
		NewPublisher: func() lead.Publisher {
			return publish.New(publish.Config{
				Streams: streams, Cutter: streams, Log: events, Ledger: events, Owner: streams, Database: events.Database,
				Retention: c.StreamRetention, TrimEvery: time.Minute, Logger: log, Stats: publishStats,
			})
		},
		Chores: append(sealing(ctx, c, pool, log, newSealMetrics(registry)),
			lead.Chore{Name: "upkeep", Every: time.Minute, Do: (&store.Upkeep{Pool: pool, StreamRetention: c.StreamRetention, EventRetention: c.EventRetention, Logger: log}).Run},
			lead.Chore{Name: "counts", Every: 10 * time.Second, Do: (&store.Counts{Pool: pool}).Run},
		),
		ClaimLost: store.ReasonClaimLost, BatchEvents: c.BatchEvents, Logger: log, Stats: leadStats,
	})
	ready := readiness(pool, leader)
	unary, stream := rpc.InternalAuth(c.InternalToken.Reveal())
	api := &grpcapi.Server{Relay: leader, Log: events, Streams: streams, Version: version()}
	audit := &grpcapi.Audit{Log: store.NewAuditLog(pool)}
	err = lifecycle.Run(ctx, lifecycle.Options{Grace: c.ShutdownGrace, DrainDelay: c.DrainDelay, NotReady: ready.Draining, Ready: ready.Ready},
		telemetry.NewOps(c.OpsAddr, registry, ready, log),
		lifecycle.Closer(func() { closeTracing(tracing) }),
		lifecycle.Closer(pool.Close),
		lifecycle.Closer(streams.Close),
		rpc.NewServer(rpc.ServerOptions{
			Addr: c.GRPCAddr, Log: log, Registry: registry, Tracer: tracing.Provider(),
			Unary: []grpc.UnaryServerInterceptor{unary}, Stream: []grpc.StreamServerInterceptor{stream},
			Register: func(r grpc.ServiceRegistrar) { api.Register(r); relayv1.RegisterAuditLogServiceServer(r, audit) },
		}),
		lifecycle.NewLoop("relay", leader.Run),
	)
	pool.Close() // also when a start before its own failed
	streams.Close()
	return err
}

// tryLock keeps a nil lock nil when it becomes an interface.
func tryLock(ctx context.Context, url string) (lead.Lock, error) {
	l, err := store.TryLock(ctx, url)
	if l == nil {
		return nil, err
	}
	return l, nil
}

// readiness does not ask for Redis: readers need LogService most when Redis is gone.
func readiness(pool *pgxpool.Pool, leader *lead.Lead) *telemetry.Readiness {
	ready := &telemetry.Readiness{}
	ready.Add("schema", func(ctx context.Context) error { return outbox.CheckSchema(ctx, pool) })
	ready.Add("sequencing", func(context.Context) error { return leader.Problem() })
	return ready
}

func closeTracing(t *telemetry.Tracing) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	_ = t.Close(ctx) // spans that cannot be sent are lost, as with any crash
}

// version is the module's, or the commit it was built from.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			return s.Value
		}
	}
	return info.Main.Version
}
