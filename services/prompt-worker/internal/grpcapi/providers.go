package grpcapi

import (
	"context"

	"google.golang.org/protobuf/types/known/timestamppb"

	promptsv1 "github.com/sametick/sametick/proto/gen/go/sametick/prompts/v1"
	"github.com/sametick/sametick/services/prompt-worker/internal/hooks"
	"github.com/sametick/sametick/services/prompt-worker/internal/managing"
	"github.com/sametick/sametick/services/prompt-worker/internal/prompting"
)

// providerFields are those that the requests to create and to update share.
type providerFields interface {
	GetName() string
	GetBaseUrl() string
	GetDefaultModel() string
	GetKey() string
	GetConcurrency() int32
}

func fromProvider(r providerFields) managing.ProviderSettings {
	return managing.ProviderSettings{Name: r.GetName(), BaseURL: r.GetBaseUrl(), DefaultModel: r.GetDefaultModel(), Key: r.GetKey(), Concurrency: int(r.GetConcurrency())}
}

// CreateProvider implements promptsv1.PromptServiceServer.
func (s *Prompts) CreateProvider(ctx context.Context, req *promptsv1.CreateProviderRequest) (*promptsv1.Provider, error) {
	return as(ctx, func(call hooks.Call) (*promptsv1.Provider, error) {
		p, err := s.Service.CreateProvider(ctx, call, req.GetKind(), fromProvider(req))
		return to(p, err, toProvider)
	})
}

// GetProvider implements promptsv1.PromptServiceServer.
func (s *Prompts) GetProvider(ctx context.Context, req *promptsv1.GetProviderRequest) (*promptsv1.Provider, error) {
	return as(ctx, func(call hooks.Call) (*promptsv1.Provider, error) {
		p, err := s.Service.Provider(ctx, call.OrgID, req.GetId())
		return to(p, err, toProvider)
	})
}

// ListProviders implements promptsv1.PromptServiceServer.
func (s *Prompts) ListProviders(ctx context.Context, req *promptsv1.ListProvidersRequest) (*promptsv1.ListProvidersResponse, error) {
	return as(ctx, func(call hooks.Call) (*promptsv1.ListProvidersResponse, error) {
		list, total, err := s.Service.Providers(ctx, call.OrgID, req.GetIncludeArchived())
		if err != nil {
			return nil, err
		}
		return &promptsv1.ListProvidersResponse{Data: each(list, toProvider), Total: total}, nil
	})
}

// UpdateProvider implements promptsv1.PromptServiceServer.
func (s *Prompts) UpdateProvider(ctx context.Context, req *promptsv1.UpdateProviderRequest) (*promptsv1.Provider, error) {
	return as(ctx, func(call hooks.Call) (*promptsv1.Provider, error) {
		mask := req.GetUpdateMask().GetPaths()
		if req.UpdateMask == nil {
			mask = setFields(req.ProtoReflect())
		}
		p, err := s.Service.UpdateProvider(ctx, call, req.GetId(), req.Version, mask, fromProvider(req))
		return to(p, err, toProvider)
	})
}

// ArchiveProvider implements promptsv1.PromptServiceServer.
func (s *Prompts) ArchiveProvider(ctx context.Context, req *promptsv1.ArchiveProviderRequest) (*promptsv1.Provider, error) {
	return as(ctx, func(call hooks.Call) (*promptsv1.Provider, error) {
		p, err := s.Service.ArchiveProvider(ctx, call, req.GetId())
		return to(p, err, toProvider)
	})
}

func toProvider(p hooks.Provider) *promptsv1.Provider {
	return &promptsv1.Provider{Id: p.ID, Name: p.Name, Kind: p.Kind, BaseUrl: p.BaseURL, DefaultModel: p.DefaultModel, KeyHint: p.KeyHint,
		Concurrency: int32(p.Concurrency), Version: p.Version, CreatedAt: timestamppb.New(p.CreatedAt), UpdatedAt: timestamppb.New(p.UpdatedAt), //nolint:gosec // at most 1,000
		ArchivedAt: stamp(p.ArchivedAt)}
}

// CreateMcpServer implements promptsv1.PromptServiceServer.
func (s *Prompts) CreateMcpServer(ctx context.Context, req *promptsv1.CreateMcpServerRequest) (*promptsv1.McpServer, error) {
	return as(ctx, func(call hooks.Call) (*promptsv1.McpServer, error) {
		m, err := s.Service.CreateServer(ctx, call, managing.ServerSettings{Name: req.GetName(), Transport: req.GetTransport(), URL: req.GetUrl(),
			Command: req.GetCommand(), Headers: req.GetHeaders()})
		return to(m, err, toServer)
	})
}

// GetMcpServer implements promptsv1.PromptServiceServer.
func (s *Prompts) GetMcpServer(ctx context.Context, req *promptsv1.GetMcpServerRequest) (*promptsv1.McpServer, error) {
	return as(ctx, func(call hooks.Call) (*promptsv1.McpServer, error) {
		m, err := s.Service.Server(ctx, call.OrgID, req.GetId())
		return to(m, err, toServer)
	})
}

// ListMcpServers implements promptsv1.PromptServiceServer.
func (s *Prompts) ListMcpServers(ctx context.Context, req *promptsv1.ListMcpServersRequest) (*promptsv1.ListMcpServersResponse, error) {
	return as(ctx, func(call hooks.Call) (*promptsv1.ListMcpServersResponse, error) {
		list, total, err := s.Service.Servers(ctx, call.OrgID, req.GetIncludeArchived())
		if err != nil {
			return nil, err
		}
		return &promptsv1.ListMcpServersResponse{Data: each(list, toServer), Total: total}, nil
	})
}

// ArchiveMcpServer implements promptsv1.PromptServiceServer.
func (s *Prompts) ArchiveMcpServer(ctx context.Context, req *promptsv1.ArchiveMcpServerRequest) (*promptsv1.McpServer, error) {
	return as(ctx, func(call hooks.Call) (*promptsv1.McpServer, error) {
		m, err := s.Service.ArchiveServer(ctx, call, req.GetId())
		return to(m, err, toServer)
	})
}

// ListMcpTools implements promptsv1.PromptServiceServer.
func (s *Prompts) ListMcpTools(ctx context.Context, req *promptsv1.ListMcpToolsRequest) (*promptsv1.ListMcpToolsResponse, error) {
	return as(ctx, func(call hooks.Call) (*promptsv1.ListMcpToolsResponse, error) {
		list, err := s.Service.Offered(ctx, call.OrgID, req.GetId())
		if err != nil {
			return nil, err
		}
		return &promptsv1.ListMcpToolsResponse{Data: each(list, func(t prompting.Tool) *promptsv1.McpTool {
			return &promptsv1.McpTool{Name: t.Name, Description: t.Description, InputSchema: toJSON(t.Schema)}
		})}, nil
	})
}

func toServer(m hooks.Server) *promptsv1.McpServer {
	return &promptsv1.McpServer{Id: m.ID, Name: m.Name, Transport: m.Transport, Url: m.URL, Command: m.Command,
		CreatedAt: timestamppb.New(m.CreatedAt), ArchivedAt: stamp(m.ArchivedAt)}
}
