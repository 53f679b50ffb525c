// Package app puts webhook-worker together: configuration, subcommands, the feed, the engine and the API.
package app

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"runtime/debug"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/redis/rueidis"

	"github.com/sametick/sametick/pkg/condition"
	"github.com/sametick/sametick/pkg/config"
	"github.com/sametick/sametick/pkg/keyring"
	"github.com/sametick/sametick/pkg/lifecycle"
	"github.com/sametick/sametick/pkg/netguard"
	"github.com/sametick/sametick/pkg/pg"
	"github.com/sametick/sametick/pkg/redisconn"
	"github.com/sametick/sametick/pkg/rpc"
	"github.com/sametick/sametick/pkg/stream"
	"github.com/sametick/sametick/pkg/telemetry"
	"github.com/sametick/sametick/pkg/wake"
	relayv1 "github.com/sametick/sametick/proto/gen/go/sametick/relay/v1"
	"github.com/sametick/sametick/services/webhook-worker/internal/delivery"
	"github.com/sametick/sametick/services/webhook-worker/internal/feed"
	"github.com/sametick/sametick/services/webhook-worker/internal/httpsend"
	"github.com/sametick/sametick/services/webhook-worker/internal/store"
)

const name = "webhook-worker"

const usage = `usage: webhook-worker [command]

  (none)      schedule and send webhooks, and serve gRPC WebhookService
  migrate     bring the schema to the newest version
  re-encrypt  seal every secret under the first of ENCRYPTION_KEYS, so that the others can be taken away

`

// Run is the program: it gives the exit code.
func Run(ctx context.Context, args []string, getenv func(string) string, stderr io.Writer) int {
	c := defaults()
	command := ""
	if len(args) > 0 {
		command = args[0]
	}
	var dst any = &c
	var database databaseConfig
	var sealed sealedConfig
	switch command {
	case "":
	case "migrate":
		dst = &database // no need of Redis or tokens
	case "re-encrypt":
		dst = &sealed
	case "-h", "-help", "--help", "help":
		_, _ = fmt.Fprint(stderr, usage+config.Help(name, &c))
		return 0
	default:
		_, _ = fmt.Fprintf(stderr, "webhook-worker: there is no command %q\n\n%s", command, usage)
		return 2
	}
	if err := config.Load(dst, getenv); err != nil {
		_, _ = fmt.Fprintln(stderr, err)
		return 2
	}
	var log *slog.Logger
	var err error
	switch command {
	case "migrate":
		log = telemetry.NewLogger(stderr, name, database.LogLevel)
		err = store.Schema().Migrate(ctx, database.DatabaseURL.Reveal(), log)
	case "re-encrypt":
		log = telemetry.NewLogger(stderr, name, sealed.LogLevel)
		err = reencrypt(ctx, sealed, log)
	default:
		log = telemetry.NewLogger(stderr, name, c.LogLevel)
		err = serve(ctx, c, getenv, log)
	}
	if err != nil {
		log.ErrorContext(ctx, "ended with an error", "error", err)
		return 1
	}
	return 0
}

type databaseConfig struct {
	config.Common
	config.Postgres
}

type sealedConfig struct {
	config.Common
	config.Postgres
	Keys keyring.Config
}

// poolConns bounds the pool: a transaction for each shard, the engine's, and the API's.
const poolConns = 24

// maxPrograms bounds the compiled filters and transforms that are remembered.
const maxPrograms = 10_000

// maxPage bounds an answer of LogService: its own bound is 2 MiB and one event.
const maxPage = 8 << 20

func open(ctx context.Context, c config.Postgres) (*pgxpool.Pool, error) {
	return pg.Open(ctx, c.DatabaseURL.Reveal(), pg.Options{AppName: name, MaxConns: poolConns, Pooled: c.DatabasePooled,
		StatementTimeout: time.Minute, IdleInTransactionTimeout: time.Minute})
}

func reencrypt(ctx context.Context, c sealedConfig, log *slog.Logger) error {
	pool, err := open(ctx, c.Postgres)
	if err != nil {
		return err
	}
	defer pool.Close()
	ring, err := c.Keys.Ring()
	if err != nil {
		return err
	}
	n, err := store.New(pool).Reencrypt(ctx, ring)
	log.InfoContext(ctx, "secrets sealed under the first key", "secrets", n)
	return err
}

// worker is what the service is made of.
type worker struct {
	c         Config
	log       *slog.Logger
	tracing   *telemetry.Tracing
	pool      *pgxpool.Pool
	positions stream.Log
	waker     *wake.Waker
	source    *stream.Source
	metrics   *metrics

	store    *store.Worker
	ring     *keyring.Ring
	compiler *condition.Compiler
	guard    *netguard.Guard
	sender   *httpsend.Sender
	engine   *delivery.Engine
	replays  *feed.Replays
	consumer *stream.Consumer
}

