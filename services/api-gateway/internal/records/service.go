package records

import (
	"context"

	"github.com/sametick/sametick/pkg/errs"
	"github.com/sametick/sametick/pkg/event"
	"github.com/sametick/sametick/services/api-gateway/internal/paging"
	"github.com/sametick/sametick/services/api-gateway/internal/schema"
)

// Service is what callers may do with records. Safe for concurrent use.
type Service struct {
	writer   Writer
	reader   Reader
	exporter Exporter
	types    Types
	changed  func()
	revoked  func()
}

// NewService makes a service. changed is called after each mutation, revoked after one was
// archived that says who may call; they must not block.
func NewService(w Writer, r Reader, e Exporter, t Types, changed, revoked func()) *Service {
	return &Service{writer: w, reader: r, exporter: e, types: t, changed: changed, revoked: revoked}
}

// Draft is a record to be.
type Draft struct {
	Type, Name string
	// Attributes is JSON text; empty means {}.
	Attributes []byte
	Refs
}

// Query selects records of one type.
type Query struct {
	Type            event.Type
	Page            paging.Page
	IncludeArchived bool
	// WorkflowID and ExternalID select when they are not nil.
	WorkflowID *int64
	ExternalID *string
}

// Update says what to change of a record.
type Update struct {
	Type string
	ID   int64
	// Mask names the fields to change.
	Mask []string
	Name string
	// Attributes is a JSON Merge Patch; nil clears all when the mask names them.
	Attributes         []byte
	WorkflowID, StepID *int64
	// Version is the one that the change was made from; nil means any.
	Version *int64

	schema *schema.Schema // the type's, once it is checked
}

// Create validates and stores a new record.
func (s *Service) Create(ctx context.Context, call Call, d Draft) (Record, error) {
	draft, err := s.Draft(ctx, call.OrgID, d)
	if err != nil {
		return Record{}, err
	}
	r, err := s.writer.Create(ctx, call, draft)
	return s.done(r, err)
}

// Draft checks what shall become a record, and gives it as it would be stored, without an id.
func (s *Service) Draft(ctx context.Context, orgID int64, d Draft) (Record, error) {
	f, err := s.typed(ctx, orgID, d.Type, true)
	if err != nil {
		return Record{}, err
	}
	f.draft(&d)
	return d.record(orgID), s.accept(ctx, orgID, f)
}

// managed are the types whose entities another service keeps, and where they are managed: records beside them would
// be nothing.
func managed() map[event.Type]string {
	return map[event.Type]string{"webhook_endpoint": "/api/webhooks/endpoints"}
}

// typed begins the check of a request about a type; making: it makes a record. Its error is not the caller's.
func (s *Service) typed(ctx context.Context, orgID int64, typ string, making bool) (*faults, error) {
	if route := managed()[typ]; route != "" {
		return nil, errs.New(errs.FailedPrecondition, "MANAGED_ELSEWHERE", "this type has routes of its own: use "+route).WithMeta("use", route)
	}
	found, err := s.types.Find(ctx, orgID, typ)
	if err != nil {
		return nil, err
	}
	f := &faults{}
	f.typ(typ, found)
	if making && found.Archived {
		f.add("type", "TYPE_ARCHIVED", "a type that is not archived")
	}
	return f, nil
}

// accept ends the check: it refuses faults, and references to what is not there. A reference that was stored
// before and that the request does not repeat is not looked at again.
func (s *Service) accept(ctx context.Context, orgID int64, f *faults) error {
	if f.err != nil || len(f.refs) == 0 {
		return f.result()
	}
	there, err := s.types.Existing(ctx, orgID, f.refs)
	if err != nil {
		return err
	}
	f.in = ""
	for i, r := range f.refs {
		if !there[i] {
			f.add(r.Field, "REFERENCE_MISSING", "the id of an existing %s that is not archived", r.Type)
		}
	}
	return f.result()
}

