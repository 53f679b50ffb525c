package grpcapi_test

import (
	"context"
	"log/slog"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/sametick/sametick/pkg/auth"
	"github.com/sametick/sametick/pkg/errs"
	"github.com/sametick/sametick/pkg/idempotency"
	"github.com/sametick/sametick/pkg/lifecycle"
	"github.com/sametick/sametick/pkg/rpc"
	"github.com/sametick/sametick/pkg/telemetry"
	webhooksv1 "github.com/sametick/sametick/proto/gen/go/sametick/webhooks/v1"
	"github.com/sametick/sametick/services/api-gateway/internal/grpcapi"
)

const suiteToken = "secret-secret-sec"

// owner is the process that a service is forwarded to. It notes what it was asked.
type owner struct {
	webhooksv1.UnimplementedWebhookServiceServer
	caller    rpc.Caller
	believed  bool
	key       []string
	requestID string
	request   *webhooksv1.UpdateEndpointRequest
	fail      error
}

func (o *owner) UpdateEndpoint(ctx context.Context, req *webhooksv1.UpdateEndpointRequest) (*webhooksv1.Endpoint, error) {
	o.caller, o.believed = rpc.CallerOf(ctx)
	o.key, o.requestID, o.request = metadata.ValueFromIncomingContext(ctx, idempotency.Key), telemetry.RequestID(ctx), req
	if o.fail != nil {
		return nil, o.fail
	}
	return &webhooksv1.Endpoint{Id: req.GetId(), Url: "https://example.com"}, grpc.SetHeader(ctx, metadata.Pairs(idempotency.Replayed, "true"))
}

func serve(t *testing.T, o rpc.ServerOptions) *lifecycle.Server {
	o.Addr, o.Log, o.Registry = "127.0.0.1:0", slog.New(slog.DiscardHandler), telemetry.NewRegistry()
	s := rpc.NewServer(o)
	require.NoError(t, s.Start(t.Context()))
	t.Cleanup(func() { require.NoError(t, s.Stop(context.WithoutCancel(t.Context()))) })
	return s
}

func dial(t *testing.T, addr, token string) *grpc.ClientConn {
	c, err := rpc.Dial(addr, rpc.ClientOptions{Token: token})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, c.Close()) })
	return c
}

// gateway serves what the process at addr has, to callers with webhooks:manage.
func gateway(t *testing.T, addr, token string) webhooksv1.WebhookServiceClient {
	forward, err := grpcapi.NewForward(webhooksv1.WebhookService_ServiceDesc, "webhook-worker", dial(t, addr, token))
	require.NoError(t, err)
	access := grpcapi.NewAccess(holder(auth.ScopesOf(auth.WebhooksManage)), holder(0), "", nil)
	s := serve(t, rpc.ServerOptions{Unary: []grpc.UnaryServerInterceptor{access.Unary, grpcapi.Idempotency(nil)},
		Register: func(r grpc.ServiceRegistrar) { forward.Register(r) }})
	return webhooksv1.NewWebhookServiceClient(dial(t, s.Addr(), ""))
}

func (o *owner) start(t *testing.T) *lifecycle.Server {
	guard, _ := rpc.InternalAuth(suiteToken)
	return serve(t, rpc.ServerOptions{Unary: []grpc.UnaryServerInterceptor{guard},
		Register: func(r grpc.ServiceRegistrar) { webhooksv1.RegisterWebhookServiceServer(r, o) }})
}

// A forwarded call says who calls and carries its key; its answer comes back as it is.
func TestForward(t *testing.T) {
	o := &owner{}
	client := gateway(t, o.start(t).Addr(), suiteToken)
	ctx := metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer x", idempotency.Key, "k1", rpc.RequestIDKey, "req-7",
		"sametick-caller-bin", `{"org_id":2,"subject":"user:2"}`)
	var header metadata.MD
	got, err := client.UpdateEndpoint(ctx, &webhooksv1.UpdateEndpointRequest{Id: 7, Headers: map[string]string{"a": "b"}}, grpc.Header(&header))
	require.NoError(t, err)
	require.True(t, proto.Equal(&webhooksv1.Endpoint{Id: 7, Url: "https://example.com"}, got))
	require.Equal(t, []string{"true"}, header.Get(idempotency.Replayed))
	require.True(t, o.believed)
	require.EqualValues(t, 1, o.caller.OrgID, "the one that was authenticated, not the one that it claims to be")
	require.Equal(t, "user:1", o.caller.Subject)
	require.Equal(t, auth.WebhooksManage, o.caller.Scopes)
	require.NotEmpty(t, o.caller.UserAgent)
	require.Equal(t, "127.0.0.1", o.caller.IP)
	require.Equal(t, []string{"k1"}, o.key)
	require.Equal(t, "req-7", o.requestID)
	require.Equal(t, map[string]string{"a": "b"}, o.request.GetHeaders())

	_, err = client.UpdateEndpoint(t.Context(), &webhooksv1.UpdateEndpointRequest{})
	require.Equal(t, errs.Unauthenticated, errs.KindOf(err), "who has no token gets no further")
}

func TestForwardedErrors(t *testing.T) {
	o := &owner{}
	client := gateway(t, o.start(t).Addr(), suiteToken)
	ctx := metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer x")
	for _, want := range []*errs.Error{
		errs.New(errs.Invalid, "INVALID_REQUEST", "the request has invalid fields").WithField("url", "BLOCKED", "a public address"),
		errs.New(errs.Aborted, "VERSION_MISMATCH", "it has changed").WithMeta("version", "3"),
		errs.New(errs.TooLarge, "TOO_LARGE", "too large"),
		errs.New(errs.Unavailable, "COMMIT_UNKNOWN", "the outcome of the change is unknown").WithRetryAfter(2e9),
	} {
		o.fail = want
		_, err := client.UpdateEndpoint(ctx, &webhooksv1.UpdateEndpointRequest{})
		require.Equal(t, status.Convert(want).Proto().String(), status.Convert(err).Proto().String())
	}
	_, err := client.GetEndpoint(ctx, &webhooksv1.GetEndpointRequest{})
	require.Equal(t, codes.Unimplemented, status.Code(err))
}

// Who calls learns that the other process is down, and is not blamed for a wrong token of ours.
func TestForwardToNobody(t *testing.T) {
	o := &owner{}
	ctx := metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer x")
	_, err := gateway(t, "127.0.0.1:1", suiteToken).UpdateEndpoint(ctx, &webhooksv1.UpdateEndpointRequest{})
	e := errs.From(err)
	require.Equal(t, errs.Unavailable, e.Kind)
	require.Equal(t, "SERVICE_DOWN", e.Reason)
	require.Equal(t, "webhook-worker", e.Meta["service"])
	require.Positive(t, e.RetryAfter)
	require.NotContains(t, e.Message, "127.0.0.1")
	for _, token := range []string{"", "wrong"} {
		_, err = gateway(t, o.start(t).Addr(), token).UpdateEndpoint(ctx, &webhooksv1.UpdateEndpointRequest{})
		require.Equal(t, errs.Internal, errs.KindOf(err))
	}
}
