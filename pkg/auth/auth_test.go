package auth_test

import (
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/stretchr/testify/require"

	"github.com/sametick/sametick/pkg/auth"
	"github.com/sametick/sametick/pkg/errs"
)

func keys(t testing.TB, kid string) (*auth.Signer, string) {
	signing, public, err := auth.GenerateKey(kid)
	require.NoError(t, err)
	s, err := auth.ParseSigner(signing)
	require.NoError(t, err)
	require.Equal(t, public, s.PublicKey())
	return s, public
}

func verifier(t testing.TB, keys string, opts ...auth.Option) *auth.Verifier {
	v, err := auth.NewVerifier(keys, opts...)
	require.NoError(t, err)
	return v
}

func TestSignAndVerify(t *testing.T) {
	s, public := keys(t, "k1")
	_, other := keys(t, "k2")
	v := verifier(t, other+", "+public)
	user := int64(7)
	for _, p := range []auth.Principal{
		{OrgID: 3, UserID: &user, Subject: "user:7", Scopes: auth.ScopesOf(auth.EventsRead, auth.OrgAdmin)},
		{OrgID: 3, UserID: &user, Subject: "api_key:9", Scopes: auth.ScopesOf(auth.RecordsWrite)},
		{OrgID: 1 << 60, Subject: "api_key:9"},
	} {
		token, signed, err := s.Sign(p, time.Hour)
		require.NoError(t, err)
		got, err := v.Verify(t.Context(), token)
		require.NoError(t, err)
		require.True(t, signed.ExpiresAt.Equal(got.ExpiresAt))
		got.ExpiresAt = signed.ExpiresAt
		require.Equal(t, signed, got)
		require.NotEmpty(t, got.TokenID)
	}
}

func TestLeeway(t *testing.T) {
	s, public := keys(t, "k")
	token, p, err := s.Sign(auth.Principal{OrgID: 1, Subject: "user:1"}, time.Minute)
	require.NoError(t, err)
	for after, reason := range map[time.Duration]string{
		0: "", 29 * time.Second: "", 31 * time.Second: "TOKEN_EXPIRED",
		-time.Minute - 29*time.Second: "", -time.Minute - 31*time.Second: "TOKEN_INVALID", // issued in the future
	} {
		v := verifier(t, public, auth.WithClock(func() time.Time { return p.ExpiresAt.Add(after) }))
		_, err := v.Verify(t.Context(), token)
		if reason == "" {
			require.NoError(t, err, after)
			continue
		}
		require.True(t, errs.HasReason(err, reason), "%s: %v", after, err)
	}
}

// A token that was good once must not stay good: not past its end, not when a byte of it differs.
func TestKnownTokens(t *testing.T) {
	s, public := keys(t, "k")
	token, p, err := s.Sign(auth.Principal{OrgID: 1, Subject: "user:1"}, time.Minute)
	require.NoError(t, err)
	now := p.ExpiresAt.Add(-time.Second)
	v := verifier(t, public, auth.WithClock(func() time.Time { return now }))
	for range 3 {
		got, err := v.Verify(t.Context(), token)
		require.NoError(t, err)
		require.Equal(t, p.TokenID, got.TokenID)
	}
	for _, forged := range []string{token[:len(token)-4] + "AAAA", token + "A", " " + token} {
		_, err = v.Verify(t.Context(), forged)
		require.Equal(t, errs.Unauthenticated, errs.KindOf(err), forged)
	}
	now = p.ExpiresAt.Add(31 * time.Second)
	_, err = v.Verify(t.Context(), token)
	require.Equal(t, "TOKEN_EXPIRED", errs.From(err).Reason)
}

