package identity

import (
	"context"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sametick/sametick/pkg/auth"
	"github.com/sametick/sametick/pkg/errs"
	"github.com/sametick/sametick/services/api-gateway/internal/paging"
	"github.com/sametick/sametick/services/api-gateway/internal/records"
)

// Member is a user as the organisation's administrators see them: the record and what goes with it.
type Member struct {
	ID          int64
	Name, Email string
	// SignsIn is false until there is a password or an external identity.
	SignsIn bool
	// Roles are the ids of their roles, ascending; Scopes the union of what those give.
	Roles                []int64
	Scopes               auth.Scopes
	Version              int64
	CreatedAt, UpdatedAt time.Time
	ArchivedAt           *time.Time
}

// Status is invited, active or archived.
func (m *Member) Status() string {
	switch {
	case m.ArchivedAt != nil:
		return "archived"
	case !m.SignsIn:
		return "invited"
	default:
		return "active"
	}
}

// MemberChange is what one transaction writes.
type MemberChange struct {
	Next Member
	// Changes is a JSON object: field → {"before", "after"}.
	Changes []byte
}

// Members stores users with their records, events and audit entries.
type Members interface {
	// CreateMember stores a user, who has no password when passwordHash is empty, and with token, unless it is
	// nil, fires user.invited. AlreadyExists, reason EMAIL_TAKEN.
	CreateMember(ctx context.Context, call records.Call, m Member, passwordHash string, token *UserToken) (Member, error)
	ListMembers(ctx context.Context, orgID int64, p paging.Page, archived bool) ([]Member, int64, error)
	// GetMember gives NotFound when the organisation has no such user.
	GetMember(ctx context.Context, orgID, id int64) (Member, error)
	// ChangeMember locks a user and stores what decide makes of them; nothing when it gives nil.
	// decide must ask the store with the context it is given. FailedPrecondition, reason LAST_ADMINISTRATOR.
	ChangeMember(ctx context.Context, call records.Call, id int64, decide func(context.Context, Member) (*MemberChange, error)) (Member, error)
	// IssueToken stores a one-time token in the place of a user's earlier ones and fires
	// user.password_reset_started.
	IssueToken(ctx context.Context, call records.Call, userID int64, t UserToken) error
}

// maxRoles bounds how many roles a user has.
const maxRoles = 100

// NewMember is a user to be.
type NewMember struct {
	Email string
	// Name is the address when empty.
	Name string
	// Password is nil for none.
	Password *string
	Roles    []int64
}

// CreateMember makes a user. Nobody can give a role with scopes that they lack.
func (s *Service) CreateMember(ctx context.Context, by auth.Principal, call records.Call, n NewMember) (Member, error) {
	hash := ""
	if n.Password != nil {
		if err := checkNewPassword("password", *n.Password, n.Email, n.Name); err != nil {
			return Member{}, err
		}
	}
	m, err := s.draft(ctx, by, n)
	if err != nil {
		return Member{}, err
	}
	if n.Password != nil {
		if hash, err = s.passwords.hash(ctx, *n.Password); err != nil {
			return Member{}, err
		}
	}
	return s.stored(s.store.Members.CreateMember(ctx, call, m, hash, nil))
}

// Invite makes a user and a one-time token, by which they choose a password.
func (s *Service) Invite(ctx context.Context, by auth.Principal, call records.Call, n NewMember) (Member, string, time.Time, error) {
	m, err := s.draft(ctx, by, n)
	if err != nil {
		return Member{}, "", time.Time{}, err
	}
	secret, token := newUserToken(Invitation, s.settings.InvitationTTL)
	m, err = s.stored(s.store.Members.CreateMember(ctx, call, m, "", &token))
	return m, secret, token.Expires, err
}

func (s *Service) stored(m Member, err error) (Member, error) {
	if err == nil {
		s.changed()
	}
	return m, err
}

