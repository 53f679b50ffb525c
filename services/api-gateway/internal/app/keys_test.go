package app

import (
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/stretchr/testify/require"

	"github.com/sametick/sametick/pkg/auth"
	"github.com/sametick/sametick/pkg/config"
	"github.com/sametick/sametick/pkg/errs"
)

func TestRotateKey(t *testing.T) {
	s := start(t, nil)
	key, first := s.key("", `{"name":"ci","scopes":["events:read","records:read"]}`)
	rotate := func(body string) (secret string) {
		var made struct {
			APIKey wireKey `json:"api_key"`
			Secret string
		}
		s.ok("POST", fmt.Sprintf("/api/api-keys/%d:rotate", key.ID), body, &made)
		require.Equal(t, key.ID, made.APIKey.ID)
		require.Equal(t, made.Secret[:12], made.APIKey.Prefix)
		return made.Secret
	}
	exchanged, err := s.g.identity.ExchangeKey(t.Context(), first)
	require.NoError(t, err)
	second := rotate(`{"overlap":60}`)
	for _, token := range []string{first, second, exchanged.Access} {
		require.Equal(t, http.StatusOK, s.call("GET", create, token, "").status)
	}
	_, err = s.admin.Exec(t.Context(), "UPDATE sametick.api_keys SET previous_until = now() WHERE id = $1", key.ID)
	require.NoError(t, err)
	s.g.keys.Clear()
	s.g.checker.Clear()
	require.Equal(t, "TOKEN_INVALID", s.call("GET", create, first, "").problem(t).Reason, "the overlap is over")
	require.Equal(t, "TOKEN_REVOKED", s.call("GET", create, exchanged.Access, "").problem(t).Reason, "with what it was exchanged for")
	third := rotate(`{}`)
	require.Equal(t, "TOKEN_INVALID", s.call("GET", create, second, "").problem(t).Reason, "at once")
	require.Equal(t, http.StatusOK, s.call("GET", create, third, "").status)
	require.Equal(t, []string{"api_key.pre_create", "api_key.post_create", "api_key.rotated", "api_key.rotated"}, s.history("api_key", key.ID).types())
	var list struct {
		Data []struct {
			ID         int64
			LastUsedAt *time.Time `json:"last_used_at"`
		}
	}
	s.ok("GET", "/api/api-keys", "", &list)
	require.WithinDuration(t, time.Now(), *list.Data[0].LastUsedAt, 2*time.Minute)

	for _, overlap := range []string{"-1", "604801", "9223372036854775807"} {
		p := s.call("POST", fmt.Sprintf("/api/api-keys/%d:rotate", key.ID), "", `{"overlap":`+overlap+`}`).problem(t)
		require.Equal(t, "OUT_OF_RANGE", p.Errors[0].Reason)
	}
	_, short := s.key("", fmt.Sprintf(`{"name":"short","scopes":["org:admin","events:read","records:read"],"expires_at":%q}`, time.Now().Add(time.Hour).Format(time.RFC3339)))
	require.Equal(t, "OUTLIVES_ITS_MAKER", s.call("POST", fmt.Sprintf("/api/api-keys/%d:rotate", key.ID), short, `{}`).problem(t).Reason)
	s.ok("DELETE", fmt.Sprintf("/api/api-keys/%d", key.ID), "", nil)
	require.Equal(t, "API_KEY_ARCHIVED", s.call("POST", fmt.Sprintf("/api/api-keys/%d:rotate", key.ID), "", `{}`).problem(t).Reason)
	require.Equal(t, "TOKEN_INVALID", s.call("GET", create, third, "").problem(t).Reason)
}

// TestRotatedKeyIsNotExchanged by another replica, which still knows the old secret: what it gave would outlive it.
func TestRotatedKeyIsNotExchanged(t *testing.T) {
	s := start(t, nil)
	other := start(t, func(c *Config) { c.DatabaseURL = config.NewSecret(s.db.URLAs(t, "sametick_api")) })
	key, secret := s.key("", `{"name":"ci","scopes":["events:read","records:read"]}`)
	require.Equal(t, http.StatusOK, other.call("GET", create, secret, "").status)
	s.ok("POST", fmt.Sprintf("/api/api-keys/%d:rotate", key.ID), `{}`, nil)
	require.Equal(t, http.StatusOK, other.call("GET", create, secret, "").status, "the control: it is believed for 10 s")
	_, err := other.g.identity.ExchangeKey(t.Context(), secret)
	require.True(t, errs.HasReason(err, "TOKEN_INVALID"), "%v", err)
	_, err = other.g.identity.StreamToken(t.Context(), secret)
	require.True(t, errs.HasReason(err, "TOKEN_INVALID"), "%v", err)
}

