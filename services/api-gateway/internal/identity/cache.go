package identity

import (
	"context"
	"sync"
	"time"

	"github.com/sametick/sametick/pkg/auth"
	"github.com/sametick/sametick/pkg/errs"
)

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
	return c.find(ctx, secret, false)
}

// Fresh is Find that believes no earlier answer: for what lives on after KeyCacheTTL.
func (c *KeyCache) Fresh(ctx context.Context, secret string) (auth.Principal, error) {
	return c.find(ctx, secret, true)
}

func (c *KeyCache) find(ctx context.Context, secret string, fresh bool) (auth.Principal, error) {
	if !auth.IsAPIKey(secret) {
		return auth.Principal{}, errs.New(errs.Unauthenticated, "TOKEN_MALFORMED", "that is no API key")
	}
	hash := [32]byte(auth.HashSecret(secret))
	now := c.now()
	c.mu.Lock()
	cached, ok := c.keys[hash]
	cleared := c.cleared
	c.mu.Unlock()
	if fresh || !ok || now.After(cached.until) {
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