func TestRefused(t *testing.T) {
	s, public := keys(t, "k")
	forger, _ := keys(t, "k")
	stranger, _ := keys(t, "x")
	v := verifier(t, public)
	good, _, err := s.Sign(auth.Principal{OrgID: 1, Subject: "user:1"}, time.Hour)
	require.NoError(t, err)
	sign := func(by *auth.Signer, p auth.Principal, ttl time.Duration) string {
		token, _, err := by.Sign(p, ttl)
		require.NoError(t, err)
		return token
	}
	rawPublic, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(public, "k:"))
	require.NoError(t, err)
	with := func(method jwt.SigningMethod, key any, change func(jwt.MapClaims)) string {
		c := jwt.MapClaims{"iss": "sametick", "aud": "sametick", "sub": "user:1", "org": 1, "scope": "",
			"iat": time.Now().Unix(), "exp": time.Now().Add(time.Hour).Unix()}
		if change != nil {
			change(c)
		}
		token := jwt.NewWithClaims(method, c)
		token.Header["kid"] = "k"
		text, err := token.SignedString(key)
		require.NoError(t, err)
		return text
	}
	own := ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))
	ownVerifier := verifier(t, "k:"+base64.StdEncoding.EncodeToString(own.Public().(ed25519.PublicKey)))
	_, err = ownVerifier.Verify(t.Context(), with(jwt.SigningMethodEdDSA, own, nil))
	require.NoError(t, err, "the hand-made token is good until something is changed")
	parts := strings.Split(good, ".")
	escalated := base64.RawURLEncoding.EncodeToString([]byte(`{"iss":"sametick","aud":["sametick"],"sub":"user:1","org":2,"exp":9999999999}`))

	for name, c := range map[string]struct {
		v             *auth.Verifier
		token, reason string
	}{
		"missing":          {v, "", "TOKEN_MISSING"},
		"no jwt":           {v, "hello", "TOKEN_MALFORMED"},
		"too long":         {v, strings.Repeat("a", 5000), "TOKEN_MALFORMED"},
		"two parts":        {v, parts[0] + "." + parts[1], "TOKEN_MALFORMED"},
		"expired":          {v, sign(s, auth.Principal{OrgID: 1, Subject: "user:1"}, -time.Hour), "TOKEN_EXPIRED"},
		"expired, forged":  {v, sign(forger, auth.Principal{OrgID: 1, Subject: "user:1"}, -time.Hour), "TOKEN_INVALID"},
		"forged":           {v, sign(forger, auth.Principal{OrgID: 1, Subject: "user:1"}, time.Hour), "TOKEN_INVALID"},
		"unknown kid":      {v, sign(stranger, auth.Principal{OrgID: 1, Subject: "user:1"}, time.Hour), "TOKEN_INVALID"},
		"changed claims":   {v, parts[0] + "." + escalated + "." + parts[2], "TOKEN_INVALID"},
		"no signature":     {v, parts[0] + "." + parts[1] + ".", "TOKEN_INVALID"},
		"no organisation":  {v, sign(s, auth.Principal{Subject: "user:1"}, time.Hour), "TOKEN_INVALID"},
		"strange subject":  {v, sign(s, auth.Principal{OrgID: 1, Subject: "root"}, time.Hour), "TOKEN_INVALID"},
		"subject with +":   {v, sign(s, auth.Principal{OrgID: 1, Subject: "user:+1"}, time.Hour), "TOKEN_INVALID"},
		"alg none":         {v, with(jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType, nil), "TOKEN_INVALID"},
		"alg HS256 of key": {v, with(jwt.SigningMethodHS256, rawPublic, nil), "TOKEN_INVALID"},
		"other issuer":     {ownVerifier, with(jwt.SigningMethodEdDSA, own, func(c jwt.MapClaims) { c["iss"] = "x" }), "TOKEN_INVALID"},
		"other audience":   {ownVerifier, with(jwt.SigningMethodEdDSA, own, func(c jwt.MapClaims) { c["aud"] = "x" }), "TOKEN_INVALID"},
		"no expiry":        {ownVerifier, with(jwt.SigningMethodEdDSA, own, func(c jwt.MapClaims) { delete(c, "exp") }), "TOKEN_INVALID"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := c.v.Verify(context.Background(), c.token)
			require.Equal(t, errs.Unauthenticated, errs.KindOf(err))
			require.Equal(t, c.reason, errs.From(err).Reason)
			require.NotContains(t, errs.From(err).Message, parts[2])
		})
	}
}

func TestKeysRefused(t *testing.T) {
	_, public := keys(t, "k")
	for _, s := range []string{"", "k", "k:", "k:AAAA", "k k:" + public, public + ",", public + "," + public, ":" + public} {
		_, err := auth.NewVerifier(s)
		require.Error(t, err, s)
	}
	seed := base64.StdEncoding.EncodeToString(make([]byte, 31))
	_, err := auth.ParseSigner("k:" + seed)
	require.Error(t, err)
	require.NotContains(t, err.Error(), seed)
}

func TestScopes(t *testing.T) {
	s := auth.ScopesOf("records:write", "events:read", "what:ever")
	require.Equal(t, "events:read records:write", s.String())
	require.True(t, s.Has(auth.EventsRead))
	require.False(t, s.Has(auth.OrgAdmin))
	require.False(t, s.Has("what:ever"))
	require.Empty(t, auth.Scopes(0).Names())
	require.Equal(t, auth.AllScopes(), auth.ScopesOf(auth.AllScopes()...).Names())
}

func TestSecrets(t *testing.T) {
	secret := auth.NewSecret(auth.APIKeyPrefix)
	require.True(t, auth.IsAPIKey(secret))
	require.NotEqual(t, secret, auth.NewSecret(auth.APIKeyPrefix))
	require.Len(t, auth.HashSecret(secret), 32)
	for _, s := range []string{"", "stk_", secret[:46], "x" + secret, secret + "\n", secret + strings.Repeat("a", 200)} {
		require.False(t, auth.IsAPIKey(s), s)
	}
	require.Equal(t, "abc", auth.Bearer("bearer  abc "))
	require.Empty(t, auth.Bearer("Basic abc"))
}

func FuzzVerify(f *testing.F) {
	s, public := keys(f, "k")
	v := verifier(f, public)
	good, _, err := s.Sign(auth.Principal{OrgID: 1, Subject: "user:1"}, time.Hour)
	require.NoError(f, err)
	head, _ := json.Marshal(map[string]any{"alg": "none", "kid": "k"})
	f.Add(good)
	f.Add(base64.RawURLEncoding.EncodeToString(head) + ".e30.")
	f.Add("..")
	signature := good[strings.LastIndex(good, "."):]
	f.Fuzz(func(t *testing.T, token string) {
		p, err := v.Verify(t.Context(), token)
		if err == nil && !strings.HasSuffix(token, signature) {
			t.Fatalf("accepted what was never signed: %q → %+v", token, p)
		}
		if err != nil && errs.KindOf(err) != errs.Unauthenticated {
			t.Fatal(err)
		}
	})
}
