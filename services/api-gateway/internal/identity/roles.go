package identity

import (
	"bytes"
	"context"
	"encoding/json"
	"slices"
	"time"

	"github.com/sametick/sametick/pkg/auth"
	"github.com/sametick/sametick/pkg/errs"
	"github.com/sametick/sametick/services/api-gateway/internal/paging"
	"github.com/sametick/sametick/services/api-gateway/internal/records"
)

// AdministratorRole is the name of the built-in role that has every scope.
const AdministratorRole = "administrator"

// Role is a name for scopes.
type Role struct {
	ID     int64
	Name   string
	Scopes auth.Scopes
	// Administrator marks the built-in role.
	Administrator        bool
	Version              int64
	CreatedAt, UpdatedAt time.Time
	ArchivedAt           *time.Time
}

// RoleChange is what one transaction writes.
type RoleChange struct {
	Next Role
	// Changes is a JSON object: field → {"before", "after"}.
	Changes []byte
}

// Roles stores roles with their records, events and audit entries.
type Roles interface {
	CreateRole(ctx context.Context, call records.Call, r Role) (Role, error)
	ListRoles(ctx context.Context, orgID int64, p paging.Page, archived bool) ([]Role, int64, error)
	// RolesByID gives those that the organisation has, also archived ones.
	RolesByID(ctx context.Context, orgID int64, ids []int64) ([]Role, error)
	// ChangeRole locks a role and stores what decide makes of it; nothing when it gives nil. NotFound when the
	// organisation has no such role.
	ChangeRole(ctx context.Context, call records.Call, id int64, decide func(Role) (*RoleChange, error)) (Role, error)
}

// CreateRole makes a role of scopes that the caller has.
func (s *Service) CreateRole(ctx context.Context, by auth.Principal, call records.Call, name string, scopes []string) (Role, error) {
	fault := invalidRequest()
	if bad := records.CheckName(name); bad != nil {
		fault.Fields = errs.From(bad).Fields
	}
	if fault = checkScopes(fault, scopes, by.Scopes); len(fault.Fields) > 0 {
		return Role{}, fault
	}
	r, err := s.store.Roles.CreateRole(ctx, call, Role{Name: name, Scopes: auth.ScopesOf(scopes...), Version: 1})
	if err == nil {
		s.changed()
	}
	return r, err
}

// ListRoles gives one page of the organisation's roles, newest first, and how many there are.
func (s *Service) ListRoles(ctx context.Context, orgID int64, limit, page *int32, archived bool) ([]Role, int64, error) {
	p, err := paging.Standard.Page(limit, page)
	if err != nil {
		return nil, 0, err
	}
	return s.store.Roles.ListRoles(ctx, orgID, p, archived)
}

// GetRole gives one role, also an archived one.
func (s *Service) GetRole(ctx context.Context, orgID, id int64) (Role, error) {
	list, err := s.store.Roles.RolesByID(ctx, orgID, []int64{id})
	if err != nil {
		return Role{}, err
	}
	if len(list) == 0 {
		return Role{}, records.ErrNotFound("role", id)
	}
	return list[0], nil
}

// RoleUpdate says what to change of a role.
type RoleUpdate struct {
	ID int64
	// Mask names the fields to change: name, scopes.
	Mask    []string
	Name    string
	Scopes  []string
	Version *int64
}

// UpdateRole changes what the mask names. Scopes that the role lacks and the caller lacks cannot be given.
func (s *Service) UpdateRole(ctx context.Context, by auth.Principal, call records.Call, u RoleUpdate) (Role, error) {
	has := func(field string) bool { return slices.Contains(u.Mask, field) }
	fault := checkMask(invalidRequest(), u.Mask, "name", "scopes")
	if bad := records.CheckName(u.Name); has("name") && bad != nil && len(fault.Fields) == 0 {
		fault.Fields = errs.From(bad).Fields
	}
	if len(fault.Fields) > 0 {
		return Role{}, fault
	}
	r, err := s.store.Roles.ChangeRole(ctx, call, u.ID, func(r Role) (*RoleChange, error) {
		if err := unchanged(r.Version, u.Version, r.ArchivedAt); err != nil {
			return nil, err
		}
		if r.Administrator {
			return nil, builtIn()
		}
		next, d := r, diff{}
		if has("name") {
			next.Name = u.Name
			d.set("name", r.Name, next.Name, r.Name == next.Name)
		}
		if has("scopes") {
			if fault := checkScopes(invalidRequest(), u.Scopes, by.Scopes|r.Scopes); len(fault.Fields) > 0 {
				return nil, fault
			}
			next.Scopes = auth.ScopesOf(u.Scopes...)
			d.set("scopes", r.Scopes.Names(), next.Scopes.Names(), r.Scopes == next.Scopes)
		}
		if len(d) == 0 {
			return nil, nil
		}
		return &RoleChange{next, d.json()}, nil
	})
	s.revoked() // scopes may have gone; also after an error: its outcome may be unknown
	if err == nil {
		s.changed()
	}
	return r, err
}

// ArchiveRole takes a role from all who have it.
func (s *Service) ArchiveRole(ctx context.Context, call records.Call, id int64, version *int64) (Role, error) {
	if _, err := s.GetRole(ctx, call.OrgID, id); err != nil {
		return Role{}, err
	}
	if err := s.Changeable(ctx, call.OrgID, id); err != nil {
		return Role{}, err
	}
	if _, err := s.records.Archive(ctx, call, "role", id, version); err != nil {
		return Role{}, err
	}
	return s.GetRole(ctx, call.OrgID, id)
}

// Changeable refuses the built-in role among some. A role is built in for good, so this may be asked before a change.
func (s *Service) Changeable(ctx context.Context, orgID int64, roles ...int64) error {
	list, err := s.store.Roles.RolesByID(ctx, orgID, roles)
	if err == nil && slices.ContainsFunc(list, func(r Role) bool { return r.Administrator }) {
		err = builtIn()
	}
	return err
}

func builtIn() error {
	return errs.New(errs.FailedPrecondition, "ROLE_BUILT_IN", "the administrator's role cannot be changed")
}

// diff maps each changed field to what it was and what it is.
type diff map[string]sides

type sides struct {
	Before any `json:"before"`
	After  any `json:"after"`
}

func (d diff) set(field string, before, after any, same bool) {
	if !same {
		d[field] = sides{before, after}
	}
}

func (d diff) json() []byte {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(d); err != nil { // names, ids and scopes always encode
		return nil
	}
	return bytes.TrimSpace(b.Bytes())
}
