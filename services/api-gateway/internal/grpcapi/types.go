package grpcapi

import (
	"context"
	"slices"

	"google.golang.org/protobuf/types/known/timestamppb"

	typesv1 "github.com/sametick/sametick/proto/gen/go/sametick/types/v1"
	wirev1 "github.com/sametick/sametick/proto/gen/go/sametick/wire/v1"
	"github.com/sametick/sametick/services/api-gateway/internal/types"
)

// Types serves TypeService.
type Types struct {
	typesv1.UnimplementedTypeServiceServer
	service *types.Service
}

// NewTypes makes the server.
func NewTypes(s *types.Service) *Types { return &Types{service: s} }

// CreateType implements TypeService.
func (s *Types) CreateType(ctx context.Context, req *typesv1.CreateTypeRequest) (*typesv1.RecordType, error) {
	return toType(s.service.Create(ctx, callerOf(ctx).call, req.GetName(), req.GetDescription(), []byte(req.GetSchema().GetText())))
}

// GetType implements TypeService.
func (s *Types) GetType(ctx context.Context, req *typesv1.GetTypeRequest) (*typesv1.RecordType, error) {
	return toType(s.service.Get(ctx, callerOf(ctx).call.OrgID, req.GetName()))
}

// ListTypes implements TypeService.
func (s *Types) ListTypes(ctx context.Context, req *typesv1.ListTypesRequest) (*typesv1.ListTypesResponse, error) {
	list, err := s.service.List(ctx, callerOf(ctx).call.OrgID, req.GetIncludeArchived())
	if err != nil {
		return nil, err
	}
	res := &typesv1.ListTypesResponse{Total: int64(len(list))}
	for _, t := range list {
		m, _ := toType(t, nil)
		res.Data = append(res.Data, m)
	}
	return res, nil
}

// UpdateType implements TypeService.
func (s *Types) UpdateType(ctx context.Context, req *typesv1.UpdateTypeRequest) (*typesv1.RecordType, error) {
	c := callerOf(ctx)
	u := types.Update{Description: req.Description}
	if req.GetSchema() != nil {
		u.Schema = []byte(req.GetSchema().GetText())
	}
	for _, field := range req.GetUpdateMask().GetPaths() {
		switch {
		case field == "description" && u.Description == nil:
			u.Description = new(string)
		case field == "schema" && u.Schema == nil:
			u.Schema = []byte{} // named and not set: refused, a type has a schema
		case !slices.Contains([]string{"description", "schema"}, field):
			return nil, invalid("update_mask", "UNKNOWN_FIELD", "description, schema")
		}
	}
	u.Version = req.Version
	return toType(s.service.Update(ctx, c.call, req.GetName(), u))
}

// ArchiveType implements TypeService.
func (s *Types) ArchiveType(ctx context.Context, req *typesv1.ArchiveTypeRequest) (*typesv1.RecordType, error) {
	return toType(s.service.Archive(ctx, callerOf(ctx).call, req.GetName(), req.Version))
}

func toType(t types.Type, err error) (*typesv1.RecordType, error) {
	if err != nil {
		return nil, err
	}
	m := &typesv1.RecordType{Name: t.Name, Description: t.Description, Schema: &wirev1.Json{Text: string(t.Schema)}, Version: t.Version,
		Builtin: t.Builtin, ArchivedAt: timestamp(t.ArchivedAt)}
	if !t.Builtin {
		m.Id, m.CreatedAt, m.UpdatedAt = &t.ID, timestamppb.New(t.CreatedAt), timestamppb.New(t.UpdatedAt)
	}
	return m, nil
}
