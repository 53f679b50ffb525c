package app

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"runtime"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"

	"github.com/sametick/sametick/pkg/auth"
	"github.com/sametick/sametick/pkg/lifecycle"
	"github.com/sametick/sametick/pkg/pg"
	"github.com/sametick/sametick/pkg/rpc"
	"github.com/sametick/sametick/pkg/telemetry"
	"github.com/sametick/sametick/pkg/wake"
	auditv1 "github.com/sametick/sametick/proto/gen/go/sametick/audit/v1"
	eventsv1 "github.com/sametick/sametick/proto/gen/go/sametick/events/v1"
	identityv1 "github.com/sametick/sametick/proto/gen/go/sametick/identity/v1"
	promptsv1 "github.com/sametick/sametick/proto/gen/go/sametick/prompts/v1"
	recordsv1 "github.com/sametick/sametick/proto/gen/go/sametick/records/v1"
	relayv1 "github.com/sametick/sametick/proto/gen/go/sametick/relay/v1"
	typesv1 "github.com/sametick/sametick/proto/gen/go/sametick/types/v1"
	webhooksv1 "github.com/sametick/sametick/proto/gen/go/sametick/webhooks/v1"
	workflowv1 "github.com/sametick/sametick/proto/gen/go/sametick/workflow/v1"
	"github.com/sametick/sametick/services/api-gateway/internal/audit"
	"github.com/sametick/sametick/services/api-gateway/internal/events"
	"github.com/sametick/sametick/services/api-gateway/internal/grpcapi"
	"github.com/sametick/sametick/services/api-gateway/internal/identity"
	"github.com/sametick/sametick/services/api-gateway/internal/oidc"
	"github.com/sametick/sametick/services/api-gateway/internal/portal"
	"github.com/sametick/sametick/services/api-gateway/internal/proofs"
	"github.com/sametick/sametick/services/api-gateway/internal/records"
	"github.com/sametick/sametick/services/api-gateway/internal/rest"
	"github.com/sametick/sametick/services/api-gateway/internal/review"
	"github.com/sametick/sametick/services/api-gateway/internal/reviewer"
	"github.com/sametick/sametick/services/api-gateway/internal/store"
	"github.com/sametick/sametick/services/api-gateway/internal/types"
	"github.com/sametick/sametick/services/api-gateway/internal/workflow"
)

const (
	// keyTTL is the life of tokens that API keys are exchanged for: streams live long.
	keyTTL = time.Hour
	// asideConns are for what is written although its call's own transaction fails.
	asideConns = 2
	// maxSpread bounds how long open streams end over at a shutdown.
	maxSpread = 5 * time.Second
	// streamWrite is how long a client of a stream may take nothing; sse-gateway's own WRITE_TIMEOUT by default.
	streamWrite = 10 * time.Second
	// maxAnswer holds the largest page: 1,000 events of updates that changed all of 256 KiB twice.
	maxAnswer = 1 << 30
	// maxBatch holds a batch of as many bytes as REST takes, and what is around it.
	maxBatch = 20 << 20
)

// gateway is the process being put together, a step for each resource.
type gateway struct {
	config   *Config
	log      *slog.Logger
	tracing  *telemetry.Tracing
	ready    *telemetry.Readiness
	registry *prometheus.Registry

	pool     *pgxpool.Pool
	relay    *grpc.ClientConn
	webhooks *grpc.ClientConn
	prompts  *grpc.ClientConn
	waker    *wake.Waker
	store    *store.Store
	records  *records.Service
	types    *types.Service
	identity *identity.Service
	keys     *identity.KeyCache
	checker  *identity.Checker
	verifier *auth.Verifier
	signer   *auth.Signer
	// What follows a change, of anything, of who may call, of a type.
	changed, revoked, retyped *again
	// secret is what the gRPC side knows the REST side of this process by.
	secret string
	// The servers, by what they speak.
	ops, grpc, http *lifecycle.Server
	parts           []lifecycle.Component
}

// serve runs the service until a signal or the end of ctx.
func serve(ctx context.Context, c *Config, log *slog.Logger, getenv func(string) string) error {
	tracing, err := telemetry.NewTracing(ctx, service, getenv)
	if err != nil {
		return err
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		_ = tracing.Close(ctx) // spans that cannot be sent are lost
	}()
	g, err := assemble(ctx, c, log, tracing)
	if err != nil {
		return err
	}
	return lifecycle.Run(ctx, lifecycle.Options{Grace: c.ShutdownGrace, DrainDelay: c.DrainDelay,
		NotReady: g.ready.Draining, Ready: g.ready.Ready}, g.parts...)
}

