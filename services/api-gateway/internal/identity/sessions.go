package identity

import (
	"context"
	"time"

	"github.com/google/uuid"

	"github.com/sametick/sametick/pkg/auth"
	"github.com/sametick/sametick/pkg/errs"
	"github.com/sametick/sametick/services/api-gateway/internal/paging"
	"github.com/sametick/sametick/services/api-gateway/internal/records"
)

// NewSession is a session to be.
type NewSession struct {
	// ID is a UUID. It is in every access token of the session, and no secret.
	ID          string
	RefreshHash []byte
	Expires     time.Time
}

// Session is a login that has not ended.
type Session struct {
	ID, UserAgent, IP                string
	CreatedAt, LastUsedAt, ExpiresAt time.Time
}

// Sessions goes on with and ends sessions.
type Sessions interface {
	// RotateRefresh takes a refresh token once and stores its successor. Reused has ended the session and
	// fired auth.logout.
	RotateRefresh(ctx context.Context, call records.Call, hash []byte, next NewSession) (User, string, RefreshOutcome, error)
	// EndSession ends the session of a refresh token, or with all every one of its user's, and fires
	// auth.logout; nothing happens when there is none.
	EndSession(ctx context.Context, call records.Call, hash []byte, all bool) error
	ListSessions(ctx context.Context, orgID, userID int64, p paging.Page) ([]Session, int64, error)
	// EndOwnSessions ends one session of the acting user, or all when id is empty, and fires auth.logout. It
	// gives NotFound when the user has no such session.
	EndOwnSessions(ctx context.Context, call records.Call, id string) error
}

// RefreshOutcome is what became of a refresh token.
type RefreshOutcome string

// The outcomes; Reused has ended the whole session.
const (
	Rotated RefreshOutcome = "rotated"
	Unknown RefreshOutcome = "unknown"
	Expired RefreshOutcome = "expired"
	Revoked RefreshOutcome = "revoked"
	Reused  RefreshOutcome = "reused"
)

func (s *Service) newSession() (n NewSession, refresh string) {
	refresh = auth.NewSecret(auth.RefreshTokenPrefix)
	return NewSession{ID: uuid.NewString(), RefreshHash: auth.HashSecret(refresh), Expires: time.Now().Add(s.settings.RefreshTTL)}, refresh
}

// Refresh gives new tokens for a refresh token, which works once; a second use ends the session.
func (s *Service) Refresh(ctx context.Context, call records.Call, token string) (Tokens, error) {
	next, refresh := s.newSession() // whose id is the old one's
	user, session, outcome, err := s.store.Sessions.RotateRefresh(ctx, call, auth.HashSecret(token), next)
	if err != nil {
		return Tokens{}, err
	}
	refuse := func(reason, message string) (Tokens, error) {
		return Tokens{}, errs.New(errs.Unauthenticated, reason, message)
	}
	switch outcome {
	case Rotated:
		return s.tokens(userPrincipal(user, session), refresh, s.settings.AccessTTL)
	case Expired:
		return refuse("REFRESH_TOKEN_EXPIRED", "the refresh token has expired, log in again")
	case Reused:
		s.ended()
		return refuse("REFRESH_TOKEN_REUSED", "the refresh token was used before, so its session has been ended, log in again")
	case Revoked:
		return refuse("REFRESH_TOKEN_REVOKED", "the session has ended, log in again")
	default:
		return refuse("REFRESH_TOKEN_INVALID", "the refresh token is not valid here")
	}
}

// Logout ends the session of a refresh token, or all of its user's. It says nothing of whether there was one.
func (s *Service) Logout(ctx context.Context, call records.Call, token string, all bool) error {
	err := s.store.Sessions.EndSession(ctx, call, auth.HashSecret(token), all)
	s.ended()
	return err
}

// ListSessions gives the caller's sessions, the one used last first, and how many there are.
func (s *Service) ListSessions(ctx context.Context, by auth.Principal, limit, page *int32) ([]Session, int64, error) {
	p, err := paging.Standard.Page(limit, page)
	if err != nil {
		return nil, 0, err
	}
	user, err := ownUser(by)
	if err != nil {
		return nil, 0, err
	}
	return s.store.Sessions.ListSessions(ctx, by.OrgID, user, p)
}

// EndSessions ends one of the caller's sessions, or all when id is empty.
func (s *Service) EndSessions(ctx context.Context, by auth.Principal, call records.Call, id string) error {
	if _, err := ownUser(by); err != nil {
		return err
	}
	if id != "" && uuid.Validate(id) != nil {
		return ErrNoSession()
	}
	err := s.store.Sessions.EndOwnSessions(ctx, call, id)
	s.ended()
	return err
}

// ErrNoSession is the one answer for an absent session and for somebody else's.
func ErrNoSession() error {
	return errs.New(errs.NotFound, "SESSION_NOT_FOUND", "there is no such session")
}

// ended follows the end of a session, also after an error: its outcome may be unknown.
func (s *Service) ended() {
	s.revoked()
	s.changed()
}

// ownUser is the user who calls in person: what concerns a login is not an API key's.
func ownUser(by auth.Principal) (int64, error) {
	if kind, id, ok := auth.ParseSubject(by.Subject); ok && kind == auth.SubjectUser {
		return id, nil
	}
	return 0, errs.New(errs.PermissionDenied, "USER_REQUIRED", "this is for a user who has signed in, not for an API key")
}
