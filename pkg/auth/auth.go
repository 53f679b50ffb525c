// Package auth says who calls: it signs and verifies the suite's access tokens, carries the caller
// through contexts and names the scopes.
//
// Access tokens are JWTs signed with Ed25519 (RFC 7519, RFC 8037): any service verifies them with
// public keys alone and asks nobody. API keys are opaque secrets; only api-gateway can tell whose
// they are, and exchanges them for access tokens. Passwords, refresh tokens and what a method
// requires live in services/api-gateway.
package auth

import (
	"context"
	"slices"
	"strings"
	"time"
)

// The scopes that a token can carry.
const (
	EventsRead     = "events:read"
	RecordsRead    = "records:read"
	RecordsWrite   = "records:write"
	WebhooksManage = "webhooks:manage"
	PromptsManage  = "prompts:manage"
	AuditRead      = "audit:read"
	OrgAdmin       = "org:admin"
)

// AllScopes gives every scope, in the order in which they are shown. The slice is the caller's.
func AllScopes() []string {
	return []string{EventsRead, RecordsRead, RecordsWrite, WebhooksManage, PromptsManage, AuditRead, OrgAdmin}
}

// Scopes is a set of scopes. The zero value is empty.
type Scopes uint16

// ScopesOf makes a set; names that are no scopes are left out, so that a token from a newer
// release still verifies and grants what is known here.
func ScopesOf(names ...string) Scopes {
	var set Scopes
	for _, name := range names {
		if i := slices.Index(AllScopes(), name); i >= 0 {
			set |= 1 << i
		}
	}
	return set
}

// Has tells whether the set holds a scope; never for what is no scope.
func (s Scopes) Has(name string) bool {
	one := ScopesOf(name)
	return one != 0 && s&one == one
}

// Names gives the set in the order of AllScopes.
func (s Scopes) Names() []string {
	return slices.DeleteFunc(AllScopes(), func(name string) bool { return !s.Has(name) })
}

// String is the set as the scope claim writes it (RFC 8693, section 4.2): separated by spaces.
func (s Scopes) String() string { return strings.Join(s.Names(), " ") }

// Principal is the caller, as a verified token or API key tells.
type Principal struct {
	OrgID int64
	// UserID is the acting user, the actor_id of events; nil when no user stands behind the call.
	UserID *int64
	// Subject is "user:<id>" or "api_key:<id>".
	Subject string
	Scopes  Scopes
	// ExpiresAt ends what the token allows; also an open stream.
	ExpiresAt time.Time
	// TokenID is the token's jti; empty for an API key.
	TokenID string
	// SessionID is the session of a user's login; empty for an API key, and for what it is exchanged for.
	SessionID string
	// IssuedAt is when the token was signed, in whole milliseconds; zero for an API key.
	IssuedAt time.Time
	// Portal is set for who calls by the link to a portal; nobody else has it, and they have no scopes.
	Portal *Portal
}

type contextKey struct{}

// With puts the caller in a context.
func With(ctx context.Context, p Principal) context.Context {
	return context.WithValue(ctx, contextKey{}, p)
}

// From gives the caller of a context; false when nobody has been authenticated.
func From(ctx context.Context) (Principal, bool) {
	p, ok := ctx.Value(contextKey{}).(Principal)
	return p, ok
}

// Bearer takes the token out of an Authorization header (RFC 6750, section 2.1; the scheme in any
// case). It is empty when the header is missing or of another scheme.
func Bearer(header string) string {
	scheme, token, _ := strings.Cut(header, " ")
	if !strings.EqualFold(scheme, "bearer") {
		return ""
	}
	return strings.TrimSpace(token)
}
