package identity

import (
	"context"
	"sync"
	"time"

	"github.com/sametick/sametick/pkg/auth"
	"github.com/sametick/sametick/pkg/errs"
)

// StandingTTL is how long an answer about who stands behind a token is believed, and so how long one that
// was revoked through another replica can live on.
const StandingTTL = 10 * time.Second

// maxStandings bounds the cache; when it is full it starts again empty.
const maxStandings = 10_000

// Standing is what has become of a token's session, user, key and organisation since it was signed.
type Standing struct {
	// Active is false when one of them has ended. Who is not known here was never ended here.
	Active bool
	// Scopes are what the user may do now; all when the user is not known.
	Scopes auth.Scopes
	// NotBefore ends what was signed before it: the key has a new secret. Zero for none.
	NotBefore time.Time
}

// StandingFinder asks for a standing.
type StandingFinder interface {
	FindStanding(ctx context.Context, p auth.Principal) (Standing, error)
}

// Verifier tells whose a signed token is.
type Verifier interface {
	Verify(ctx context.Context, token string) (auth.Principal, error)
	VerifyPortal(ctx context.Context, token string) (auth.Principal, error)
}

// Checker verifies access tokens and lets them do what their user still may: a signature cannot be taken
// back, a session can. It asks the database once in StandingTTL for each session or key, never on the hot
// path. Safe for concurrent use.
type Checker struct {
	own      Verifier
	external *External // nil: none is accepted
	finder   StandingFinder
	now      func() time.Time

	mu    sync.RWMutex
	known map[standingKey]knownStanding
	// cleared counts Clear: an answer that was on its way at that moment is not kept.
	cleared int
}

type standingKey struct {
	org              int64
	subject, session string
}

type knownStanding struct {
	Standing
	until time.Time
}

// NewChecker makes a checker. external may be nil; now is time.Now but in tests.
func NewChecker(own Verifier, external *External, f StandingFinder, now func() time.Time) *Checker {
	return &Checker{own: own, external: external, finder: f, now: now, known: map[standingKey]knownStanding{}}
}

// Verify tells whose an access token is. To the errors of auth.Verifier it adds Unauthenticated, reason
// TOKEN_REVOKED.
func (c *Checker) Verify(ctx context.Context, token string) (auth.Principal, error) {
	if c.isExternal(token) {
		return c.external.verify(ctx, token)
	}
	p, err := c.own.Verify(ctx, token)
	if err != nil {
		return p, err
	}
	standing, err := c.standing(ctx, p)
	switch {
	case err != nil:
		return auth.Principal{}, err
	case !standing.Active, p.IssuedAt.Before(standing.NotBefore):
		return auth.Principal{}, errs.New(errs.Unauthenticated, "TOKEN_REVOKED", "the access token has been revoked, log in again")
	}
	p.Scopes &= standing.Scopes
	return p, nil
}

// VerifyPortal tells whose the token of a portal link is. It ends with what it was made by: the session, the user, the key
// or its secret, or the scope that making it needed. Errors are those of Verify.
func (c *Checker) VerifyPortal(ctx context.Context, token string) (auth.Principal, error) {
	p, err := c.own.VerifyPortal(ctx, token)
	if err != nil {
		return p, err
	}
	standing, err := c.standing(ctx, p)
	switch {
	case err != nil:
		return auth.Principal{}, err
	case !standing.Active, p.IssuedAt.Before(standing.NotBefore), !standing.Scopes.Has(auth.WebhooksManage):
		return auth.Principal{}, errs.New(errs.Unauthenticated, "TOKEN_REVOKED", "the link no longer works, ask for a new one")
	}
	return p, nil
}

func (c *Checker) isExternal(token string) bool { return c.external != nil && c.external.issued(token) }

func (c *Checker) standing(ctx context.Context, p auth.Principal) (Standing, error) {
	key, now := standingKey{p.OrgID, p.Subject, p.SessionID}, c.now()
	c.mu.RLock()
	known, ok := c.known[key]
	cleared := c.cleared
	c.mu.RUnlock()
	if ok && now.Before(known.until) {
		return known.Standing, nil
	}
	found, err := c.finder.FindStanding(ctx, p)
	if err != nil {
		return Standing{}, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if cleared == c.cleared {
		if len(c.known) >= maxStandings {
			clear(c.known)
		}
		c.known[key] = knownStanding{found, now.Add(StandingTTL)}
	}
	return found, nil
}

// Clear forgets all answers: whenever somebody's access was taken away here. That is rare, and asking again
// costs a query a session.
func (c *Checker) Clear() {
	c.mu.Lock()
	defer c.mu.Unlock()
	clear(c.known)
	c.cleared++
	if c.external != nil {
		c.external.clear()
	}
}
