package workflow

import (
	"context"
	"encoding/json"
	"fmt"
	"reflect"
	"time"

	"github.com/sametick/sametick/pkg/errs"
	"github.com/sametick/sametick/pkg/event"
	"github.com/sametick/sametick/services/api-gateway/internal/paging"
	"github.com/sametick/sametick/services/api-gateway/internal/records"
)

// DefinitionChange is what one transaction writes of a definition.
type DefinitionChange struct {
	Operation string
	Next      Definition
	// Changes is a JSON object: field → {"before", "after"}.
	Changes json.RawMessage
}

// Transition is what one transaction writes of a workflow.
type Transition struct {
	Before, After Flow
	// StepID and StepEvent name the step that was moved, FlowEvent what became of the workflow; empty for none.
	StepID               int64
	StepEvent, FlowEvent string
	Note                 string
}

// Store keeps definitions and the state of workflows.
type Store interface {
	CreateDefinition(ctx context.Context, call records.Call, d Definition) (Definition, error)
	FindDefinition(ctx context.Context, orgID, id int64) (Definition, error)
	ListDefinitions(ctx context.Context, orgID int64, p paging.Page) ([]Definition, int64, error)
	ChangeDefinition(ctx context.Context, call records.Call, id int64, decide func(Definition, time.Time) (*DefinitionChange, error)) (Definition, error)
	// Start makes the records of a workflow and of its steps.
	Start(ctx context.Context, call records.Call, d Definition, draft records.Record, steps []Step) (Flow, error)
	// FindFlow gives NotFound also for a workflow that no definition governs.
	FindFlow(ctx context.Context, orgID, id int64) (Flow, error)
	// MoveFlow locks a workflow and stores what decide makes of it.
	MoveFlow(ctx context.Context, call records.Call, id int64, decide func(Flow) (Transition, error)) (Flow, error)
}

// Drafter checks what shall become a record, and gives it as it would be stored.
type Drafter interface {
	Draft(ctx context.Context, orgID int64, d records.Draft) (records.Record, error)
}

// Service is what callers may do with workflows. Safe for concurrent use.
type Service struct {
	store   Store
	drafts  Drafter
	changed func()
}

// NewService makes a service. changed is called after each mutation; it must not block.
func NewService(s Store, d Drafter, changed func()) *Service {
	return &Service{store: s, drafts: d, changed: changed}
}

// ErrNotFound is the one answer for an absent workflow, one that no definition governs, and another organisation's.
func ErrNotFound() error {
	return errs.New(errs.NotFound, "WORKFLOW_NOT_FOUND", "there is no such workflow, or no definition governs it")
}

// ErrNoDefinition is the one answer for an absent definition and for another organisation's.
func ErrNoDefinition() error {
	return errs.New(errs.NotFound, "DEFINITION_NOT_FOUND", "there is no such workflow definition")
}

// CreateDefinition stores a new one.
func (s *Service) CreateDefinition(ctx context.Context, call records.Call, name string, steps []Spec) (Definition, error) {
	if err := checkDefinition(name, steps); err != nil {
		return Definition{}, err
	}
	d, err := s.store.CreateDefinition(ctx, call, Definition{OrgID: call.OrgID, Name: name, Steps: complete(steps), Version: 1})
	return d, s.done(err)
}

// Definition gives one, also an archived one.
func (s *Service) Definition(ctx context.Context, orgID, id int64) (Definition, error) {
	return s.store.FindDefinition(ctx, orgID, id)
}

// Definitions gives one page of those that are not archived, and how many there are.
func (s *Service) Definitions(ctx context.Context, orgID int64, limit, page *int32) ([]Definition, int64, error) {
	p, err := paging.Standard.Page(limit, page)
	if err != nil {
		return nil, 0, err
	}
	return s.store.ListDefinitions(ctx, orgID, p)
}

