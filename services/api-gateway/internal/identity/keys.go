package identity

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/sametick/sametick/pkg/auth"
	"github.com/sametick/sametick/pkg/errs"
	"github.com/sametick/sametick/services/api-gateway/internal/paging"
	"github.com/sametick/sametick/services/api-gateway/internal/records"
)

// prefixLen is how much of a secret is kept readable: enough to tell keys apart, 48 bits of 256.
const prefixLen = len(auth.APIKeyPrefix) + 8

// CreateKey makes an API key for the caller's organisation. The secret is shown this once. Nobody can
// give a scope that they lack.
func (s *Service) CreateKey(ctx context.Context, by auth.Principal, call records.Call, name string, scopes []string, expires *time.Time) (APIKey, string, error) {
	if err := checkKey(by, name, scopes, expires); err != nil {
		return APIKey{}, "", err
	}
	secret, hash := NewKeySecret()
	key, err := s.keys.CreateKey(ctx, call, APIKey{OrgID: call.OrgID, UserID: by.UserID, Name: name, Prefix: KeyPrefix(secret),
		Scopes: auth.ScopesOf(scopes...), ExpiresAt: expires}, hash)
	if err != nil {
		return APIKey{}, "", err
	}
	s.changed()
	return key, secret, nil
}

// ListKeys gives one page of the organisation's keys, newest first, and how many there are.
func (s *Service) ListKeys(ctx context.Context, orgID int64, limit, page *int32) ([]APIKey, int64, error) {
	p, err := paging.Standard.Page(limit, page)
	if err != nil {
		return nil, 0, err
	}
	return s.keys.ListKeys(ctx, orgID, p)
}

// ArchiveKey revokes a key: at once here, within KeyCacheTTL on other replicas. Access tokens that it
// was exchanged for live until they expire.
func (s *Service) ArchiveKey(ctx context.Context, call records.Call, id int64) (APIKey, error) {
	if _, err := s.keys.GetKey(ctx, call.OrgID, id); err != nil {
		return APIKey{}, err
	}
	if _, err := s.records.Archive(ctx, call, "api_key", id, nil); err != nil {
		return APIKey{}, err
	}
	return s.keys.GetKey(ctx, call.OrgID, id)
}

// ExchangeKey gives an access token for an API key, which ends no later than the key.
func (s *Service) ExchangeKey(ctx context.Context, secret string) (Tokens, error) {
	p, err := s.cache.Find(ctx, secret)
	if err != nil {
		return Tokens{}, err
	}
	ttl := s.settings.KeyTTL
	if !p.ExpiresAt.IsZero() {
		ttl = min(ttl, time.Until(p.ExpiresAt).Truncate(time.Second))
	}
	return s.tokens(p, "", ttl)
}

// NewKeySecret makes a key's secret and the hash that is stored of it.
func NewKeySecret() (secret string, hash []byte) {
	secret = auth.NewSecret(auth.APIKeyPrefix)
	return secret, auth.HashSecret(secret)
}

// KeyPrefix is what stays readable of a secret.
func KeyPrefix(secret string) string { return secret[:prefixLen] }

func checkKey(by auth.Principal, name string, scopes []string, expires *time.Time) error {
	err := errs.New(errs.Invalid, "INVALID_REQUEST", "the request has invalid fields")
	if bad := records.CheckName(name); bad != nil {
		err.Fields = errs.From(bad).Fields
	}
	if len(scopes) == 0 {
		err = err.WithField("scopes", "REQUIRED", "at least one of: "+strings.Join(auth.AllScopes(), ", "))
	}
	for i, scope := range scopes {
		field := fmt.Sprintf("scopes[%d]", i)
		switch {
		case i >= len(auth.AllScopes()) || slices.Contains(scopes[:i], scope):
			err = err.WithField(field, "DUPLICATE", "each scope once")
		case !slices.Contains(auth.AllScopes(), scope):
			err = err.WithField(field, "UNKNOWN_SCOPE", "one of: "+strings.Join(auth.AllScopes(), ", "))
		case !by.Scopes.Has(scope):
			err = err.WithField(field, "SCOPE_NOT_HELD", "a scope that the caller has: "+strings.Join(by.Scopes.Names(), ", "))
		}
	}
	end := by.ExpiresAt // of the key that makes this one; a user's own keys outlive the login
	switch {
	case expires != nil && !expires.After(time.Now()):
		err = err.WithField("expires_at", "IN_THE_PAST", "a time to come")
	case strings.HasPrefix(by.Subject, auth.SubjectAPIKey) && !end.IsZero() && (expires == nil || expires.After(end)):
		err = err.WithField("expires_at", "OUTLIVES_ITS_MAKER", "at the latest "+end.UTC().Format(time.RFC3339)+", when the key that makes it ends")
	}
	if len(err.Fields) == 0 {
		return nil
	}
	return err
}

