package identity

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sametick/sametick/pkg/auth"
	"github.com/sametick/sametick/pkg/errs"
	"github.com/sametick/sametick/services/api-gateway/internal/records"
)

func TestPassword(t *testing.T) {
	hash := HashPassword("secret")
	require.Regexp(t, `^\$argon2id\$v=19\$m=19456,t=2,p=1\$[A-Za-z0-9+/]{22}\$[A-Za-z0-9+/]{43}$`, hash)
	require.NotEqual(t, hash, HashPassword("secret"), "salted")
	require.True(t, checkPassword(hash, "secret"))
	require.False(t, checkPassword(hash, "Secret"))
	// Made by the reference implementation's command line: printf password | argon2 somesalt -id -t 2 -m 16 -p 1 -l 32 (RFC 9106).
	require.True(t, checkPassword("$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc", "password"))
	for _, bad := range []string{"", "secret", "$argon2i$v=19$m=1,t=1,p=1$AAAA$AAAA", "$argon2id$v=19$m=1,t=0,p=1$AAAA$AAAA", "$argon2id$v=19$m=1,t=1,p=0$AAAA$AAAA",
		strings.TrimSuffix(hash, hash[len(hash)-43:]), hash + "$"} {
		require.False(t, checkPassword(bad, "secret"), bad)
		require.False(t, checkPassword(bad, ""), bad)
	}
}

func TestValidEmail(t *testing.T) {
	for _, good := range []string{"a@b", "ann.o'hara+x@example.com", "ü@ü.example"} {
		require.True(t, ValidEmail(good), good)
	}
	for _, bad := range []string{"", "a", "@b", "a@", "a b@c", "a@b\n", "a@b\x00", "\xff@b", strings.Repeat("a", 254) + "@b"} {
		require.False(t, ValidEmail(bad), bad)
	}
}

// finder is a table of keys that counts what it is asked.
type finder struct {
	keys  map[string]APIKey
	asked int
}

func (f *finder) FindKey(_ context.Context, hash []byte) (APIKey, error) {
	f.asked++
	key, ok := f.keys[string(hash)]
	if !ok {
		return APIKey{}, errs.New(errs.NotFound, "NOT_FOUND", "not found")
	}
	return key, nil
}

func TestKeyCache(t *testing.T) {
	now := time.Date(2026, 4, 12, 0, 0, 0, 0, time.UTC)
	secret, hash := NewKeySecret()
	end := now.Add(8 * time.Second)
	f := &finder{keys: map[string]APIKey{string(hash): {OrgID: 3, ID: 9, Scopes: auth.ScopesOf(auth.EventsRead), ExpiresAt: &end}}}
	c := NewKeyCache(f, func() time.Time { return now })
	for range 3 {
		p, err := c.Find(t.Context(), secret)
		require.NoError(t, err)
		require.Equal(t, auth.Principal{OrgID: 3, Subject: "api_key:9", Scopes: auth.ScopesOf(auth.EventsRead), ExpiresAt: end}, p)
	}
	require.Equal(t, 1, f.asked)
	now = end
	_, err := c.Find(t.Context(), secret)
	require.Equal(t, "TOKEN_EXPIRED", errs.From(err).Reason, "a cached key ends in time, too")
	delete(f.keys, string(hash))
	now = now.Add(KeyCacheTTL)
	_, err = c.Find(t.Context(), secret)
	require.Equal(t, "TOKEN_INVALID", errs.From(err).Reason, "a revoked key is forgotten in time")
	_, err = c.Find(t.Context(), "stk_short")
	require.Equal(t, "TOKEN_MALFORMED", errs.From(err).Reason)
}

// directory knows one user.
type directory struct {
	Users
	user User
}

func (d directory) FindUser(_ context.Context, email string) (User, error) {
	if email != "ann@acme.example" {
		return User{}, errs.New(errs.NotFound, "NOT_FOUND", "not found")
	}
	return d.user, nil
}

// open throttles nobody.
type open struct{}

func (open) BeginLogin(context.Context, Attempt) (time.Duration, error) { return 0, nil }
func (open) EndLogin(context.Context, Attempt) error                    { return nil }

// TestUnknownUserTakesAsLong counts work and no time: whoever tries to log in costs one hash with the
// same parameters, and gets the same answer.
func TestUnknownUserTakesAsLong(t *testing.T) {
	cost := func(hash string) string { return strings.Join(strings.Split(hash, "$")[:4], "$") }
	stored := HashPassword("secret")
	s := NewService(Stores{Users: directory{user: User{ID: 1, PasswordHash: stored}}, Throttle: open{}}, nil, nil, nil, nil,
		Settings{ParallelHashes: 1}, func() {}, func() {})
	var costs []string
	s.passwords.compare = func(hash, _ string) bool {
		costs = append(costs, cost(hash))
		return hash == s.passwords.dummy // even the dummy's own password lets nobody in
	}
	var answers []error
	for _, email := range []string{"ann@acme.example", "nobody@acme.example"} {
		_, err := s.Login(t.Context(), records.Call{}, email, "nobody's password")
		answers = append(answers, err)
	}
	require.Equal(t, []string{cost(stored), cost(stored)}, costs)
	require.Equal(t, "LOGIN_FAILED", errs.From(answers[0]).Reason)
	require.Equal(t, answers[0], answers[1])
}
