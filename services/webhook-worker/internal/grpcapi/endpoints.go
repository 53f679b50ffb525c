package grpcapi

import (
	"context"

	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/timestamppb"

	webhooksv1 "github.com/sametick/sametick/proto/gen/go/sametick/webhooks/v1"
	"github.com/sametick/sametick/services/webhook-worker/internal/endpoints"
)

// settings are the fields that the requests to create and to update share.
type settings interface {
	GetUrl() string
	GetDescription() string
	GetEventTypes() []string
	GetAggregateTypes() []string
	GetAggregateIds() []int64
	GetFilter() string
	GetTransform() string
	GetFormat() string
	GetHeaders() map[string]string
	GetOrdered() bool
	GetClientCertificate() string
	GetAsymmetric() bool
	GetAuth() *webhooksv1.EndpointAuth
}

func toSettings(r settings, rateLimit *int32) endpoints.Settings {
	return endpoints.Settings{URL: r.GetUrl(), Description: r.GetDescription(), EventTypes: r.GetEventTypes(), AggregateTypes: r.GetAggregateTypes(),
		AggregateIDs: r.GetAggregateIds(), Filter: r.GetFilter(), Transform: r.GetTransform(), Format: r.GetFormat(), Headers: r.GetHeaders(),
		RateLimit: rateLimit, Ordered: r.GetOrdered(), ClientCertificate: r.GetClientCertificate(), Asymmetric: r.GetAsymmetric()}
}

func toAuth(a *webhooksv1.EndpointAuth) endpoints.Auth {
	return endpoints.Auth{Kind: a.GetKind(), Username: a.GetUsername(), Password: a.GetPassword(), Token: a.GetToken()}
}

// CreateEndpoint implements WebhookService.
func (s *Server) CreateEndpoint(ctx context.Context, req *webhooksv1.CreateEndpointRequest) (*webhooksv1.EndpointSecret, error) {
	return as(ctx, func(call endpoints.Call) (*webhooksv1.EndpointSecret, error) {
		d := endpoints.Draft{Settings: toSettings(req, req.RateLimit), Auth: toAuth(req.GetAuth()), ClientKey: req.GetClientKey(),
			Secret: req.GetSecret(), Disabled: req.Enabled != nil && !req.GetEnabled()}
		return withSecret(s.of(call).Create(ctx, call, d))
	})
}

func withSecret(e endpoints.Endpoint, secret string, err error) (*webhooksv1.EndpointSecret, error) {
	if err != nil {
		return nil, err
	}
	return &webhooksv1.EndpointSecret{Endpoint: toEndpoint(&e), Secret: secret}, nil
}

// GetEndpoint implements WebhookService.
func (s *Server) GetEndpoint(ctx context.Context, req *webhooksv1.GetEndpointRequest) (*webhooksv1.Endpoint, error) {
	return as(ctx, func(call endpoints.Call) (*webhooksv1.Endpoint, error) {
		e, err := s.of(call).Get(ctx, call.OrgID, req.GetId())
		return to(e, err, toEndpoint)
	})
}

// ListEndpoints implements WebhookService.
func (s *Server) ListEndpoints(ctx context.Context, req *webhooksv1.ListEndpointsRequest) (*webhooksv1.ListEndpointsResponse, error) {
	return as(ctx, func(call endpoints.Call) (*webhooksv1.ListEndpointsResponse, error) {
		list, total, next, err := s.of(call).List(ctx, call.OrgID, endpoints.Query{IncludeArchived: req.GetIncludeArchived(), Enabled: req.Enabled}, req.Limit, req.GetCursor())
		if err != nil {
			return nil, err
		}
		return &webhooksv1.ListEndpointsResponse{Data: each(list, toEndpoint), Total: total, NextCursor: next}, nil
	})
}

func each[T, M any](list []T, message func(*T) *M) []*M {
	out := make([]*M, len(list))
	for i := range list {
		out[i] = message(&list[i])
	}
	return out
}

// UpdateEndpoint implements WebhookService.
func (s *Server) UpdateEndpoint(ctx context.Context, req *webhooksv1.UpdateEndpointRequest) (*webhooksv1.Endpoint, error) {
	return as(ctx, func(call endpoints.Call) (*webhooksv1.Endpoint, error) {
		u := endpoints.Update{ID: req.GetId(), Mask: req.GetUpdateMask().GetPaths(), Settings: toSettings(req, req.RateLimit), Auth: toAuth(req.GetAuth()),
			ClientKey: req.GetClientKey(), Version: req.Version}
		if req.UpdateMask == nil {
			u.Mask = setFields(req.ProtoReflect())
		}
		e, err := s.of(call).Update(ctx, call, u)
		return to(e, err, toEndpoint)
	})
}

