package auth

import (
	"crypto/sha256"
	"sync"
	"time"
)

// maxVerified bounds the cache; when it is full it starts again empty.
const maxVerified = 10_000

// verified remembers the tokens that were found good, because checking a signature was a quarter of
// what a write costs api-gateway. It holds only what has been verified, so a stranger cannot fill it, and
// hashes in the place of tokens. Safe for concurrent use.
type verified struct {
	mu     sync.RWMutex
	tokens map[[sha256.Size]byte]Principal
}

// find gives the caller behind a token that is known and has not expired.
func (v *verified) find(key [sha256.Size]byte, now time.Time) (Principal, bool) {
	v.mu.RLock()
	defer v.mu.RUnlock()
	p, ok := v.tokens[key]
	return p, ok && now.Before(p.ExpiresAt.Add(leeway))
}

func (v *verified) keep(key [sha256.Size]byte, p Principal) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.tokens == nil || len(v.tokens) >= maxVerified {
		v.tokens = map[[sha256.Size]byte]Principal{}
	}
	v.tokens[key] = p
}
