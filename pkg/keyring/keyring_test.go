package keyring_test

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sametick/sametick/pkg/config"
	"github.com/sametick/sametick/pkg/keyring"
)

var owner = keyring.Owner{OrgID: 7, ID: 12, Purpose: "webhook.secret"}

func ring(t testing.TB, keys ...string) *keyring.Ring {
	r, err := keyring.Parse(strings.Join(keys, ","))
	require.NoError(t, err)
	return r
}

// A row copied to another organisation, endpoint or column must not open there.
func TestOnlyItsOwnerOpens(t *testing.T) {
	r := ring(t, keyring.Generate("a"))
	sealed := r.Seal(owner, []byte("hunter2"))
	for name, other := range map[string]keyring.Owner{
		"org":            {OrgID: 8, ID: 12, Purpose: "webhook.secret"},
		"id":             {OrgID: 7, ID: 13, Purpose: "webhook.secret"},
		"swapped":        {OrgID: 12, ID: 7, Purpose: "webhook.secret"},
		"purpose":        {OrgID: 7, ID: 12, Purpose: "webhook.auth"},
		"longer purpose": {OrgID: 7, ID: 12, Purpose: "webhook.secrets"},
		"no purpose":     {OrgID: 7, ID: 12},
	} {
		_, err := r.Open(other, sealed)
		require.ErrorIs(t, err, keyring.ErrRefused, name)
	}
	got, err := r.Open(owner, sealed)
	require.NoError(t, err)
	require.Equal(t, "hunter2", string(got))
}

func TestAnyChangeIsRefused(t *testing.T) {
	r := ring(t, keyring.Generate("a"), keyring.Generate("b"))
	sealed := r.Seal(owner, []byte("hunter2"))
	for i := range sealed {
		for bit := range 8 {
			changed := append([]byte(nil), sealed...)
			changed[i] ^= 1 << bit
			_, err := r.Open(owner, changed)
			require.Error(t, err, "byte %d, bit %d", i, bit)
		}
		_, err := r.Open(owner, sealed[:i])
		require.Error(t, err, "cut to %d", i)
	}
	_, err := r.Open(owner, append(sealed, 0))
	require.ErrorIs(t, err, keyring.ErrRefused)
}

// The way of a key from the ring: a new one before it, what is stale sealed again, the old one away.
func TestRotation(t *testing.T) {
	old, fresh := keyring.Generate("2026-01"), keyring.Generate("2026-02")
	before := ring(t, old)
	sealed := before.Seal(owner, []byte("hunter2"))
	require.False(t, before.Stale(sealed))

	both := ring(t, fresh, old)
	require.True(t, both.Stale(sealed))
	secret, err := both.Open(owner, sealed)
	require.NoError(t, err)
	again := both.Seal(owner, secret)
	require.False(t, both.Stale(again))

	after := ring(t, fresh)
	secret, err = after.Open(owner, again)
	require.NoError(t, err)
	require.Equal(t, "hunter2", string(secret))
	_, err = after.Open(owner, sealed)
	require.ErrorIs(t, err, keyring.ErrUnknownKey)
	require.True(t, after.Stale(sealed))
	require.True(t, after.Stale(nil))
	// A name that begins as the first's does is another.
	require.True(t, ring(t, keyring.Generate("2026")).Stale(again))
}

// Another key under the same name opens nothing.
func TestAnotherKeyOfTheName(t *testing.T) {
	sealed := ring(t, keyring.Generate("a")).Seal(owner, []byte("hunter2"))
	_, err := ring(t, keyring.Generate("a")).Open(owner, sealed)
	require.ErrorIs(t, err, keyring.ErrRefused)
}

func TestNoNonceTwice(t *testing.T) {
	r, seen := ring(t, keyring.Generate("a")), map[string]bool{}
	for range 1000 {
		sealed := string(r.Seal(owner, nil))
		require.False(t, seen[sealed])
		seen[sealed] = true
	}
	empty, err := r.Open(owner, r.Seal(owner, nil))
	require.NoError(t, err)
	require.Empty(t, empty)
}

func TestParseRefuses(t *testing.T) {
	secret := strings.Repeat("hunter2A", 5) + "AAA="
	good := "a:" + secret
	_, err := keyring.Parse(good)
	require.NoError(t, err)
	for name, text := range map[string]string{
		"empty": "", "no name": secret, "empty name": ":" + secret, "swapped": secret + ":a", "short": "a:" + secret[4:],
		"long": "a:AAAA" + secret, "url alphabet": "a:" + strings.Repeat("_", 43) + "=", "trailing bits": "a:" + secret[:42] + "B=",
		"twice": good + "," + good, "trailing comma": good + ",", "name too long": strings.Repeat("a", 33) + ":" + secret,
		"bad name": "A b:" + secret,
	} {
		_, err := keyring.Parse(text)
		require.Error(t, err, name)
		require.NotContains(t, err.Error(), "hunter2", name)
	}
}

type service struct {
	Keys keyring.Config
	config.Internal
}

func TestConfig(t *testing.T) {
	env := map[string]string{"INTERNAL_TOKEN": "0123456789abcdef"}
	getenv := func(k string) string { return env[k] }
	c := service{}
	require.ErrorContains(t, config.Load(&c, getenv), "ENCRYPTION_KEYS is not set")
	env["ENCRYPTION_KEYS"] = "a:hunter2"
	err := config.Load(&c, getenv)
	require.ErrorContains(t, err, "ENCRYPTION_KEYS (not shown): want the base64 of 32 bytes")
	require.NotContains(t, err.Error(), "hunter2")

	env["ENCRYPTION_KEYS"] = keyring.Generate("k2") + ", " + keyring.Generate("k1")
	require.NoError(t, config.Load(&c, getenv))
	r, err := c.Keys.Ring()
	require.NoError(t, err)
	js, err := json.Marshal(map[string]any{"ring": r, "config": c})
	require.NoError(t, err)
	require.Equal(t, "keyring(k2,k1)", fmt.Sprint(r))
	for _, shown := range []string{
		fmt.Sprintf("%v %+v %#v %s %x %d", r, r, r, r, r, *r), fmt.Sprintf("%+v %#v", c, c), string(js),
		slog.AnyValue(r).String(), config.Help("x", &c),
	} {
		for entry := range strings.SplitSeq(env["ENCRYPTION_KEYS"], ",") {
			_, secret, _ := strings.Cut(entry, ":")
			require.NotContains(t, shown, secret[:10])
		}
	}
}

// FuzzOpen: nothing but what was sealed opens, and nothing makes it panic.
func FuzzOpen(f *testing.F) {
	r, err := keyring.Parse(keyring.Generate("a"))
	require.NoError(f, err)
	sealed := r.Seal(owner, []byte("hunter2"))
	for _, seed := range [][]byte{nil, {1}, {1, 255}, {1, 0}, {1, 1, 'a'}, {2, 1, 'a', 0}, sealed[:20]} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		if secret, err := r.Open(owner, text); err == nil {
			t.Fatalf("%x opened to %q", text, secret)
		}
		r.Stale(text)
	})
}

// FuzzParse: a ring that is taken seals and opens, and prints no key.
func FuzzParse(f *testing.F) {
	for _, seed := range []string{keyring.Generate("a"), keyring.Generate("a") + "," + keyring.Generate("b"), "a:", ":", ",", "a:AAAA"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		r, err := keyring.Parse(text)
		if err != nil {
			return
		}
		if secret, err := r.Open(owner, r.Seal(owner, []byte("x"))); err != nil || string(secret) != "x" {
			t.Fatalf("%q: %v", text, err)
		}
	})
}