// setFields are the fields of a request that are set, but for those that say what is changed and from when.
func setFields(m protoreflect.Message) (mask []string) {
	m.Range(func(f protoreflect.FieldDescriptor, _ protoreflect.Value) bool {
		if name := string(f.Name()); name != "id" && name != "version" {
			mask = append(mask, name)
		}
		return true
	})
	return mask
}

// ArchiveEndpoint implements WebhookService.
func (s *Server) ArchiveEndpoint(ctx context.Context, req *webhooksv1.ArchiveEndpointRequest) (*webhooksv1.Endpoint, error) {
	return move(ctx, s, (*endpoints.Service).Archive, req.GetId(), req.Version)
}

// RestoreEndpoint implements WebhookService.
func (s *Server) RestoreEndpoint(ctx context.Context, req *webhooksv1.RestoreEndpointRequest) (*webhooksv1.Endpoint, error) {
	return move(ctx, s, (*endpoints.Service).Restore, req.GetId(), req.Version)
}

// EnableEndpoint implements WebhookService.
func (s *Server) EnableEndpoint(ctx context.Context, req *webhooksv1.EnableEndpointRequest) (*webhooksv1.Endpoint, error) {
	return move(ctx, s, (*endpoints.Service).Enable, req.GetId(), req.Version)
}

// DisableEndpoint implements WebhookService.
func (s *Server) DisableEndpoint(ctx context.Context, req *webhooksv1.DisableEndpointRequest) (*webhooksv1.Endpoint, error) {
	return move(ctx, s, (*endpoints.Service).Disable, req.GetId(), req.Version)
}

func move(ctx context.Context, s *Server, do func(*endpoints.Service, context.Context, endpoints.Call, int64, *int64) (endpoints.Endpoint, error), id int64, version *int64) (*webhooksv1.Endpoint, error) {
	return as(ctx, func(call endpoints.Call) (*webhooksv1.Endpoint, error) {
		e, err := do(s.of(call), ctx, call, id, version)
		return to(e, err, toEndpoint)
	})
}

// ExportEndpoints implements WebhookService.
func (s *Server) ExportEndpoints(ctx context.Context, _ *webhooksv1.ExportEndpointsRequest) (*webhooksv1.ExportEndpointsResponse, error) {
	return asManager(ctx, func(call endpoints.Call) (*webhooksv1.ExportEndpointsResponse, error) {
		out, err := s.of(call).Export(ctx, call)
		if err != nil {
			return nil, err
		}
		return &webhooksv1.ExportEndpointsResponse{Data: each(out.Endpoints, toEndpoint), Total: int64(len(out.Endpoints)), Sha256: out.SHA256}, nil
	})
}

// RotateSecret implements WebhookService.
func (s *Server) RotateSecret(ctx context.Context, req *webhooksv1.RotateSecretRequest) (*webhooksv1.EndpointSecret, error) {
	return as(ctx, func(call endpoints.Call) (*webhooksv1.EndpointSecret, error) {
		return withSecret(s.of(call).Rotate(ctx, call, req.GetId(), req.Overlap, req.GetSecret()))
	})
}

func toEndpoint(e *endpoints.Endpoint) *webhooksv1.Endpoint {
	return &webhooksv1.Endpoint{Id: e.ID, Url: e.URL, Description: e.Description, EventTypes: e.EventTypes, AggregateTypes: e.AggregateTypes,
		AggregateIds: e.AggregateIDs, Filter: e.Filter, Transform: e.Transform, Format: e.Format, Headers: e.Headers, RateLimit: e.RateLimit,
		Ordered: e.Ordered, Auth: e.AuthKind, ClientCertificate: e.ClientCertificate, Asymmetric: e.Asymmetric, PublicKeys: e.PublicKeys,
		Enabled: e.Enabled, DisabledReason: e.DisabledReason, DisabledAt: stamp(e.DisabledAt), FailingSince: stamp(e.FailingSince),
		Version: e.Version, CreatedAt: timestamppb.New(e.CreatedAt), UpdatedAt: timestamppb.New(e.UpdatedAt), ArchivedAt: stamp(e.ArchivedAt)}
}