func checkLogin(email, password string) error {
	err := errs.New(errs.Invalid, "INVALID_REQUEST", "the request has invalid fields")
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

// KeyFinder asks whose a key is: NotFound when nobody's.
type KeyFinder interface {
	FindKey(ctx context.Context, hash []byte) (APIKey, error)
}

// KeyCacheTTL is how long an answer about a key is believed, and so how long a revoked key can live on.
const KeyCacheTTL = 10 * time.Second

// maxCachedKeys bounds the cache; when it is full it starts again empty.
const maxCachedKeys = 10_000

// KeyCache tells whose an API key is, without a query on the hot path. Safe for concurrent use.
type KeyCache struct {
	finder KeyFinder
	now    func() time.Time

	mu   sync.Mutex
	keys map[[32]byte]cachedKey
	// cleared counts Clear: an answer that was on its way at that moment is not kept.
	cleared int
}

type cachedKey struct {
	principal auth.Principal
	until     time.Time
}

// NewKeyCache makes a cache. now is time.Now but in tests.
func NewKeyCache(f KeyFinder, now func() time.Time) *KeyCache {
	return &KeyCache{finder: f, now: now, keys: map[[32]byte]cachedKey{}}
}

// Find gives the caller behind a key. Its ExpiresAt is the key's, zero when it has no end. Errors are
// Unauthenticated: TOKEN_MALFORMED, TOKEN_INVALID (unknown or revoked), TOKEN_EXPIRED.
func (c *KeyCache) Find(ctx context.Context, secret string) (auth.Principal, error) {
	if !auth.IsAPIKey(secret) {
		return auth.Principal{}, errs.New(errs.Unauthenticated, "TOKEN_MALFORMED", "that is no API key")
	}
	hash := [32]byte(auth.HashSecret(secret))
	now := c.now()
	c.mu.Lock()
	cached, ok := c.keys[hash]
	cleared := c.cleared
	c.mu.Unlock()
	if !ok || now.After(cached.until) {
		key, err := c.finder.FindKey(ctx, hash[:])
		if errs.KindOf(err) == errs.NotFound {
			return auth.Principal{}, errs.New(errs.Unauthenticated, "TOKEN_INVALID", "the API key is not valid here")
		}
		if err != nil {
			return auth.Principal{}, err
		}
		cached = cachedKey{keyPrincipal(key), now.Add(KeyCacheTTL)}
		c.keep(hash, cached, cleared)
	}
	if end := cached.principal.ExpiresAt; !end.IsZero() && !now.Before(end) {
		return auth.Principal{}, errs.New(errs.Unauthenticated, "TOKEN_EXPIRED", "the API key has expired")
	}
	return cached.principal, nil
}

func (c *KeyCache) keep(hash [32]byte, k cachedKey, cleared int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if cleared != c.cleared {
		return
	}
	if len(c.keys) >= maxCachedKeys {
		clear(c.keys)
	}
	c.keys[hash] = k
}

// Clear forgets all keys: whenever a key or a user, whose keys go with them, has been archived here.
// That is rare, and asking again costs a query a key.
func (c *KeyCache) Clear() {
	c.mu.Lock()
	defer c.mu.Unlock()
	clear(c.keys)
	c.cleared++
}

func keyPrincipal(k APIKey) auth.Principal {
	p := auth.Principal{OrgID: k.OrgID, UserID: k.UserID, Subject: auth.Subject(auth.SubjectAPIKey, k.ID), Scopes: k.Scopes}
	if k.ExpiresAt != nil {
		p.ExpiresAt = *k.ExpiresAt
	}
	return p
}
