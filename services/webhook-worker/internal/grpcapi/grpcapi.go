// Package grpcapi serves WebhookService to api-gateway, which has authenticated who calls: it turns messages into calls
// of package endpoints and results into messages, and has no rules of its own.
package grpcapi

import (
	"context"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/sametick/sametick/pkg/auth"
	"github.com/sametick/sametick/pkg/errs"
	"github.com/sametick/sametick/pkg/idempotency"
	"github.com/sametick/sametick/pkg/outbox"
	"github.com/sametick/sametick/pkg/rpc"
	"github.com/sametick/sametick/pkg/telemetry"
	webhooksv1 "github.com/sametick/sametick/proto/gen/go/sametick/webhooks/v1"
	"github.com/sametick/sametick/services/webhook-worker/internal/endpoints"
)

// Server serves WebhookService.
type Server struct {
	webhooksv1.UnimplementedWebhookServiceServer
	service *endpoints.Service
}

// New makes the server.
func New(s *endpoints.Service) *Server { return &Server{service: s} }

// Register registers it.
func (s *Server) Register(r grpc.ServiceRegistrar) { webhooksv1.RegisterWebhookServiceServer(r, s) }

// Unary are the interceptors that the server rests on: the suite's token and with it the caller, then keys.
func Unary(token string, once idempotency.Once) []grpc.UnaryServerInterceptor {
	guard, _ := rpc.InternalAuth(token)
	return []grpc.UnaryServerInterceptor{guard, idempotency.Unary(idempotency.Options{Once: once, Caller: func(ctx context.Context) (int64, string) {
		c, _ := rpc.CallerOf(ctx)
		if c.Portal != nil { // whoever has the link must not be given what its maker was answered
			return c.OrgID, c.Subject + " portal:" + c.Portal.ID
		}
		return c.OrgID, c.Subject
	}})}
}

// of gives the service as a caller sees it. Nothing else reaches it.
func (s *Server) of(call endpoints.Call) *endpoints.Service { return s.service.For(call) }

// callOf gives who calls, of those that may.
func callOf(ctx context.Context) (endpoints.Call, error) {
	c, ok := rpc.CallerOf(ctx)
	if !ok {
		return endpoints.Call{}, errs.New(errs.Unauthenticated, "CALLER_MISSING", "nobody is said to call")
	}
	if c.Portal == nil && !auth.ScopesOf(strings.Fields(c.Scopes)...).Has(auth.WebhooksManage) {
		return endpoints.Call{}, errs.New(errs.PermissionDenied, "SCOPE_MISSING", "the token lacks a scope that this needs").
			WithMeta("scope", auth.WebhooksManage)
	}
	call := endpoints.Call{OrgID: c.OrgID, Until: c.ExpiresAt, Context: outbox.Context{ActorID: c.UserID, RequestID: telemetry.RequestID(ctx), IP: c.IP,
		UserAgent: c.UserAgent, Traceparent: telemetry.Traceparent(ctx)}}
	if c.Portal != nil {
		call.Only = c.Portal.Endpoints
	}
	return call, nil
}

// as does a call as its caller.
func as[T any](ctx context.Context, do func(endpoints.Call) (T, error)) (out T, err error) {
	call, err := callOf(ctx)
	if err != nil {
		return out, err
	}
	return do(call)
}

// asManager is as for what no portal link is for.
func asManager[T any](ctx context.Context, do func(endpoints.Call) (T, error)) (out T, err error) {
	if c, ok := rpc.CallerOf(ctx); ok && c.Portal != nil {
		return out, errs.New(errs.PermissionDenied, "PORTAL_TOKEN", "the token of a portal link is for webhook endpoints and their deliveries alone")
	}
	return as(ctx, do)
}

// CreatePortalLink implements WebhookService, but for the URL: api-gateway signs the token in it.
func (s *Server) CreatePortalLink(ctx context.Context, req *webhooksv1.CreatePortalLinkRequest) (*webhooksv1.PortalLink, error) {
	return asManager(ctx, func(call endpoints.Call) (*webhooksv1.PortalLink, error) {
		link, err := s.of(call).NewPortal(ctx, call, req.Ttl, req.GetEndpointIds())
		if err != nil {
			return nil, err
		}
		return &webhooksv1.PortalLink{ExpiresAt: timestamppb.New(link.ExpiresAt)}, nil
	})
}

// to turns a result into a message.
func to[T, M any](v T, err error, message func(*T) *M) (*M, error) {
	if err != nil {
		return nil, err
	}
	return message(&v), nil
}

func stamp(t *time.Time) *timestamppb.Timestamp {
	if t == nil {
		return nil
	}
	return timestamppb.New(*t)
}

func instant(t *timestamppb.Timestamp) *time.Time {
	if t == nil {
		return nil
	}
	at := t.AsTime()
	return &at
}
