// Package records has the rules of the platform's entities: what a valid record is, what a change
// changes, which events it fires. It decides and does not act: storing lives in store, the wire in
// grpcapi and rest.
package records

import (
	"context"
	"encoding/json"
	"time"

	"github.com/sametick/sametick/pkg/errs"
	"github.com/sametick/sametick/pkg/event"
	"github.com/sametick/sametick/services/api-gateway/internal/schema"
)

// Record is one entity.
type Record struct {
	OrgID int64
	Type  event.Type
	ID    int64
	Name  string
	// Attributes is a JSON object.
	Attributes json.RawMessage
	// Version is 1 at creation and one more with each mutation.
	Version int64
	// WorkflowID and StepID are the workflow and step that the record belongs to.
	WorkflowID, StepID   *int64
	CreatedAt, UpdatedAt time.Time
	ArchivedAt           *time.Time
}

// Call says who asks for what follows, and from where.
type Call struct {
	OrgID int64
	// ActorID is the acting user; nil for the system.
	ActorID *int64
	// RequestID, IP, UserAgent and Traceparent are empty when unknown.
	RequestID, IP, UserAgent, Traceparent string
	// ReviewSet is the generation of the hooks that the write was reviewed by, see package review; nil for what no
	// hook reviews.
	ReviewSet *int64
	// Reviews is what they said of a record that is made, as JSON; nil for nothing. See Change.Reviews.
	Reviews json.RawMessage
}

// Names are the names of the workflow and the step that a record refers to; nil when it refers to none
// or there is none.
type Names struct{ Workflow, Step *string }

// Refs are the workflow and the step that a record is to refer to; nil for none.
type Refs struct{ WorkflowID, StepID *int64 }

// Change is what one transaction writes: the record as it shall be and the operation that makes it so.
type Change struct {
	// Operation is event.Create, event.Update or event.Archive.
	Operation string
	Next      Record
	Names     Names
	// Changes is a JSON object: field → {"before", "after"}; nil on create.
	Changes json.RawMessage
	// Reviews is what hooks said of it, as JSON; nil for nothing.
	Reviews json.RawMessage
}

// Context is the part of the event context that a record gives: the workflow and step it belongs to or,
// being one itself, is.
func (c *Change) Context() (refs Refs, workflowName, stepName string) {
	refs = Refs{c.Next.WorkflowID, c.Next.StepID}
	if c.Names.Workflow != nil {
		workflowName = *c.Names.Workflow
	}
	if c.Names.Step != nil {
		stepName = *c.Names.Step
	}
	switch c.Next.Type {
	case "workflow":
		refs.WorkflowID, workflowName = &c.Next.ID, c.Next.Name
	case "step":
		refs.StepID, stepName = &c.Next.ID, c.Next.Name
	}
	return refs, workflowName, stepName
}

// Current is a locked record and what a decision about it may need.
type Current struct {
	Record
	// Names are those of the references asked for, or else of the record's own.
	Names Names
	// Governed: a definition says how this workflow or step moves (package workflow).
	Governed bool
	// Now is the database's time, in whole milliseconds.
	Now time.Time
}

// Decide turns the current state into a change; nil when there is nothing to change.
type Decide func(Current) (*Change, error)

// Writer stores changes. Each is one transaction of the record, its pre_ and post_ event and the audit
// entry.
type Writer interface {
	// Create stores a new record with a fresh id. AlreadyExists, reason EXTERNAL_ID_EXISTS, when the
	// external id is taken; an Invalid field when a reference of it does not exist.
	Create(ctx context.Context, call Call, draft Record) (Record, error)
	// Change locks a record and stores what decide makes of it. Names that refs asks for are looked
	// up first. NotFound when the organisation has no such record.
	Change(ctx context.Context, call Call, typ event.Type, id int64, refs Refs, decide Decide) (Record, error)
	// Batch locks the records of one type with these ids, in their order, draws the ids of `creates` new
	// records and stores what decide makes of them, all or nothing. refs are all references that decide may
	// ask Located for, beside the records' own.
	Batch(ctx context.Context, call Call, typ event.Type, ids []int64, creates int, refs []Refs, decide DecideBatch) ([]Record, error)
}

// Found is what is known of a type.
type Found struct {
	// Schema is nil when there is no such type.
	Schema *schema.Schema
	// Archived: no more records are made of it.
	Archived bool
}

// Types tells what types there are and which records exist.
type Types interface {
	Find(ctx context.Context, orgID int64, name string) (Found, error)
	// Existing tells which records there are, and not archived, in the order asked.
	Existing(ctx context.Context, orgID int64, refs []schema.Ref) ([]bool, error)
}

// Reader reads records of one organisation.
type Reader interface {
	// Get gives NotFound when the organisation has no such record.
	Get(ctx context.Context, orgID int64, typ event.Type, id int64) (Record, error)
	// List gives one page, newest first, and how many match over all pages.
	List(ctx context.Context, orgID int64, q Query) ([]Record, int64, error)
}

// ErrNotFound is the one answer for an absent record and for another organisation's.
func ErrNotFound(typ event.Type, id int64) error {
	return errs.New(errs.NotFound, "RECORD_NOT_FOUND", "there is no such record").
		WithMeta("type", clip(typ)).WithMeta("id", itoa(id))
}