// assemble builds everything and starts nothing.
func assemble(ctx context.Context, c *Config, log *slog.Logger, tracing *telemetry.Tracing) (*gateway, error) {
	g := &gateway{config: c, log: log, tracing: tracing, ready: &telemetry.Readiness{}, registry: telemetry.NewRegistry(), secret: auth.NewSecret("")}
	g.ops = telemetry.NewOps(c.OpsAddr, g.registry, g.ready, log)
	g.add(g.ops)
	for _, build := range []func(context.Context) error{g.buildStore, g.buildSiblings, g.buildServices, g.buildGRPC, g.buildHTTP} {
		if err := build(ctx); err != nil {
			return nil, err
		}
	}
	return g, nil
}

// add adds a part of the process: started in this order, stopped in reverse.
func (g *gateway) add(c lifecycle.Component) { g.parts = append(g.parts, c) }

func (g *gateway) buildStore(ctx context.Context) (err error) {
	options := pg.Options{AppName: service, MaxConns: g.config.DatabaseMaxConns, Pooled: g.config.DatabasePooled,
		StatementTimeout: 15 * time.Second, LockTimeout: 5 * time.Second, IdleInTransactionTimeout: 15 * time.Second}
	if g.pool, err = pg.Open(ctx, g.config.DatabaseURL.Reveal(), options); err != nil {
		return err
	}
	g.add(lifecycle.Closer(g.pool.Close))
	options.MaxConns = asideConns
	aside, err := pg.Open(ctx, g.config.DatabaseURL.Reveal(), options)
	if err != nil {
		return err
	}
	g.add(lifecycle.Closer(aside.Close))
	g.store = store.New(g.pool, aside)
	g.ready.Add("database", g.store.CheckSchema)
	return nil
}

// dial makes a connection to a sibling, which sees the suite's token.
func (g *gateway) dial(addr string, o rpc.ClientOptions) (*grpc.ClientConn, error) {
	o.Token, o.Tracer = g.config.InternalToken.Reveal(), g.tracing.Provider()
	c, err := rpc.Dial(addr, o)
	if err == nil {
		g.add(lifecycle.Closer(func() { _ = c.Close() }))
	}
	return c, err
}

func (g *gateway) buildSiblings(context.Context) (err error) {
	if g.webhooks, err = g.dial(g.config.WebhookAddr, rpc.ClientOptions{MaxRecvBytes: maxAnswer}); err != nil {
		return err
	}
	if g.prompts, err = g.dial(g.config.PromptAddr, rpc.ClientOptions{MaxRecvBytes: maxAnswer}); err != nil {
		return err
	}
	if g.relay, err = g.dial(g.config.RelayAddr, rpc.ClientOptions{}); err != nil {
		return err
	}
	client := relayv1.NewRelayServiceClient(g.relay)
	g.waker = wake.New(func(ctx context.Context) error {
		_, err := client.Wake(ctx, &relayv1.WakeRequest{})
		return err
	}, g.log)
	g.add(g.waker)
	return nil
}

func (g *gateway) buildServices(context.Context) error {
	var err error
	if g.signer, err = auth.ParseSigner(g.config.SigningKey.Reveal()); err != nil {
		return err
	}
	if g.verifier, err = auth.NewVerifier(g.config.PublicKeys); err != nil {
		return err
	}
	g.keys = identity.NewKeyCache(g.store, time.Now)
	registry, err := types.NewRegistry(g.store)
	if err != nil {
		return err
	}
	g.changed = &again{do: g.waker.Wake}
	g.retyped = &again{do: func() { registry.Clear(); g.waker.Wake() }}
	g.types = types.NewService(g.store, registry, g.retyped.ask)
	g.checker = identity.NewChecker(g.verifier, g.external(), g.store, time.Now)
	g.revoked = &again{do: func() { g.keys.Clear(); g.checker.Clear() }}
	writer := g.reviewed()
	g.records = records.NewService(writer, g.store, review.NewExporter(g.store, writer), registry, g.changed.ask, g.revoked.ask)
	g.identity = identity.NewService(identity.Stores{Users: g.store, Sessions: g.store, Passwords: g.store, Throttle: g.store,
		Keys: g.store, Members: g.store, Roles: g.store}, g.records, g.keys, g.checker, g.signer, identity.Settings{
		AccessTTL: g.config.AccessTTL, RefreshTTL: g.config.RefreshTTL, KeyTTL: keyTTL, InvitationTTL: g.config.InvitationTTL,
		ResetTTL: g.config.ResetTTL, ParallelHashes: runtime.GOMAXPROCS(0),
	}, g.changed.ask, g.revoked.ask)
	return nil
}

