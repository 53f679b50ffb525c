// Package identity has the rules of who may call: signing in, sessions, API keys and the tokens made
// of them. Users, organisations and API keys are records too (package records); what is secret of them
// is kept apart. Statements live in store, the wire in grpcapi and rest, tokens' form in pkg/auth.
package identity

import (
	"context"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

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
	// LastUsedAt is to the minute.
	LastUsedAt *time.Time
}

// Users finds and follows users.
type Users interface {
	// FindUser gives NotFound when nobody has the address.
	FindUser(ctx context.Context, email string) (User, error)
	// StartSession stores a session with its first refresh token and fires auth.login.
	StartSession(ctx context.Context, call records.Call, u User, n NewSession) error
}

// Keys stores API keys.
type Keys interface {
	// CreateKey stores a key with its record.
	CreateKey(ctx context.Context, call records.Call, k APIKey, hash []byte) (APIKey, error)
	ListKeys(ctx context.Context, orgID int64, p paging.Page) ([]APIKey, int64, error)
	// GetKey gives NotFound when the organisation has no such key.
	GetKey(ctx context.Context, orgID, id int64) (APIKey, error)
	// RotateKey puts a secret in the place of a key's, which works on until overlap has passed, and fires
	// api_key.rotated. check is asked about the key as it is then.
	RotateKey(ctx context.Context, call records.Call, id int64, n NewKeySecretOf, check func(APIKey) error) (APIKey, error)
}

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
	// InvitationTTL and ResetTTL are the lives of one-time tokens.
	InvitationTTL, ResetTTL time.Duration
	// ParallelHashes is how many passwords are checked at once.
	ParallelHashes int
}

// Stores is where a Service keeps what it has rules for.
type Stores struct {
	Users     Users
	Sessions  Sessions
	Passwords Passwords
	Throttle  Throttle
	Keys      Keys
	Members   Members
	Roles     Roles
}

// Service signs users in, and manages who may call. Safe for concurrent use.
type Service struct {
	store     Stores
	records   *records.Service
	cache     *KeyCache
	checker   *Checker
	signer    *auth.Signer
	settings  Settings
	passwords *passwords
	changed   func()
	revoked   func()
}

// NewService makes a service. changed is called after each mutation, revoked after one that takes somebody's
// access away; they must not block.
func NewService(stores Stores, r *records.Service, c *KeyCache, checker *Checker, signer *auth.Signer, set Settings, changed, revoked func()) *Service {
	return &Service{store: stores, records: r, cache: c, checker: checker, signer: signer, settings: set,
		passwords: newPasswords(set.ParallelHashes), changed: changed, revoked: revoked}
}

// Login gives tokens for a password. Unauthenticated, reason LOGIN_FAILED, says neither what was wrong
// nor, by the time it takes, whether the user exists; ResourceExhausted, reason LOGIN_THROTTLED, that
// too many have failed.
func (s *Service) Login(ctx context.Context, call records.Call, email, password string) (Tokens, error) {
	if err := checkLogin(email, password); err != nil {
		return Tokens{}, err
	}
	attempt := attemptAt("login", email, call.IP)
	if err := s.begin(ctx, attempt); err != nil {
		return Tokens{}, err
	}
	user, err := s.store.Users.FindUser(ctx, email)
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
	if err := s.store.Throttle.EndLogin(ctx, attempt); err != nil {
		return Tokens{}, err
	}
	call.OrgID, call.ActorID = user.OrgID, &user.ID
	n, refresh := s.newSession()
	if err := s.store.Users.StartSession(ctx, call, user, n); err != nil {
		return Tokens{}, err
	}
	s.changed()
	return s.tokens(userPrincipal(user, n.ID), refresh, s.settings.AccessTTL)
}

func (s *Service) tokens(p auth.Principal, refresh string, ttl time.Duration) (Tokens, error) {
	access, _, err := s.signer.Sign(p, ttl)
	return Tokens{Access: access, Refresh: refresh, TTL: ttl}, err
}

func userPrincipal(u User, session string) auth.Principal {
	return auth.Principal{OrgID: u.OrgID, UserID: &u.ID, Subject: auth.Subject(auth.SubjectUser, u.ID), Scopes: u.Scopes, SessionID: session}
}

func checkLogin(email, password string) error {
	err := invalidRequest()
	if !ValidEmail(email) {
		err = err.WithField("email", "INVALID_EMAIL", "an email address")
	}
	if password == "" || len(password) > MaxPassword {
		err = err.WithField("password", "OUT_OF_RANGE", fmt.Sprintf("1 to %d bytes", MaxPassword))
	}
	if len(err.Fields) == 0 {
		return nil
	}
	return err
}

// ValidEmail tells whether a text can be an address: only its confirmation mail could tell more.
func ValidEmail(s string) bool {
	local, domain, ok := strings.Cut(s, "@")
	return ok && local != "" && domain != "" && len(s) <= 254 && utf8.ValidString(s) &&
		!strings.ContainsFunc(s, func(c rune) bool { return c <= ' ' || c == 0x7f })
}
