// Package identity has the rules of who may call: signing in, sessions, API keys and the tokens made
// of them. Users, organisations and API keys are records too (package records); what is secret of them
// is kept apart. Statements live in store, the wire in grpcapi and rest, tokens' form in pkg/auth.
package identity

import (
	"context"
	"time"

	"github.com/sametick/sametick/pkg/auth"
	"github.com/sametick/sametick/pkg/errs"
	"github.com/sametick/sametick/services/api-gateway/internal/paging"
	"github.com/sametick/sametick/services/api-gateway/internal/records"
)

// User is who signs in.
type User struct {
	OrgID, ID    int64
	Name         string
	PasswordHash string
	Scopes       auth.Scopes
}

// APIKey is a key without its secret.
type APIKey struct {
	OrgID, ID int64
	// UserID is the user in whose name the key acts; nil for none.
	UserID *int64
	Name   string
	// Prefix is how the secret begins.
	Prefix                string
	Scopes                auth.Scopes
	CreatedAt             time.Time
	ExpiresAt, ArchivedAt *time.Time
}

// Users finds and follows users.
type Users interface {
	// FindUser gives NotFound when nobody has the address.
	FindUser(ctx context.Context, email string) (User, error)
	// StartSession stores the first refresh token of a login and fires auth.login.
	StartSession(ctx context.Context, call records.Call, u User, refreshHash []byte, expires time.Time) error
}

// Sessions goes on with and ends sessions.
type Sessions interface {
	// RotateRefresh takes a refresh token once and stores its successor. The user's name is not given.
	RotateRefresh(ctx context.Context, hash, next []byte, expires time.Time) (User, RefreshOutcome, error)
	// EndSession revokes the session of a refresh token and fires auth.logout; nothing happens when there
	// is none.
	EndSession(ctx context.Context, call records.Call, hash []byte) error
}

// Keys stores API keys.
type Keys interface {
	// CreateKey stores a key with its record.
	CreateKey(ctx context.Context, call records.Call, k APIKey, hash []byte) (APIKey, error)
	ListKeys(ctx context.Context, orgID int64, p paging.Page) ([]APIKey, int64, error)
	// GetKey gives NotFound when the organisation has no such key.
	GetKey(ctx context.Context, orgID, id int64) (APIKey, error)
}

// RefreshOutcome is what became of a refresh token.
type RefreshOutcome string

// The outcomes; Reused has revoked the whole session.
const (
	Rotated RefreshOutcome = "rotated"
	Unknown RefreshOutcome = "unknown"
	Expired RefreshOutcome = "expired"
	Revoked RefreshOutcome = "revoked"
	Reused  RefreshOutcome = "reused"
)

// Tokens is what a caller gets for a password, a refresh token or an API key.
type Tokens struct {
	Access string
	// Refresh is empty for an API key.
	Refresh string
	// TTL is the access token's life.
	TTL time.Duration
}

// Settings of a Service.
type Settings struct {
	AccessTTL, RefreshTTL time.Duration
	// KeyTTL is the life of tokens that keys are exchanged for.
	KeyTTL time.Duration
	// ParallelHashes is how many passwords are checked at once.
	ParallelHashes int
}

// Service signs users in and manages API keys. Safe for concurrent use.
type Service struct {
	users     Users
	sessions  Sessions
	keys      Keys
	records   *records.Service
	cache     *KeyCache
	signer    *auth.Signer
	settings  Settings
	passwords *passwords
	changed   func()
}

// NewService makes a service. changed is called after each mutation; it must not block.
func NewService(u Users, s Sessions, k Keys, r *records.Service, c *KeyCache, signer *auth.Signer, set Settings, changed func()) *Service {
	return &Service{users: u, sessions: s, keys: k, records: r, cache: c, signer: signer, settings: set,
		passwords: newPasswords(set.ParallelHashes), changed: changed}
}

// Login gives tokens for a password. Unauthenticated, reason LOGIN_FAILED, says neither what was wrong
// nor, by the time it takes, whether the user exists.
func (s *Service) Login(ctx context.Context, call records.Call, email, password string) (Tokens, error) {
	if err := checkLogin(email, password); err != nil {
		return Tokens{}, err
	}
	user, err := s.users.FindUser(ctx, email)
	if err != nil && errs.KindOf(err) != errs.NotFound {
		return Tokens{}, err
	}
	ok, err := s.passwords.check(ctx, user.PasswordHash, password)
	if err != nil {
		return Tokens{}, err
	}
	if !ok {
		return Tokens{}, errs.New(errs.Unauthenticated, "LOGIN_FAILED", "the email address or the password is wrong")
	}
	refresh := auth.NewSecret(auth.RefreshTokenPrefix)
	call.OrgID, call.ActorID = user.OrgID, &user.ID
	if err := s.users.StartSession(ctx, call, user, auth.HashSecret(refresh), time.Now().Add(s.settings.RefreshTTL)); err != nil {
		return Tokens{}, err
	}
	s.changed()
	return s.tokens(userPrincipal(user), refresh, s.settings.AccessTTL)
}

// Refresh gives new tokens for a refresh token, which works once; a second use ends the session.
func (s *Service) Refresh(ctx context.Context, token string) (Tokens, error) {
	next := auth.NewSecret(auth.RefreshTokenPrefix)
	user, outcome, err := s.sessions.RotateRefresh(ctx, auth.HashSecret(token), auth.HashSecret(next), time.Now().Add(s.settings.RefreshTTL))
	if err != nil {
		return Tokens{}, err
	}
	refuse := func(reason, message string) (Tokens, error) {
		return Tokens{}, errs.New(errs.Unauthenticated, reason, message)
	}
	switch outcome {
	case Rotated:
		return s.tokens(userPrincipal(user), next, s.settings.AccessTTL)
	case Expired:
		return refuse("REFRESH_TOKEN_EXPIRED", "the refresh token has expired, log in again")
	case Reused:
		return refuse("REFRESH_TOKEN_REUSED", "the refresh token was used before, so its session has been ended, log in again")
	case Revoked:
		return refuse("REFRESH_TOKEN_REVOKED", "the session has ended, log in again")
	default:
		return refuse("REFRESH_TOKEN_INVALID", "the refresh token is not valid here")
	}
}

// Logout ends the session of a refresh token. It says nothing of whether there was one.
func (s *Service) Logout(ctx context.Context, call records.Call, token string) error {
	err := s.sessions.EndSession(ctx, call, auth.HashSecret(token))
	if err == nil {
		s.changed()
	}
	return err
}

func (s *Service) tokens(p auth.Principal, refresh string, ttl time.Duration) (Tokens, error) {
	access, _, err := s.signer.Sign(p, ttl)
	return Tokens{Access: access, Refresh: refresh, TTL: ttl}, err
}

func userPrincipal(u User) auth.Principal {
	return auth.Principal{OrgID: u.OrgID, UserID: &u.ID, Subject: auth.Subject(auth.SubjectUser, u.ID), Scopes: u.Scopes}
}