// UpdateDefinition changes what is not nil.
func (s *Service) UpdateDefinition(ctx context.Context, call records.Call, id int64, name *string, steps []Spec, version *int64) (Definition, error) {
	d, err := s.store.ChangeDefinition(ctx, call, id, func(d Definition, now time.Time) (*DefinitionChange, error) {
		if err := checkMutable(d, version); err != nil {
			return nil, err
		}
		changes := map[string]any{}
		if name != nil && *name != d.Name {
			changes["name"] = side{d.Name, *name}
			d.Name = *name
		}
		if steps = complete(steps); len(steps) > 0 && !reflect.DeepEqual(steps, d.Steps) {
			changes["steps"] = side{d.Steps, steps}
			d.Steps = steps
		}
		if err := checkDefinition(d.Name, d.Steps); err != nil {
			return nil, err
		}
		return definitionChange(event.Update, d, now, changes)
	})
	return d, s.done(err)
}

// ArchiveDefinition ends the starting of workflows by it.
func (s *Service) ArchiveDefinition(ctx context.Context, call records.Call, id int64, version *int64) (Definition, error) {
	d, err := s.store.ChangeDefinition(ctx, call, id, func(d Definition, now time.Time) (*DefinitionChange, error) {
		if d.ArchivedAt != nil && (version == nil || *version == d.Version) {
			return nil, nil
		}
		if err := checkMutable(d, version); err != nil {
			return nil, err
		}
		d.ArchivedAt = &now
		return definitionChange(event.Archive, d, now, map[string]any{"archived_at": side{nil, now.UTC().Format(event.TimeLayout)}})
	})
	return d, s.done(err)
}

type side struct {
	Before any `json:"before"`
	After  any `json:"after"`
}

func definitionChange(operation string, d Definition, now time.Time, changes map[string]any) (*DefinitionChange, error) {
	if len(changes) == 0 {
		return nil, nil
	}
	d.Version++
	d.UpdatedAt = now
	text, err := json.Marshal(changes)
	return &DefinitionChange{operation, d, text}, err
}

func checkMutable(d Definition, version *int64) error {
	if version != nil && *version != d.Version {
		return errs.New(errs.Aborted, "VERSION_MISMATCH", "the definition has changed since that version").WithMeta("version", fmt.Sprint(d.Version))
	}
	if d.ArchivedAt != nil {
		return errs.New(errs.FailedPrecondition, "DEFINITION_ARCHIVED", "the definition is archived")
	}
	return nil
}

// Start starts a workflow.
func (s *Service) Start(ctx context.Context, call records.Call, definitionID int64, name string, attributes []byte) (Flow, error) {
	d, err := s.store.FindDefinition(ctx, call.OrgID, definitionID)
	if err != nil {
		return Flow{}, err
	}
	if err := checkMutable(d, nil); err != nil {
		return Flow{}, err
	}
	draft, err := s.drafts.Draft(ctx, call.OrgID, records.Draft{Type: "workflow", Name: name, Attributes: attributes})
	if err != nil {
		return Flow{}, err
	}
	flow, err := s.store.Start(ctx, call, d, draft, Started(d.Steps))
	return flow, s.done(err)
}

// Get gives a workflow as it is.
func (s *Service) Get(ctx context.Context, orgID, id int64) (Flow, error) {
	return s.store.FindFlow(ctx, orgID, id)
}

// Move moves a step.
func (s *Service) Move(ctx context.Context, call records.Call, id, stepID int64, move, note string) (Flow, error) {
	if err := checkNote(note); err != nil {
		return Flow{}, err
	}
	flow, err := s.store.MoveFlow(ctx, call, id, func(f Flow) (t Transition, err error) {
		t = Transition{Before: f, StepID: stepID, Note: note}
		t.After, t.StepEvent, t.FlowEvent, err = f.Move(stepID, move)
		return t, err
	})
	return flow, s.done(err)
}

// Cancel cancels a workflow.
func (s *Service) Cancel(ctx context.Context, call records.Call, id int64, note string) (Flow, error) {
	if err := checkNote(note); err != nil {
		return Flow{}, err
	}
	flow, err := s.store.MoveFlow(ctx, call, id, func(f Flow) (t Transition, err error) {
		t = Transition{Before: f, FlowEvent: Cancelled, Note: note}
		t.After, err = f.Cancel()
		return t, err
	})
	return flow, s.done(err)
}

func checkNote(note string) error {
	f := faults{}
	f.text("note", note, 0, maxNote)
	return f.result()
}

func (s *Service) done(err error) error {
	if err == nil {
		s.changed()
	}
	return err
}