// draft checks a new user.
func (s *Service) draft(ctx context.Context, by auth.Principal, n NewMember) (Member, error) {
	fault := invalidRequest()
	if !ValidEmail(n.Email) {
		fault = fault.WithField("email", "INVALID_EMAIL", "an email address")
	}
	if n.Name == "" {
		n.Name = n.Email
	}
	if bad := records.CheckName(n.Name); bad != nil && len(fault.Fields) == 0 {
		fault.Fields = errs.From(bad).Fields
	}
	if len(fault.Fields) > 0 {
		return Member{}, fault
	}
	roles := sorted(n.Roles)
	scopes, err := s.givable(ctx, by, roles, nil)
	return Member{Name: n.Name, Email: n.Email, Roles: roles, Scopes: scopes, Version: 1}, err
}

// givable gives the scopes of a set of roles, of which the caller must hold those that the user has not
// already.
func (s *Service) givable(ctx context.Context, by auth.Principal, roles, has []int64) (auth.Scopes, error) {
	if len(roles) > maxRoles {
		return 0, refuseField("roles", "TOO_MANY", "at most "+strconv.Itoa(maxRoles))
	}
	found, err := s.store.Roles.RolesByID(ctx, by.OrgID, roles)
	if err != nil {
		return 0, err
	}
	var scopes auth.Scopes
	for i, id := range roles {
		field := "roles[" + strconv.Itoa(i) + "]"
		at := slices.IndexFunc(found, func(r Role) bool { return r.ID == id && r.ArchivedAt == nil })
		switch {
		case at < 0:
			return 0, refuseField(field, "UNKNOWN_ROLE", "the id of a role of the organisation")
		case !slices.Contains(has, id) && found[at].Scopes&^by.Scopes != 0:
			return 0, refuseField(field, "SCOPE_NOT_HELD", "a role without scopes that the caller lacks, such as "+(found[at].Scopes&^by.Scopes).String())
		}
		scopes |= found[at].Scopes
	}
	return scopes, nil
}

// ListMembers gives one page of the organisation's users, newest first, and how many there are.
func (s *Service) ListMembers(ctx context.Context, orgID int64, limit, page *int32, archived bool) ([]Member, int64, error) {
	p, err := paging.Standard.Page(limit, page)
	if err != nil {
		return nil, 0, err
	}
	return s.store.Members.ListMembers(ctx, orgID, p, archived)
}

// GetMember gives one user, also an archived one.
func (s *Service) GetMember(ctx context.Context, orgID, id int64) (Member, error) {
	return s.store.Members.GetMember(ctx, orgID, id)
}

// MemberUpdate says what to change of a user.
type MemberUpdate struct {
	ID int64
	// Mask names the fields to change: name, email, roles.
	Mask        []string
	Name, Email string
	Roles       []int64
	// Version is the one that the change was made from; nil means any.
	Version *int64
}

// UpdateMember changes what the mask names. A new address is a way to take somebody over, so it can only be
// given by who has all of their scopes.
func (s *Service) UpdateMember(ctx context.Context, by auth.Principal, call records.Call, u MemberUpdate) (Member, error) {
	u.Roles = sorted(u.Roles)
	if err := u.check(); err != nil {
		return Member{}, err
	}
	m, err := s.store.Members.ChangeMember(ctx, call, u.ID, func(ctx context.Context, m Member) (*MemberChange, error) {
		if err := unchanged(m.Version, u.Version, m.ArchivedAt); err != nil {
			return nil, err
		}
		next, d := m, diff{}
		if u.has("name") {
			next.Name = u.Name
			d.set("name", m.Name, next.Name, m.Name == next.Name)
		}
		if u.has("email") && m.Email != u.Email {
			if lacking := m.Scopes &^ by.Scopes; lacking != 0 {
				return nil, notHeld(lacking)
			}
			next.Email = u.Email
			d.set("email", m.Email, next.Email, false)
		}
		if u.has("roles") {
			scopes, err := s.givable(ctx, by, u.Roles, m.Roles)
			if err != nil {
				return nil, err
			}
			next.Roles, next.Scopes = u.Roles, scopes
			d.set("roles", m.Roles, next.Roles, slices.Equal(m.Roles, next.Roles))
			d.set("scopes", m.Scopes.Names(), next.Scopes.Names(), m.Scopes == next.Scopes)
		}
		if len(d) == 0 {
			return nil, nil
		}
		return &MemberChange{next, d.json()}, nil
	})
	s.revoked() // roles may have gone; also after an error: its outcome may be unknown
	return s.stored(m, err)
}

