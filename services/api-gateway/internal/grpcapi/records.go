// Package grpcapi is the gRPC side: it lets callers in, turns messages into calls of the domain
// packages and results into messages. It has no rules of its own but who may call what.
package grpcapi

import (
	"context"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/sametick/sametick/pkg/auth"
	recordsv1 "github.com/sametick/sametick/proto/gen/go/sametick/records/v1"
	wirev1 "github.com/sametick/sametick/proto/gen/go/sametick/wire/v1"
	"github.com/sametick/sametick/services/api-gateway/internal/paging"
	"github.com/sametick/sametick/services/api-gateway/internal/records"
)

// Records serves RecordService.
type Records struct {
	recordsv1.UnimplementedRecordServiceServer
	service *records.Service
}

// NewRecords makes the server.
func NewRecords(s *records.Service) *Records { return &Records{service: s} }

// mayWrite asks for org:admin where a record decides who may call: else records:write could shut out
// users or revoke keys.
func mayWrite(c caller, typ string) error {
	switch typ {
	case "user", "role", "organization", "api_key":
		return c.require(auth.OrgAdmin)
	default:
		return nil
	}
}

// CreateRecord implements RecordService.
func (s *Records) CreateRecord(ctx context.Context, req *recordsv1.CreateRecordRequest) (*recordsv1.Record, error) {
	c := callerOf(ctx)
	if err := mayWrite(c, req.GetType()); err != nil {
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
	res := &recordsv1.ListRecordsResponse{Total: total, Data: make([]*recordsv1.Record, len(list))}
	for i := range list {
		res.Data[i] = toRecord(&list[i])
	}
	return res, nil
}

// UpdateRecord implements RecordService.
func (s *Records) UpdateRecord(ctx context.Context, req *recordsv1.UpdateRecordRequest) (*recordsv1.Record, error) {
	c := callerOf(ctx)
	if err := mayWrite(c, req.GetType()); err != nil {
		return nil, err
	}
	u := records.Update{Type: req.GetType(), ID: req.GetId(), Mask: req.GetUpdateMask().GetPaths(), Name: req.GetName(),
		WorkflowID: req.WorkflowId, StepID: req.StepId, Version: req.Version}
	if req.Attributes != nil {
		u.Attributes = []byte(req.GetAttributes().GetText())
	}
	if len(u.Mask) == 0 && req.UpdateMask == nil {
		u.Mask = setFields(req)
	}
	return record(s.service.Update(ctx, c.call, u))
}

func setFields(req *recordsv1.UpdateRecordRequest) (mask []string) {
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
	if err := mayWrite(c, req.GetType()); err != nil {
		return nil, err
	}
	return record(s.service.Archive(ctx, c.call, req.GetType(), req.GetId(), req.Version))
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
