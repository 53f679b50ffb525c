package app

import (
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	"slices"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/rueidis"
	"google.golang.org/grpc"

	"github.com/sametick/sametick/pkg/condition"
	"github.com/sametick/sametick/pkg/idempotency"
	"github.com/sametick/sametick/pkg/lifecycle"
	"github.com/sametick/sametick/pkg/pg"
	"github.com/sametick/sametick/pkg/redisconn"
	"github.com/sametick/sametick/pkg/rpc"
	"github.com/sametick/sametick/pkg/stream"
	"github.com/sametick/sametick/pkg/telemetry"
	relayv1 "github.com/sametick/sametick/proto/gen/go/sametick/relay/v1"
	"github.com/sametick/sametick/services/prompt-worker/internal/backtest"
	"github.com/sametick/sametick/services/prompt-worker/internal/feed"
	"github.com/sametick/sametick/services/prompt-worker/internal/grpcapi"
	"github.com/sametick/sametick/services/prompt-worker/internal/limit"
	"github.com/sametick/sametick/services/prompt-worker/internal/managing"
	"github.com/sametick/sametick/services/prompt-worker/internal/models"
	"github.com/sametick/sametick/services/prompt-worker/internal/prompting"
	"github.com/sametick/sametick/services/prompt-worker/internal/review"
	"github.com/sametick/sametick/services/prompt-worker/internal/reviewing"
	"github.com/sametick/sametick/services/prompt-worker/internal/runs"
	"github.com/sametick/sametick/services/prompt-worker/internal/store"
)

const (
	// maxPage bounds an answer of LogService: its own bound is 2 MiB and one event.
	maxPage = 8 << 20
	// maxPrograms bounds the CEL programs that are remembered.
	maxPrograms = 5000
	// maxReview bounds a request of ReviewService: a batch of writes, before and after.
	maxReview = 32 << 20
)

// worker is what a process is made of.
type worker struct {
	c       *Config
	log     *slog.Logger
	reg     *prometheus.Registry
	tracing *telemetry.Tracing
	pool    *pgxpool.Pool
	store   *store.Store
	metrics *metrics

	models    *models.Models
	tools     *models.Tools
	executor  *runs.Executor
	recorder  *reviewing.Recorder
	reviews   *review.Engine
	prompts   *managing.Service
	engine    *runs.Engine
	backtests *backtest.Runner
	relay     *grpc.ClientConn
	redis     *stream.Redis
}

func serve(ctx context.Context, c *Config, getenv func(string) string, log *slog.Logger) (err error) {
	w := &worker{c: c, log: log, reg: telemetry.NewRegistry()}
	if w.tracing, err = telemetry.NewTracing(ctx, name, getenv); err != nil {
		return err
	}
	defer w.closeTracing()
	w.pool, err = pg.Open(ctx, c.DatabaseURL.Reveal(), pg.Options{AppName: name, MaxConns: c.DatabaseMaxConns, Pooled: c.DatabasePooled,
		StatementTimeout: 30 * time.Second, IdleInTransactionTimeout: 30 * time.Second})
	if err != nil {
		return err
	}
	defer w.pool.Close()
	if w.relay, err = rpc.Dial(c.RelayAddr, rpc.ClientOptions{Token: c.InternalToken.Reveal(), Tracer: w.tracing.Provider(), MaxRecvBytes: maxPage}); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.relay.Close()) }()
	w.redis = stream.NewRedis(func(ctx context.Context) (rueidis.Client, error) {
		return redisconn.Open(ctx, c.RedisURL.Reveal(), redisconn.Options{Name: name, Log: log})
	})
	defer w.redis.Close()
	w.store = store.New(w.pool, c.orgBudget())
	w.metrics = newMetrics(w.reg)
	if err := w.build(); err != nil {
		return err
	}
	defer w.models.Close()
	defer w.tools.Close()
	return w.run(ctx)
}

// build makes what reviews and runs.
func (w *worker) build() error {
	ring, err := w.c.Ring()
	if err != nil {
		return err
	}
	guard, err := w.c.Egress.Guard()
	if err != nil {
		return err
	}
	mask, err := prompting.NewMask(w.c.MaskedPaths, w.c.MaskedKeys)
	if err != nil {
		return err
	}
	prices, err := prompting.ParsePrices(w.c.Prices)
	if err != nil {
		return err
	}
	programs, err := condition.NewWriteCompiler(maxPrograms)
	if err != nil {
		return err
	}
	w.models = models.New(ring, guard, limit.New(limit.Options{Max: w.c.CallsAtOnce}), w.tracing.Provider())
	w.tools = models.NewTools(ring, guard, w.models.HTTP(), w.c.stdio(), w.log)
	w.executor = &runs.Executor{Models: w.models, Tools: w.tools, Compiler: runs.NewCompiler(programs), Mask: mask, Prices: prices}
	w.recorder = reviewing.NewRecorder(w.store, prices, w.log)
	w.recorder.Observe = w.metrics.reviewed
	hooks := reviewing.NewHooks(w.store, w.executor.Compiler)
	runner := &reviewing.Runner{Hooks: hooks, Store: w.store, Executor: w.executor, Recorder: w.recorder}
	w.reviews = review.New(hooks, runner, w.recorder, mask)
	w.engine = runs.New(runs.Config{
		Queue: w.store, Executor: w.executor, PerHook: w.c.RunsPerHook, PerOrg: w.c.RunsPerOrg, InAll: w.c.RunsAtOnce, MaxBytes: w.c.RunsMemory,
		Observe: w.metrics.finished, Log: w.log, Stats: &w.metrics.runs,
	})
	w.metrics.dropped(w.reg, &w.recorder.Dropped)
	w.prompts = &managing.Service{
		Store: w.store, Ring: ring, Conditions: programs, CheckURL: guard.CheckURL, CheckCommand: w.checkCommand, Tools: w.tools, Executor: w.executor,
		Reviews: &reviewing.Trier{Store: w.store, Executor: w.executor, Recorder: w.recorder, Mask: mask},
	}
	w.backtests = &backtest.Runner{Queue: store.Backtests{Store: w.store}, Executor: w.executor, Reviews: w.prompts.Reviews, Log: w.log, Holder: name}
	return nil
}