func (u *MemberUpdate) has(field string) bool { return slices.Contains(u.Mask, field) }

func (u *MemberUpdate) check() error {
	fault := checkMask(invalidRequest(), u.Mask, "name", "email", "roles")
	if u.has("email") && !ValidEmail(u.Email) {
		fault = fault.WithField("email", "INVALID_EMAIL", "an email address")
	}
	if bad := records.CheckName(u.Name); u.has("name") && bad != nil && len(fault.Fields) == 0 {
		fault.Fields = errs.From(bad).Fields
	}
	if len(fault.Fields) > 0 {
		return fault
	}
	return nil
}

// ArchiveMember shuts a user out and ends their sessions and keys.
func (s *Service) ArchiveMember(ctx context.Context, call records.Call, id int64, version *int64) (Member, error) {
	if _, err := s.store.Members.GetMember(ctx, call.OrgID, id); err != nil {
		return Member{}, err
	}
	if _, err := s.records.Archive(ctx, call, "user", id, version); err != nil {
		return Member{}, err
	}
	return s.store.Members.GetMember(ctx, call.OrgID, id)
}

// StartReset gives a one-time token, by which a user chooses a password. Whoever has it can become them, so
// only who has all of their scopes gets one.
func (s *Service) StartReset(ctx context.Context, by auth.Principal, call records.Call, id int64) (string, time.Time, error) {
	m, err := s.store.Members.GetMember(ctx, call.OrgID, id)
	if err != nil {
		return "", time.Time{}, err
	}
	if m.ArchivedAt != nil {
		return "", time.Time{}, unchanged(m.Version, nil, m.ArchivedAt)
	}
	if lacking := m.Scopes &^ by.Scopes; lacking != 0 {
		return "", time.Time{}, notHeld(lacking)
	}
	secret, token := newUserToken(PasswordReset, s.settings.ResetTTL)
	if err := s.store.Members.IssueToken(ctx, call, id, token); err != nil {
		return "", time.Time{}, err
	}
	s.changed()
	return secret, token.Expires, nil
}

// unchanged refuses a change of what is archived, or was made from another version.
func unchanged(has int64, version *int64, archived *time.Time) error {
	switch {
	case version != nil && *version != has:
		return errs.New(errs.Aborted, "VERSION_MISMATCH", "it has changed since that version").WithMeta("version", strconv.FormatInt(has, 10))
	case archived != nil:
		return errs.New(errs.FailedPrecondition, "RECORD_ARCHIVED", "it is archived").WithMeta("archived_at", archived.UTC().Format(time.RFC3339Nano))
	}
	return nil
}

// sorted gives each id once; none is an empty list, never nil, which Postgres would take as unknown.
func sorted(ids []int64) []int64 {
	ids = append([]int64{}, ids...)
	slices.Sort(ids)
	return slices.Compact(ids)
}

func invalidRequest() *errs.Error {
	return errs.New(errs.Invalid, "INVALID_REQUEST", "the request has invalid fields")
}

func refuseField(field, reason, allowed string) error {
	return invalidRequest().WithField(field, reason, allowed)
}

// checkMask adds a fault where nothing is to change, or what is not there.
func checkMask(err *errs.Error, mask []string, fields ...string) *errs.Error {
	if len(mask) == 0 {
		return err.WithField("update_mask", "REQUIRED", "at least one of: "+strings.Join(fields, ", "))
	}
	for _, name := range mask {
		if !slices.Contains(fields, name) {
			return err.WithField("update_mask", "UNKNOWN_FIELD", "some of: "+strings.Join(fields, ", "))
		}
	}
	return err
}