// gcPercent lets garbage grow to twice of what lives before it is collected: what lives is bounded by EVENT_MEMORY, and
// collecting is a tenth of a delivery's processor time at Go's own 100.
const gcPercent = 200

func serve(ctx context.Context, c Config, getenv func(string) string, log *slog.Logger) (err error) {
	if getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
	tracing, err := telemetry.NewTracing(ctx, name, getenv)
	if err != nil {
		return err
	}
	relay, err := rpc.Dial(c.RelayAddr, rpc.ClientOptions{Token: c.InternalToken.Reveal(), Tracer: tracing.Provider(), MaxRecvBytes: maxPage})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, relay.Close()) }()
	redis := stream.NewRedis(func(ctx context.Context) (rueidis.Client, error) {
		return redisconn.Open(ctx, c.RedisURL.Reveal(), redisconn.Options{Name: name, Log: log})
	})
	defer redis.Close()
	pool, err := open(ctx, c.Postgres)
	if err != nil {
		return err
	}
	defer pool.Close()
	w := &worker{c: c, log: log, pool: pool, tracing: tracing, positions: stream.NewLog(relayv1.NewLogServiceClient(relay)), metrics: newMetrics()}
	client := relayv1.NewRelayServiceClient(relay)
	w.waker = wake.New(func(ctx context.Context) error {
		_, err := client.Wake(ctx, &relayv1.WakeRequest{})
		return err
	}, log)
	w.source = stream.New(stream.Options{Log: w.positions, Redis: redis})
	if err := w.build(); err != nil {
		return err
	}
	defer w.sender.Close()
	ready := &telemetry.Readiness{}
	ready.Add("schema", w.store.CheckSchema)
	upkeep := &upkeep{store: w.store, retention: c.AttemptRetention, source: w.source, metrics: w.metrics, log: log}
	return lifecycle.Run(ctx, lifecycle.Options{Grace: c.ShutdownGrace, DrainDelay: c.DrainDelay, NotReady: ready.Draining, Ready: ready.Ready},
		telemetry.NewOps(c.OpsAddr, w.metrics.registry, ready, log),
		lifecycle.Closer(func() { closeTracing(tracing) }),
		lifecycle.NewLoop("upkeep", upkeep.Run),
		w.waker,
		w.api(),
		lifecycle.NewLoop("engine", w.engine.Run),
		lifecycle.NewLoop("replays", w.replays.Run),
		// The last to start is the first to stop: nothing new is scheduled, and shards are given back when what is
		// under way has ended.
		lifecycle.NewLoop("feed", w.consumer.Run),
	)
}

// build makes what schedules and sends.
func (w *worker) build() (err error) {
	if w.ring, err = w.c.Keys.Ring(); err != nil {
		return err
	}
	if w.compiler, err = condition.NewCompiler(maxPrograms); err != nil {
		return err
	}
	if w.guard, err = w.c.Egress.Guard(); err != nil {
		return err
	}
	authorities, err := roots(w.c.CAFile)
	if err != nil {
		return err
	}
	if w.sender, err = httpsend.New(httpsend.Options{Guard: w.guard, Timeout: w.c.AttemptTimeout, RootCAs: authorities, Stats: w.metrics}); err != nil {
		return err
	}
	w.store = store.New(w.pool).Worker(w.ring)
	sender := &attempts{sender: w.sender, compiler: w.compiler}
	if w.tracing.Exports() {
		sender.tracer = w.tracing.Provider().Tracer(name)
	}
	w.engine = delivery.New(delivery.Config{
		Sender: sender,
		Queue:  &feed.Queue{Worker: w.store, Source: w.source}, History: w.store, Deadline: w.c.AttemptTimeout + margin,
		PerEndpoint: w.c.PerEndpoint, PerOrg: w.c.PerOrg, InAll: w.c.InAll, MaxBytes: w.c.EventMemory,
		Observe: w.metrics.observe, Log: w.log, Stats: &w.metrics.engine,
	})
	w.replays = feed.NewReplays(w.store, w.source, w.engine, w.compiler, w.log)
	w.consumer = &stream.Consumer{Holder: holder(), DB: w.pool, Source: w.source, LeaseTTL: w.c.LeaseTTL, Log: w.log, Trimmed: w.metrics.lost}
	(&feed.Feed{Store: w.store, Engine: w.engine, Replays: w.replays, Compiler: w.compiler, Log: w.log, Scheduled: w.metrics.scheduled}).Wire(w.consumer)
	return nil
}

// holder names this replica, differently from every other one, also from itself before a restart.
func holder() string {
	host, err := os.Hostname()
	if err != nil {
		host = name
	}
	return host + "-" + strings.ToLower(rand.Text()[:10])
}

func closeTracing(t *telemetry.Tracing) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	_ = t.Close(ctx) // spans that cannot be sent are lost, as with any crash
}