// TestArchivedKeyTakesTokensAlong: what a key was exchanged for ends with it, not after its hour.
func TestArchivedKeyTakesTokensAlong(t *testing.T) {
	s := start(t, nil)
	key, secret := s.key("", `{"name":"ci","scopes":["records:read"]}`)
	exchanged, err := s.g.identity.ExchangeKey(t.Context(), secret)
	require.NoError(t, err)
	require.Equal(t, http.StatusOK, s.call("GET", create, exchanged.Access, "").status)
	s.ok("DELETE", fmt.Sprintf("/api/api-keys/%d", key.ID), "", nil)
	require.Equal(t, "TOKEN_REVOKED", s.call("GET", create, exchanged.Access, "").problem(t).Reason)
}

// TestSigningKeysRotate the way the README says: publish the new key, sign with it, retire the old one.
func TestSigningKeysRotate(t *testing.T) {
	oldKey, oldPublic, err := auth.GenerateKey("2026-01")
	require.NoError(t, err)
	newKey, newPublic, err := auth.GenerateKey("2026-02")
	require.NoError(t, err)
	var s *suite
	replica := func(signing, public string) *suite {
		return start(t, func(c *Config) {
			if s != nil {
				c.DatabaseURL = config.NewSecret(s.db.URLAs(t, "sametick_api"))
			}
			c.SigningKey, c.PublicKeys = config.NewSecret(signing), public
		})
	}
	s = replica(oldKey, oldPublic+","+newPublic)
	first := s.session()
	for _, path := range []string{"/api/auth/jwks.json", "/.well-known/jwks.json"} {
		var set struct {
			Keys []struct{ Kty, Crv, Kid, Alg, Use, X string }
		}
		a := s.call("GET", path, "-", "")
		a.into(t, &set)
		require.Equal(t, "application/json", a.header.Get("Content-Type"))
		require.Len(t, set.Keys, 2)
		for _, k := range set.Keys {
			require.Equal(t, []string{"OKP", "Ed25519", "EdDSA", "sig"}, []string{k.Kty, k.Crv, k.Alg, k.Use})
		}
		// A stranger verifies our token by what the set says alone.
		_, err := jwt.Parse(first.AccessToken, func(token *jwt.Token) (any, error) {
			for _, k := range set.Keys {
				if k.Kid == token.Header["kid"] {
					x, err := base64.RawURLEncoding.DecodeString(k.X)
					return ed25519.PublicKey(x), err
				}
			}
			return nil, fmt.Errorf("no key %v", token.Header["kid"])
		}, jwt.WithValidMethods([]string{"EdDSA"}))
		require.NoError(t, err)
		seed, _ := strings.CutPrefix(oldKey, "2026-01:")
		require.NotContains(t, a.text, seed)
	}
	kid := func(token string) string {
		header, err := base64.RawURLEncoding.DecodeString(strings.Split(token, ".")[0])
		require.NoError(t, err)
		var h struct{ Kid string }
		require.NoError(t, json.Unmarshal(header, &h))
		return h.Kid
	}
	require.Equal(t, "2026-01", kid(first.AccessToken))

	second := replica(newKey, oldPublic+","+newPublic)
	require.Equal(t, http.StatusOK, second.call("GET", create, first.AccessToken, "").status, "old tokens go on")
	var renewed wireTokens
	second.refresh(first.RefreshToken).into(t, &renewed)
	require.Equal(t, "2026-02", kid(renewed.AccessToken))
	require.Equal(t, http.StatusOK, s.call("GET", create, renewed.AccessToken, "").status, "and replicas that still sign with the old key know the new one")

	third := replica(newKey, newPublic)
	require.Equal(t, "TOKEN_INVALID", third.call("GET", create, first.AccessToken, "").problem(t).Reason)
	require.Equal(t, http.StatusOK, third.call("GET", create, renewed.AccessToken, "").status)
}
