// Package types has the rules of the types of records: which there are, what a new one may be called, how its
// schema may change. Schemas themselves are package schema's; storing lives in store.
package types

import (
	"context"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/sametick/sametick/pkg/errs"
	"github.com/sametick/sametick/pkg/event"
	"github.com/sametick/sametick/services/api-gateway/internal/records"
	"github.com/sametick/sametick/services/api-gateway/internal/schema"
)

// Aggregate is the aggregate type of a type's own events.
const Aggregate = "record_type"

// MaxTypes bounds an organisation's own types.
const MaxTypes = 500

const maxDescription = 2000

// Type is a type of records.
type Type struct {
	OrgID, ID            int64
	Name, Description    string
	Schema               json.RawMessage
	Version              int64
	Builtin              bool
	CreatedAt, UpdatedAt time.Time
	ArchivedAt           *time.Time
}

// Change is what one transaction writes of a type.
type Change struct {
	Operation string
	Next      Type
	// Changes is a JSON object: field → {"before", "after"}.
	Changes json.RawMessage
}

// Decide turns the locked type, at the database's time, into a change; nil when there is nothing to change.
type Decide func(current Type, now time.Time) (*Change, error)

// Store keeps the organisations' own types.
type Store interface {
	// FindType gives NotFound when the organisation has none of that name.
	FindType(ctx context.Context, orgID int64, name string) (Type, error)
	// ListTypes gives all of them by name.
	ListTypes(ctx context.Context, orgID int64) ([]Type, error)
	// CreateType gives AlreadyExists, reason TYPE_EXISTS, when there is one of that name.
	CreateType(ctx context.Context, call records.Call, t Type) (Type, error)
	ChangeType(ctx context.Context, call records.Call, name string, decide Decide) (Type, error)
	// Existing tells which records there are, and not archived, in the order asked.
	Existing(ctx context.Context, orgID int64, refs []schema.Ref) ([]bool, error)
}

// reserved names are aggregate types that the suite fires itself, or will.
var reserved = []string{"auth", Aggregate, "workflow_definition", "audit", "session", "invitation",
	"prompt_run", "prompt_template", "prompt_hook", "prompt_provider", "mcp_server", "webhook_delivery", "prompt_backtest"}

// Service is what callers may do with types. Safe for concurrent use.
type Service struct {
	store    Store
	registry *Registry
	changed  func()
}

// NewService makes a service. changed is called after each mutation; it must not block.
func NewService(s Store, r *Registry, changed func()) *Service {
	return &Service{store: s, registry: r, changed: changed}
}

// Get gives one type, built in or the organisation's.
func (s *Service) Get(ctx context.Context, orgID int64, name string) (Type, error) {
	if t, ok := s.registry.own(name); ok {
		return t, nil
	}
	if !event.IsWord(name) {
		return Type{}, ErrNotFound()
	}
	return s.store.FindType(ctx, orgID, name)
}

// ErrNotFound is the one answer for an absent type and for another organisation's.
func ErrNotFound() error { return errs.New(errs.NotFound, "TYPE_NOT_FOUND", "there is no such type") }

// List gives the built-in types and the organisation's own.
func (s *Service) List(ctx context.Context, orgID int64, archived bool) ([]Type, error) {
	own, err := s.store.ListTypes(ctx, orgID)
	if err != nil {
		return nil, err
	}
	var list []Type
	for _, name := range event.Types() {
		t, _ := s.registry.own(name)
		list = append(list, t)
	}
	for _, t := range own {
		if archived || t.ArchivedAt == nil {
			list = append(list, t)
		}
	}
	return list, nil
}

// Create registers a type.
func (s *Service) Create(ctx context.Context, call records.Call, name, description string, text []byte) (Type, error) {
	f := invalid{}
	switch {
	case !event.IsWord(name):
		f.add("name", "INVALID_NAME", "[a-z][a-z0-9_]*, at most 63 characters")
	case event.IsType(name) || slices.Contains(reserved, name):
		f.add("name", "RESERVED", "a name that is not built in: those are "+strings.Join(append(event.Types(), reserved...), ", "))
	}
	f.description(description)
	compiled := f.schema(text)
	if f.err != nil {
		return Type{}, f.err
	}
	list, err := s.store.ListTypes(ctx, call.OrgID)
	if err != nil {
		return Type{}, err
	}
	if len(list) >= MaxTypes {
		return Type{}, errs.New(errs.FailedPrecondition, "TOO_MANY_TYPES", fmt.Sprintf("an organisation has at most %d types of its own, archived ones included", MaxTypes))
	}
	t, err := s.store.CreateType(ctx, call, Type{OrgID: call.OrgID, Name: name, Description: description, Schema: compiled.Text(), Version: 1})
	return s.done(t, err)
}

// Update is a change that a caller asks for; nil leaves a field as it is.
type Update struct {
	Description *string
	Schema      []byte
	Version     *int64
}