// draft checks what a new record has, but for its type, and writes its numbers plainly.
func (f *faults) draft(d *Draft) {
	f.name(d.Name)
	if len(d.Attributes) == 0 {
		d.Attributes = []byte("{}")
	}
	known := f.schema
	d.Attributes = f.attributes(d.Attributes)
	f.fits(d.Attributes)
	f.schema = known
	f.reference("workflow_id", d.WorkflowID)
	f.reference("step_id", d.StepID)
}

func (d *Draft) record(orgID int64) Record {
	return Record{OrgID: orgID, Type: d.Type, Name: d.Name, Attributes: d.Attributes, Version: 1, WorkflowID: d.WorkflowID, StepID: d.StepID}
}

// update checks what an update asks for, but for its type.
func (f *faults) update(u *Update) {
	f.mask(u.Mask)
	f.version(u.Version)
	if u.has("name") {
		f.name(u.Name)
	}
	if u.schema = f.schema; u.Attributes != nil {
		u.Attributes = f.attributes(u.Attributes)
		f.refers(u.Attributes)
	}
	f.schema = u.schema
	f.reference("workflow_id", u.WorkflowID)
	f.reference("step_id", u.StepID)
}

// Get gives one record, also an archived one.
func (s *Service) Get(ctx context.Context, orgID int64, typ string, id int64) (Record, error) {
	f, err := s.typed(ctx, orgID, typ, false)
	if err == nil {
		err = f.result()
	}
	if err != nil {
		return Record{}, err
	}
	return s.reader.Get(ctx, orgID, typ, id)
}

// List gives one page of a type's records, newest first, and how many match over all pages.
func (s *Service) List(ctx context.Context, orgID int64, q Query) ([]Record, int64, error) {
	f, err := s.typed(ctx, orgID, q.Type, false)
	if err != nil {
		return nil, 0, err
	}
	f.reference("workflow_id", q.WorkflowID)
	if q.ExternalID != nil {
		f.text("external_id", *q.ExternalID)
	}
	if err := f.result(); err != nil {
		return nil, 0, err
	}
	return s.reader.List(ctx, orgID, q)
}

// Update changes what the mask names. An update that changes nothing gives the record as it is and
// fires no event.
func (s *Service) Update(ctx context.Context, call Call, u Update) (Record, error) {
	f, err := s.typed(ctx, call.OrgID, u.Type, false)
	if err != nil {
		return Record{}, err
	}
	f.update(&u)
	if err := s.accept(ctx, call.OrgID, f); err != nil {
		return Record{}, err
	}
	r, err := s.writer.Change(ctx, call, u.Type, u.ID, u.refs(), u.decide)
	return s.done(r, err)
}

// Archive is a soft delete. What is archived already stays as it is.
func (s *Service) Archive(ctx context.Context, call Call, typ string, id int64, version *int64) (Record, error) {
	return s.move(ctx, call, typ, id, version, archive(version))
}

// Restore takes a record out of the archive. What is not archived stays as it is.
func (s *Service) Restore(ctx context.Context, call Call, typ string, id int64, version *int64) (Record, error) {
	return s.move(ctx, call, typ, id, version, restore(version))
}

func (s *Service) move(ctx context.Context, call Call, typ string, id int64, version *int64, decide Decide) (Record, error) {
	f, err := s.typed(ctx, call.OrgID, typ, false)
	if err != nil {
		return Record{}, err
	}
	f.version(version)
	if err := f.result(); err != nil {
		return Record{}, err
	}
	r, err := s.writer.Change(ctx, call, typ, id, Refs{}, decide)
	s.admitted(typ) // also after an error: its outcome may be unknown
	return s.done(r, err)
}

// admitted tells that who may call may have changed.
func (s *Service) admitted(typ event.Type) {
	switch typ {
	case "user", "role", "organization", "api_key":
		s.revoked()
	}
}

func (s *Service) done(r Record, err error) (Record, error) {
	if err == nil {
		s.changed()
	}
	return r, err
}