// errCommand is of a command that the operator has not named.
var errCommand = errors.New("the operator does not allow this command")

func (w *worker) checkCommand(command []string) error {
	if slices.ContainsFunc(w.c.stdio(), func(allowed []string) bool { return slices.Equal(allowed, command) }) {
		return nil
	}
	return errCommand
}

func (w *worker) consumer() *stream.Consumer {
	source := stream.New(stream.Options{Log: stream.NewLog(relayv1.NewLogServiceClient(w.relay)), Redis: w.redis})
	f := &feed.Feed{Store: w.store, Compiler: w.executor.Compiler, MaxDepth: w.c.ChainDepth, Stats: &w.metrics.feed}
	return feed.NewConsumer(f, w.engine, feed.Options{DB: w.pool, Source: source, Holder: name + " " + rand.Text(), LeaseTTL: w.c.LeaseTTL,
		Log: w.log, Trimmed: w.metrics.trimmed})
}

// run starts in this order, and stops in the reverse one: first nothing new is taken, then what is in hand is finished,
// then what came of it is kept.
func (w *worker) run(ctx context.Context) error {
	ready := &telemetry.Readiness{}
	ready.Add("schema", w.store.CheckSchema)
	_, streams := rpc.InternalAuth(w.c.InternalToken.Reveal())
	register := func(r grpc.ServiceRegistrar) {
		(&grpcapi.Review{Reviewer: w.reviews}).Register(r)
		(&grpcapi.Prompts{Service: w.prompts}).Register(r)
	}
	return lifecycle.Run(ctx, lifecycle.Options{Grace: w.c.ShutdownGrace, DrainDelay: w.c.DrainDelay, NotReady: ready.Draining, Ready: ready.Ready},
		telemetry.NewOps(w.c.OpsAddr, w.reg, ready, w.log),
		lifecycle.NewLoop("upkeep", w.upkeep),
		lifecycle.NewLoop("run ids", w.recorder.Draw),
		lifecycle.NewLoop("review runs", w.recorder.Keep),
		lifecycle.Closer(w.reviews.Close),
		rpc.NewServer(rpc.ServerOptions{
			Addr: w.c.GRPCAddr, Log: w.log, Registry: w.reg, Tracer: w.tracing.Provider(), MaxRecvBytes: maxReview,
			Unary:  grpcapi.Unary(w.c.InternalToken.Reveal(), idempotency.NewClaims(w.pool, nil)),
			Stream: []grpc.StreamServerInterceptor{streams}, Register: register,
		}),
		lifecycle.NewLoop("backtests", w.backtests.Run),
		lifecycle.NewLoop("runs", w.engine.Run),
		lifecycle.NewLoop("feed", w.consumer().Run),
	)
}

func (w *worker) closeTracing() {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	_ = w.tracing.Close(ctx) // spans that cannot be sent are lost, as with any crash
}

const (
	expireEvery = 10 * time.Second
	upkeepEvery = 10 * time.Minute
)

// upkeep ends what nobody settles, and makes and drops partitions.
func (w *worker) upkeep(take, _ context.Context) error {
	tick := time.NewTicker(expireEvery)
	defer tick.Stop()
	for next := time.Now(); ; {
		if now := time.Now(); !now.Before(next) {
			next = now.Add(upkeepEvery)
			w.complain(take, "partitions of runs cannot be made", w.store.EnsurePartitions(take))
			if w.c.RunRetention > 0 {
				_, err := w.store.DropPartition(take, now.Add(-w.c.RunRetention))
				w.complain(take, "old runs cannot be dropped", err)
				_, err = w.store.PruneBudgets(take, now.Add(-w.c.RunRetention))
				w.complain(take, "old budgets cannot be dropped", err)
				_, err = w.store.PruneBacktests(take, now.Add(-w.c.RunRetention))
				w.complain(take, "old backtests cannot be dropped", err)
			}
		}
		_, err := w.store.Expire(take, time.Now())
		w.complain(take, "reservations cannot be expired", err)
		select {
		case <-tick.C:
		case <-take.Done():
			return nil
		}
	}
}

func (w *worker) complain(ctx context.Context, text string, err error) {
	if err != nil && ctx.Err() == nil {
		w.log.WarnContext(ctx, text, slog.Any("error", err))
	}
}