// Update changes a type. One that changes nothing fires no event.
func (s *Service) Update(ctx context.Context, call records.Call, name string, u Update) (Type, error) {
	f := invalid{}
	if u.Description != nil {
		f.description(*u.Description)
	}
	var next *schema.Schema
	if u.Schema != nil {
		next = f.schema(u.Schema)
	}
	if f.err != nil {
		return Type{}, f.err
	}
	return s.change(ctx, call, name, func(t Type, now time.Time) (*Change, error) {
		if err := check(t, u.Version); err != nil {
			return nil, err
		}
		changes := map[string]side{}
		if u.Description != nil && *u.Description != t.Description {
			changes["description"] = side{t.Description, *u.Description}
			t.Description = *u.Description
		}
		if next != nil && !same(t.Schema, next.Text()) {
			if err := compatible(t.Schema, next); err != nil {
				return nil, err
			}
			changes["schema"] = side{t.Schema, next.Text()}
			t.Schema = next.Text()
		}
		return newChange(event.Update, t, now, changes)
	})
}

func compatible(stored []byte, next *schema.Schema) error {
	old, faults := schema.Compile(stored)
	if len(faults) > 0 {
		return errs.New(errs.Internal, "INTERNAL", "internal error").WithCause(fmt.Errorf("stored schema: %v", faults))
	}
	f := invalid{}
	f.all(schema.Compatible(old, next))
	if f.err != nil {
		return f.err
	}
	return nil
}

// Archive ends the making of records of a type.
func (s *Service) Archive(ctx context.Context, call records.Call, name string, version *int64) (Type, error) {
	return s.change(ctx, call, name, func(t Type, now time.Time) (*Change, error) {
		if t.ArchivedAt != nil && (version == nil || *version == t.Version) {
			return nil, nil
		}
		if err := check(t, version); err != nil {
			return nil, err
		}
		t.ArchivedAt = &now
		return newChange(event.Archive, t, now, map[string]side{"archived_at": {nil, now.UTC().Format(event.TimeLayout)}})
	})
}

func (s *Service) change(ctx context.Context, call records.Call, name string, decide Decide) (Type, error) {
	if event.IsType(name) {
		return Type{}, errs.New(errs.FailedPrecondition, "TYPE_BUILT_IN", "a built-in type stays as it is; register one of your own")
	}
	if !event.IsWord(name) {
		return Type{}, ErrNotFound()
	}
	t, err := s.store.ChangeType(ctx, call, name, decide)
	return s.done(t, err)
}

func (s *Service) done(t Type, err error) (Type, error) {
	s.registry.Clear() // also after an error: its outcome may be unknown
	if err == nil {
		s.changed()
	}
	return t, err
}

func check(t Type, version *int64) error {
	if version != nil && *version != t.Version {
		return errs.New(errs.Aborted, "VERSION_MISMATCH", "the type has changed since that version").WithMeta("version", fmt.Sprint(t.Version))
	}
	if t.ArchivedAt != nil {
		return errs.New(errs.FailedPrecondition, "TYPE_ARCHIVED", "the type is archived")
	}
	return nil
}

type side struct {
	Before any `json:"before"`
	After  any `json:"after"`
}

func newChange(operation string, next Type, now time.Time, changes map[string]side) (*Change, error) {
	if len(changes) == 0 {
		return nil, nil
	}
	next.Version++
	next.UpdatedAt = now
	text, err := json.Marshal(changes)
	return &Change{Operation: operation, Next: next, Changes: text}, err
}

// same compares JSON by value.
func same(a, b []byte) bool {
	var x, y any
	return json.Unmarshal(a, &x) == nil && json.Unmarshal(b, &y) == nil && reflect.DeepEqual(x, y)
}

// invalid collects the faulty fields of a request.
type invalid struct{ err *errs.Error }

func (f *invalid) add(field, reason, allowed string) {
	if f.err == nil {
		f.err = errs.New(errs.Invalid, "INVALID_REQUEST", "the request has invalid fields")
	}
	f.err = f.err.WithField(field, reason, allowed)
}

func (f *invalid) all(faults []schema.Fault) {
	for _, fault := range faults {
		f.add(fault.Field, fault.Reason, fault.Allowed)
	}
}

func (f *invalid) description(s string) {
	if utf8.RuneCountInString(s) > maxDescription || !utf8.ValidString(s) || strings.ContainsRune(s, 0) {
		f.add("description", "OUT_OF_RANGE", fmt.Sprintf("at most %d characters of UTF-8 without NUL", maxDescription))
	}
}

func (f *invalid) schema(text []byte) *schema.Schema {
	if len(text) == 0 {
		f.add("schema", "REQUIRED", "a JSON Schema of attributes")
		return nil
	}
	compiled, faults := schema.Compile(text)
	f.all(faults)
	return compiled
}