// reviewed puts the hooks that review before the store.
func (g *gateway) reviewed() *review.Writer {
	return review.NewWriter(g.store, reviewer.New(promptsv1.NewReviewServiceClient(g.prompts)), newReviewStats(g.registry))
}

// external accepts the tokens of the external issuer, if there is one.
func (g *gateway) external() *identity.External {
	if g.config.OIDCIssuer == "" {
		return nil
	}
	v := oidc.New(g.config.OIDCIssuer, g.config.OIDCAudience)
	g.add(lifecycle.Closer(v.Close))
	return identity.NewExternal(v, g.store, g.config.OIDCOrg, time.Now)
}

// limits are nil where there are none: an interface with a nil inside would not be.
func (g *gateway) limits() grpcapi.Limits {
	if g.config.RateLimitOrg == 0 && g.config.RateLimitCaller == 0 {
		return nil
	}
	l := newLimits(g.config, g.registry, g.log)
	g.add(l)
	return l
}

func (g *gateway) buildGRPC(context.Context) error {
	webhooks, err := grpcapi.NewForward(webhooksv1.WebhookService_ServiceDesc, "webhook-worker", g.webhooks)
	if err != nil {
		return err
	}
	prompts, err := grpcapi.NewForward(promptsv1.PromptService_ServiceDesc, "prompt-worker", g.prompts)
	if err != nil {
		return err
	}
	access := grpcapi.NewAccess(g.checker, g.keys, g.secret, g.limits())
	g.grpc = rpc.NewServer(rpc.ServerOptions{Addr: g.config.GRPCAddr, Log: g.log, Registry: g.registry, Tracer: g.tracing.Provider(), MaxRecvBytes: maxBatch,
		Unary: []grpc.UnaryServerInterceptor{access.Unary, grpcapi.Idempotency(once{g.store, []*again{g.revoked, g.retyped, g.changed}})}, Stream: []grpc.StreamServerInterceptor{access.Stream},
		Register: func(r grpc.ServiceRegistrar) {
			recordsv1.RegisterRecordServiceServer(r, grpcapi.NewRecords(g.records, g.identity))
			eventsv1.RegisterEventServiceServer(r, grpcapi.NewEvents(events.NewService(g.store)))
			workflowv1.RegisterWorkflowServiceServer(r, grpcapi.NewWorkflows(workflow.NewService(g.store, g.records, g.changed.ask)))
			auditv1.RegisterAuditServiceServer(r, grpcapi.NewAudit(audit.NewService(g.store, proofs.New(relayv1.NewAuditLogServiceClient(g.relay)), g.changed.ask)))
			typesv1.RegisterTypeServiceServer(r, grpcapi.NewTypes(g.types))
			identityv1.RegisterIdentityServiceServer(r, grpcapi.NewIdentity(g.identity, g.verifier.PublicKeys()))
			identityv1.RegisterDirectoryServiceServer(r, grpcapi.NewDirectory(g.identity, g.records))
			webhooks.WithPortals(g.signer, g.config.PublicURL, portal.Path).Register(r)
			prompts.Register(r)
		}})
	g.add(g.grpc)
	return nil
}

func (g *gateway) buildHTTP(context.Context) error {
	target, err := url.Parse(g.config.SSEURL)
	if err != nil {
		return err
	}
	transport := &http.Transport{DialContext: (&net.Dialer{Timeout: 3 * time.Second}).DialContext, MaxIdleConnsPerHost: 16,
		IdleConnTimeout: time.Minute, ResponseHeaderTimeout: 10 * time.Second, DisableCompression: true}
	g.add(lifecycle.Closer(transport.CloseIdleConnections))
	limits := rest.StreamLimits{Silence: g.config.StreamSilence, Write: streamWrite}
	streams := rest.NewStreams(rest.NewStream(target, g.identity, transport, limits, g.log), min(maxSpread, g.config.ShutdownGrace/3), g.log)
	front := newFront(g.grpc.Addr, rest.Options{Secret: g.secret, Stream: streams, Proxies: g.config.TrustedProxies, Log: g.log},
		rpc.ClientOptions{Tracer: g.tracing.Provider(), MaxRecvBytes: maxAnswer})
	g.add(front)
	g.http = lifecycle.NewHTTP("http", g.config.HTTPAddr, &http.Server{Handler: rest.WithCORS(front, g.config.CORSOrigins), ReadHeaderTimeout: 10 * time.Second,
		ConnContext: lifecycle.LimitUnsent, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 64 << 10, ErrorLog: slog.NewLogLogger(g.log.Handler(), slog.LevelDebug)})
	g.add(g.http)
	g.add(streams)
	return nil
}
