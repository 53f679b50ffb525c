package identity

import (
	"context"
	"crypto/sha256"
	"sync"
	"time"

	"github.com/sametick/sametick/pkg/auth"
	"github.com/sametick/sametick/pkg/errs"
	"github.com/sametick/sametick/services/api-gateway/internal/records"
)

// Claims is what a verified token of the external issuer says.
type Claims struct {
	Issuer, Subject, Email string
	EmailVerified          bool
	IssuedAt, ExpiresAt    time.Time
}

// ExternalVerifier checks tokens of the external issuer.
type ExternalVerifier interface {
	// Issued tells, without checking anything, whether a token says that it is the issuer's.
	Issued(token string) bool
	// Verify gives the claims of a valid one: Unauthenticated when it is none, Unavailable while the issuer's
	// keys cannot be had.
	Verify(ctx context.Context, token string) (Claims, error)
}

// Links knows who is who at an external issuer.
type Links interface {
	// FindLinked gives NotFound when the issuer's subject is nobody of the organisation.
	FindLinked(ctx context.Context, orgID int64, issuer, subject string) (User, error)
	// Link links the organisation's user with an address, unless they are linked to another subject, and fires
	// user.identity_linked. It gives NotFound when there is none.
	Link(ctx context.Context, call records.Call, issuer, subject, email string) (User, error)
}

// External accepts the tokens of one issuer as users of one organisation. An issuer vouches for addresses
// of that organisation alone: else whoever runs it could become anybody. Safe for concurrent use.
type External struct {
	verifier ExternalVerifier
	links    Links
	orgID    int64
	now      func() time.Time

	mu      sync.Mutex
	known   map[[sha256.Size]byte]knownPrincipal
	cleared int
}

type knownPrincipal struct {
	auth.Principal
	until time.Time
}

// NewExternal makes one. now is time.Now but in tests.
func NewExternal(v ExternalVerifier, l Links, orgID int64, now func() time.Time) *External {
	return &External{verifier: v, links: l, orgID: orgID, now: now, known: map[[sha256.Size]byte]knownPrincipal{}}
}

func (e *External) issued(token string) bool { return e.verifier.Issued(token) }

// verify gives the user behind a token, with what their roles allow.
func (e *External) verify(ctx context.Context, token string) (auth.Principal, error) {
	key, now := sha256.Sum256([]byte(token)), e.now()
	e.mu.Lock()
	known, ok := e.known[key]
	e.mu.Unlock()
	if ok && now.Before(known.until) && now.Before(known.ExpiresAt) {
		return known.Principal, nil
	}
	return e.fresh(ctx, token)
}

// fresh is verify that believes no earlier answer.
func (e *External) fresh(ctx context.Context, token string) (auth.Principal, error) {
	key, now := sha256.Sum256([]byte(token)), e.now()
	e.mu.Lock()
	cleared := e.cleared
	e.mu.Unlock()
	c, err := e.verifier.Verify(ctx, token)
	if err != nil {
		return auth.Principal{}, err
	}
	user, err := e.user(ctx, c)
	if err != nil {
		return auth.Principal{}, err
	}
	p := userPrincipal(user, "")
	p.ExpiresAt, p.IssuedAt = c.ExpiresAt, c.IssuedAt
	e.mu.Lock()
	defer e.mu.Unlock()
	if cleared == e.cleared {
		if len(e.known) >= maxStandings {
			clear(e.known)
		}
		e.known[key] = knownPrincipal{p, now.Add(StandingTTL)}
	}
	return p, nil
}

// user finds who a subject is: by the link, or at first by an address that the issuer has verified. The
// subject counts from then on: an address can be given to somebody else.
func (e *External) user(ctx context.Context, c Claims) (User, error) {
	user, err := e.links.FindLinked(ctx, e.orgID, c.Issuer, c.Subject)
	if errs.KindOf(err) == errs.NotFound && c.EmailVerified && ValidEmail(c.Email) {
		user, err = e.links.Link(ctx, records.Call{OrgID: e.orgID}, c.Issuer, c.Subject, c.Email)
	}
	if errs.KindOf(err) == errs.NotFound {
		return User{}, errs.New(errs.Unauthenticated, "USER_UNKNOWN", "the token is valid, but no user here belongs to it")
	}
	return user, err
}

func (e *External) clear() {
	e.mu.Lock()
	defer e.mu.Unlock()
	clear(e.known)
	e.cleared++
}
