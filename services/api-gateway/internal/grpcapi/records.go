// Package grpcapi is the gRPC side: it lets callers in, turns messages into calls of the domain
// packages and results into messages. It has no rules of its own but who may call what.
package grpcapi

import (
	"context"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/sametick/sametick/pkg/auth"
	"github.com/sametick/sametick/pkg/errs"
	recordsv1 "github.com/sametick/sametick/proto/gen/go/sametick/records/v1"
	wirev1 "github.com/sametick/sametick/proto/gen/go/sametick/wire/v1"
	"github.com/sametick/sametick/services/api-gateway/internal/paging"
	"github.com/sametick/sametick/services/api-gateway/internal/records"
)

// Records serves RecordService.
type Records struct {
	recordsv1.UnimplementedRecordServiceServer
	service *records.Service
	roles   Roles
}

// Roles refuses to have the built-in role changed.
type Roles interface {
	Changeable(ctx context.Context, orgID int64, roles ...int64) error
}

// NewRecords makes the server.
func NewRecords(s *records.Service, r Roles) *Records { return &Records{service: s, roles: r} }

// mayWrite asks for org:admin where a record decides who may call: else records:write could shut out
// users or revoke keys. ids are the records that are there already.
func (s *Records) mayWrite(ctx context.Context, c caller, typ string, ids ...int64) error {
	switch typ {
	case "user", "role", "organization", "api_key":
		if err := c.require(auth.OrgAdmin); err != nil {
			return err
		}
	}
	if typ == "role" {
		return s.roles.Changeable(ctx, c.call.OrgID, ids...)
	}
	return nil
}

// mayRestore asks for every scope where a record has scopes, whichever: who has it in the archive, or as a role,
// gets them back.
func mayRestore(c caller, typ string) error {
	lacking := auth.ScopesOf(auth.AllScopes()...) &^ c.principal.Scopes
	switch typ {
	case "user", "role", "api_key":
		if lacking != 0 {
			return errs.New(errs.PermissionDenied, "SCOPE_NOT_HELD", "only who has every scope gives scopes back").WithMeta("scopes", lacking.String())
		}
	}
	return nil
}

// CreateRecord implements RecordService.
func (s *Records) CreateRecord(ctx context.Context, req *recordsv1.CreateRecordRequest) (*recordsv1.Record, error) {
	c := callerOf(ctx)
	if err := s.mayWrite(ctx, c, req.GetType()); err != nil {
		return nil, err
	}
	return record(s.service.Create(ctx, c.call, records.Draft{Type: req.GetType(), Name: req.GetName(),
		Attributes: []byte(req.GetAttributes().GetText()), Refs: records.Refs{WorkflowID: req.WorkflowId, StepID: req.StepId}}))
}

// GetRecord implements RecordService.
func (s *Records) GetRecord(ctx context.Context, req *recordsv1.GetRecordRequest) (*recordsv1.Record, error) {
	return record(s.service.Get(ctx, callerOf(ctx).call.OrgID, req.GetType(), req.GetId()))
}

// ListRecords implements RecordService.
func (s *Records) ListRecords(ctx context.Context, req *recordsv1.ListRecordsRequest) (*recordsv1.ListRecordsResponse, error) {
	page, err := paging.Standard.Page(req.Limit, req.Page)
	if err != nil {
		return nil, err
	}
	list, total, err := s.service.List(ctx, callerOf(ctx).call.OrgID, records.Query{Type: req.GetType(), Page: page,
		IncludeArchived: req.GetIncludeArchived(), WorkflowID: req.WorkflowId, ExternalID: req.ExternalId})
	if err != nil {
		return nil, err
	}
	return &recordsv1.ListRecordsResponse{Total: total, Data: toRecords(list)}, nil
}

// UpdateRecord implements RecordService.
func (s *Records) UpdateRecord(ctx context.Context, req *recordsv1.UpdateRecordRequest) (*recordsv1.Record, error) {
	c := callerOf(ctx)
	if err := s.mayWrite(ctx, c, req.GetType(), req.GetId()); err != nil {
		return nil, err
	}
	u := toUpdate(&recordsv1.Operation_Update{Id: req.GetId(), Name: req.Name, Attributes: req.GetAttributes(), WorkflowId: req.WorkflowId,
		StepId: req.StepId, Version: req.Version, UpdateMask: req.GetUpdateMask()})
	u.Type = req.GetType()
	return record(s.service.Update(ctx, c.call, u))
}

func toUpdate(req *recordsv1.Operation_Update) records.Update {
	u := records.Update{ID: req.GetId(), Mask: req.GetUpdateMask().GetPaths(), Name: req.GetName(),
		WorkflowID: req.WorkflowId, StepID: req.StepId, Version: req.Version}
	if req.Attributes != nil {
		u.Attributes = []byte(req.GetAttributes().GetText())
	}
	if len(u.Mask) == 0 && req.UpdateMask == nil {
		u.Mask = setFields(req)
	}
	return u
}

