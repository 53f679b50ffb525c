package identity

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"fmt"
	"strings"

	"golang.org/x/crypto/argon2"
	"golang.org/x/sync/semaphore"

	"github.com/sametick/sametick/pkg/errs"
)

// Parameters of argon2id (RFC 9106) as OWASP's Password Storage Cheat Sheet has them.
const (
	argonMemory  = 19456 // KiB
	argonTime    = 2
	argonThreads = 1
	argonSalt    = 16
	argonKey     = 32
)

// Limits of passwords: NIST SP 800-63B asks for at least 8 characters; more than 1,024 bytes only burns time.
const (
	MinPassword = 8
	MaxPassword = 1024
)

// HashPassword gives the PHC string of a new salted hash.
func HashPassword(password string) string {
	salt := make([]byte, argonSalt)
	_, _ = rand.Read(salt) // never fails (crypto/rand, Go 1.24)
	key := argon2.IDKey([]byte(password), salt, argonTime, argonMemory, argonThreads, argonKey)
	enc := base64.RawStdEncoding.EncodeToString
	return fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$%s$%s", argon2.Version, argonMemory, argonTime, argonThreads, enc(salt), enc(key))
}

// checkPassword compares in constant time. A hash that does not parse matches nothing.
func checkPassword(hash, password string) bool {
	parts := strings.Split(hash, "$")
	var memory, passes uint32
	var threads uint8
	if len(parts) != 6 || parts[1] != "argon2id" || parts[2] != fmt.Sprintf("v=%d", argon2.Version) {
		return false
	}
	if n, err := fmt.Sscanf(parts[3], "m=%d,t=%d,p=%d", &memory, &passes, &threads); err != nil || n != 3 || passes == 0 || threads == 0 {
		return false
	}
	salt, err := base64.RawStdEncoding.DecodeString(parts[4])
	if err != nil {
		return false
	}
	want, err := base64.RawStdEncoding.DecodeString(parts[5])
	if err != nil || len(want) == 0 || len(want) > 64 {
		return false
	}
	got := argon2.IDKey([]byte(password), salt, passes, memory, threads, uint32(len(want)))
	return subtle.ConstantTimeCompare(got, want) == 1
}

// passwords bounds how many hashes are computed at once: each takes 19 MiB and a core for some 20 ms.
type passwords struct {
	slots *semaphore.Weighted
	// dummy is checked for unknown users, so that they take as long as known ones.
	dummy string
	// compare is checkPassword but in tests.
	compare func(hash, password string) bool
}

func newPasswords(parallel int) *passwords {
	return &passwords{slots: semaphore.NewWeighted(int64(parallel)), dummy: HashPassword("nobody's password"), compare: checkPassword}
}

// hash waits for its turn, too.
func (p *passwords) hash(ctx context.Context, password string) (string, error) {
	if err := p.slots.Acquire(ctx, 1); err != nil {
		return "", errs.From(err)
	}
	defer p.slots.Release(1)
	return HashPassword(password), nil
}

func (p *passwords) check(ctx context.Context, hash, password string) (bool, error) {
	if err := p.slots.Acquire(ctx, 1); err != nil {
		return false, errs.From(err)
	}
	defer p.slots.Release(1)
	if hash == "" {
		p.compare(p.dummy, password)
		return false, nil
	}
	return p.compare(hash, password), nil
}