func setFields(req *recordsv1.Operation_Update) (mask []string) {
	add := func(set bool, field string) {
		if set {
			mask = append(mask, field)
		}
	}
	add(req.Name != nil, "name")
	add(req.Attributes != nil, "attributes")
	add(req.WorkflowId != nil, "workflow_id")
	add(req.StepId != nil, "step_id")
	return mask
}

// ArchiveRecord implements RecordService.
func (s *Records) ArchiveRecord(ctx context.Context, req *recordsv1.ArchiveRecordRequest) (*recordsv1.Record, error) {
	c := callerOf(ctx)
	if err := s.mayWrite(ctx, c, req.GetType(), req.GetId()); err != nil {
		return nil, err
	}
	return record(s.service.Archive(ctx, c.call, req.GetType(), req.GetId(), req.Version))
}

// RestoreRecord implements RecordService.
func (s *Records) RestoreRecord(ctx context.Context, req *recordsv1.RestoreRecordRequest) (*recordsv1.Record, error) {
	c := callerOf(ctx)
	if err := s.mayWrite(ctx, c, req.GetType(), req.GetId()); err != nil {
		return nil, err
	}
	if err := mayRestore(c, req.GetType()); err != nil {
		return nil, err
	}
	return record(s.service.Restore(ctx, c.call, req.GetType(), req.GetId(), req.Version))
}

// BatchRecords implements RecordService.
func (s *Records) BatchRecords(ctx context.Context, req *recordsv1.BatchRecordsRequest) (*recordsv1.BatchRecordsResponse, error) {
	c := callerOf(ctx)
	list := make([]records.Operation, len(req.GetOperations()))
	var ids []int64
	for i, o := range req.GetOperations() {
		if d := o.GetCreate(); d != nil {
			list[i].Create = &records.Draft{Name: d.GetName(), Attributes: []byte(d.GetAttributes().GetText()),
				Refs: records.Refs{WorkflowID: d.WorkflowId, StepID: d.StepId}}
		}
		if u := o.GetUpdate(); u != nil {
			update := toUpdate(u)
			list[i].Update = &update
			ids = append(ids, u.GetId())
		}
		if a := o.GetArchive(); a != nil {
			list[i].Archive = &records.Target{ID: a.GetId(), Version: a.Version}
			ids = append(ids, a.GetId())
		}
	}
	if err := s.mayWrite(ctx, c, req.GetType(), ids...); err != nil {
		return nil, err
	}
	made, err := s.service.Batch(ctx, c.call, req.GetType(), list)
	if err != nil {
		return nil, err
	}
	return &recordsv1.BatchRecordsResponse{Data: toRecords(made)}, nil
}

// ExportRecords implements RecordService.
func (s *Records) ExportRecords(req *recordsv1.ExportRecordsRequest, stream grpc.ServerStreamingServer[recordsv1.ExportRecordsResponse]) error {
	c := callerOf(stream.Context())
	summary, err := s.service.Export(stream.Context(), c.call, records.Query{Type: req.GetType(), IncludeArchived: req.GetIncludeArchived(),
		WorkflowID: req.WorkflowId}, req.GetFormat(), func(chunk []byte) error {
		return stream.Send(&recordsv1.ExportRecordsResponse{Data: chunk}) // which copies it
	})
	if err != nil {
		return err
	}
	return stream.Send(&recordsv1.ExportRecordsResponse{Summary: &recordsv1.ExportSummary{Count: summary.Count, Sha256: summary.SHA256}})
}

func toRecords(list []records.Record) []*recordsv1.Record {
	out := make([]*recordsv1.Record, len(list))
	for i := range list {
		out[i] = toRecord(&list[i])
	}
	return out
}

func record(r records.Record, err error) (*recordsv1.Record, error) {
	if err != nil {
		return nil, err
	}
	return toRecord(&r), nil
}

func toRecord(r *records.Record) *recordsv1.Record {
	return &recordsv1.Record{
		Id: r.ID, Type: r.Type, Name: r.Name, Attributes: &wirev1.Json{Text: string(r.Attributes)}, Version: r.Version,
		WorkflowId: r.WorkflowID, StepId: r.StepID,
		CreatedAt: timestamppb.New(r.CreatedAt), UpdatedAt: timestamppb.New(r.UpdatedAt), ArchivedAt: timestamp(r.ArchivedAt),
	}
}

func timestamp(t *time.Time) *timestamppb.Timestamp {
	if t == nil {
		return nil
	}
	return timestamppb.New(*t)
}
