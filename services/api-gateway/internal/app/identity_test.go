package app

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sametick/sametick/pkg/auth"
	"github.com/sametick/sametick/services/api-gateway/internal/identity"
)

type wireTokens struct {
	AccessToken  string `json:"access_token"`
	RefreshToken string `json:"refresh_token"`
	TokenType    string `json:"token_type"`
	ExpiresIn    int64  `json:"expires_in"`
}

func (s *suite) login(email, password string) answer {
	body, err := json.Marshal(map[string]string{"email": email, "password": password})
	require.NoError(s.t, err)
	return s.call("POST", "/api/auth/login", "-", string(body))
}

func (s *suite) session() (tokens wireTokens) {
	a := s.login("Ann@ACME.example", password)
	require.Equal(s.t, http.StatusOK, a.status, a.text)
	a.into(s.t, &tokens)
	return tokens
}

func (s *suite) refresh(token string) answer {
	return s.call("POST", "/api/auth/refresh", "-", fmt.Sprintf(`{"refresh_token":%q}`, token))
}

func TestSession(t *testing.T) {
	s := start(t, nil)
	first := s.session()
	require.Equal(t, "Bearer", first.TokenType)
	require.Equal(t, int64(3600), first.ExpiresIn)
	a := s.call("GET", fmt.Sprintf("/api/events/user/%d", s.a.UserID), first.AccessToken, "")
	var history wireEvents
	a.into(t, &history)
	require.Equal(t, []string{"user.pre_create", "user.post_create", "auth.login"}, history.types())
	require.Equal(t, "login", history.Data[2].Payload["action"])
	require.InDelta(t, s.a.UserID, history.Data[2].Payload["actor_id"], 0)

	var second wireTokens
	s.refresh(first.RefreshToken).into(t, &second)
	require.NotEqual(t, first.RefreshToken, second.RefreshToken)
	require.Equal(t, http.StatusOK, s.call("GET", create, second.AccessToken, "").status)

	a = s.refresh(first.RefreshToken)
	require.Equal(t, http.StatusUnauthorized, a.status)
	require.Equal(t, "REFRESH_TOKEN_REUSED", a.problem(t).Reason)
	require.Equal(t, "REFRESH_TOKEN_REVOKED", s.refresh(second.RefreshToken).problem(t).Reason, "a second use ends the whole session")

	other := s.session()
	for range 2 { // ending what has ended says nothing and does nothing
		a = s.call("POST", "/api/auth/logout", "-", fmt.Sprintf(`{"refresh_token":%q}`, other.RefreshToken))
		require.Equal(t, http.StatusOK, a.status)
		require.Equal(t, "{}", a.text)
	}
	require.Equal(t, "REFRESH_TOKEN_REVOKED", s.refresh(other.RefreshToken).problem(t).Reason)
	require.Equal(t, "REFRESH_TOKEN_INVALID", s.refresh("str_nonsense").problem(t).Reason)
	s.ok("GET", fmt.Sprintf("/api/events/user/%d", s.a.UserID), "", &history)
	require.Equal(t, []string{"auth.login", "auth.logout", "auth.login", "auth.logout"}, history.types()[2:])
	require.Equal(t, "refresh_token_reused", history.Data[3].Payload["reason"])
	require.Nil(t, history.Data[3].Payload["actor_id"], "the thief or the robbed")
	require.Equal(t, []string{"create 2 applied", "login 1 applied", "logout 1 applied", "login 1 applied", "logout 1 applied"}, s.auditOf("user", s.a.UserID))

	last := s.session()
	_, err := s.admin.Exec(t.Context(), "UPDATE sametick.refresh_tokens SET expires_at = now() - interval '1 s' WHERE hash = $1", auth.HashSecret(last.RefreshToken))
	require.NoError(t, err)
	require.Equal(t, "REFRESH_TOKEN_EXPIRED", s.refresh(last.RefreshToken).problem(t).Reason)
}

func TestLoginRefused(t *testing.T) {
	s := start(t, nil)
	wrong, unknown := s.login("ann@acme.example", "wrong"), s.login("nobody@acme.example", "wrong")
	require.Equal(t, http.StatusUnauthorized, wrong.status)
	x, y := wrong.problem(t), unknown.problem(t)
	x.RequestID, y.RequestID = "", ""
	require.Equal(t, x, y, "the answer does not tell who exists")
	require.Equal(t, "LOGIN_FAILED", x.Reason)
	require.Equal(t, http.StatusBadRequest, s.login("ann@acme.example", strings.Repeat("x", 1025)).status)

	session := s.session()
	s.deputy()
	s.ok("DELETE", fmt.Sprintf("/api/records/user/%d", s.a.UserID), "", nil)
	require.Equal(t, "LOGIN_FAILED", s.login("ann@acme.example", password).problem(t).Reason, "an archived user")
	require.Equal(t, "REFRESH_TOKEN_REVOKED", s.refresh(session.RefreshToken).problem(t).Reason)
	for range 3 {
		require.NotContains(t, s.log.String(), password)
		require.NotContains(t, s.log.String(), session.RefreshToken)
	}
}

type wireKey struct {
	ID           int64
	Name, Prefix string
	Scopes       []string
	ExpiresAt    *string `json:"expires_at"`
	ArchivedAt   *string `json:"archived_at"`
}

func (s *suite) key(token, body string) (key wireKey, secret string) {
	a := s.call("POST", "/api/api-keys", token, body)
	require.Equal(s.t, http.StatusOK, a.status, a.text)
	var made struct {
		APIKey wireKey `json:"api_key"`
		Secret string
	}
	a.into(s.t, &made)
	return made.APIKey, made.Secret
}

func TestAPIKeys(t *testing.T) {
	s := start(t, nil)
	key, secret := s.key("", `{"name":"ci","scopes":["records:read","events:read"],"expires_at":"2099-01-01T00:00:00+01:00"}`)
	require.True(t, auth.IsAPIKey(secret))
	require.Equal(t, secret[:12], key.Prefix)
	require.Equal(t, []string{"events:read", "records:read"}, key.Scopes)
	require.Equal(t, "2098-12-31T23:00:00.000Z", *key.ExpiresAt)
	require.Equal(t, http.StatusOK, s.call("GET", create, secret, "").status)
	p := s.call("POST", create, secret, `{"name":"x"}`).problem(t)
	require.Equal(t, "SCOPE_MISSING", p.Reason)
	require.Equal(t, "records:write", p.Metadata["scope"])
	require.Equal(t, "SCOPE_MISSING", s.call("GET", "/api/api-keys", secret, "").problem(t).Reason)

	_, writer := s.key("", `{"name":"writer","scopes":["records:write"]}`)
	require.Equal(t, http.StatusOK, s.call("POST", create, writer, `{"name":"x"}`).status)
	for _, c := range []struct{ method, path, body string }{
		{"POST", "/api/records/user", `{"name":"x"}`}, {"PATCH", fmt.Sprintf("/api/records/user/%d", s.a.UserID), `{"name":"x"}`},
		{"DELETE", fmt.Sprintf("/api/records/api_key/%d", key.ID), ""},
	} {
		require.Equal(t, "org:admin", s.call(c.method, c.path, writer, c.body).problem(t).Metadata["scope"], c.path)
	}
	_, admin := s.key("", `{"name":"admin","scopes":["org:admin"]}`)
	p = s.call("POST", "/api/api-keys", admin, `{"name":"more","scopes":["records:write"]}`).problem(t)
	require.Equal(t, "SCOPE_NOT_HELD", p.Errors[0].Reason, "nobody gives what they lack")

	var list struct {
		Data  []wireKey
		Total int64
	}
	s.ok("GET", "/api/api-keys", "", &list)
	require.Equal(t, int64(4), list.Total)
	require.Equal(t, "admin", list.Data[0].Name)
	s.ok("DELETE", fmt.Sprintf("/api/api-keys/%d", key.ID), "", &key)
	require.NotNil(t, key.ArchivedAt)
	require.Equal(t, "TOKEN_INVALID", s.call("GET", create, secret, "").problem(t).Reason, "at once, the cache notwithstanding")
	require.Equal(t, []string{"create 2 applied", "archive 2 applied"}, s.auditOf("api_key", key.ID))
	require.Equal(t, http.StatusNotFound, s.call("DELETE", fmt.Sprintf("/api/api-keys/%d", list.Data[0].ID), s.b.APIKey, "").status)
	var stored int
	require.NoError(t, s.admin.QueryRow(t.Context(), "SELECT count(*) FROM sametick.api_keys k WHERE position($1 IN k::text) > 0", secret[12:]).Scan(&stored))
	require.Zero(t, stored, "a secret is not stored")
	var used *time.Time
	require.NoError(t, s.admin.QueryRow(t.Context(), "SELECT last_used_at FROM sametick.api_keys WHERE id = $1", key.ID).Scan(&used))
	require.NotNil(t, used)
}

func TestExchange(t *testing.T) {
	s := start(t, nil)
	tokens, err := s.g.identity.ExchangeKey(t.Context(), s.a.APIKey)
	require.NoError(t, err)
	require.Empty(t, tokens.Refresh)
	v, err := auth.NewVerifier(s.g.config.PublicKeys)
	require.NoError(t, err)
	p, err := v.Verify(t.Context(), tokens.Access)
	require.NoError(t, err)
	require.Equal(t, s.a.OrgID, p.OrgID)
	require.Equal(t, s.a.UserID, *p.UserID)
	require.Contains(t, p.Subject, "api_key:")
	_, short := s.key("", fmt.Sprintf(`{"name":"short","scopes":["events:read"],"expires_at":%q}`, time.Now().Add(time.Minute).Format(time.RFC3339)))
	tokens, err = s.g.identity.ExchangeKey(t.Context(), short)
	require.NoError(t, err)
	require.LessOrEqual(t, tokens.TTL, time.Minute, "a token ends with its key")
}

// TestBootstrap runs the subcommand as `make up` does, twice.
func TestBootstrap(t *testing.T) {
	db := database(t)
	run := func(stdin string, args ...string) (int, string, string) {
		var out, errs bytes.Buffer
		code := Run(t.Context(), Process{Args: append([]string{"bootstrap"}, args...), In: strings.NewReader(stdin), Out: &out, Err: &errs,
			Getenv: func(k string) string {
				return map[string]string{"DATABASE_URL": db.URLAs(t, "sametick_api"), "PASSWORD": password}[k]
			}})
		return code, out.String(), errs.String()
	}
	var first, second identity.Founded
	code, out, text := run(password+"\n", "--org", "Demo", "--email", "demo@example.com", "--password-stdin")
	require.Zero(t, code, text)
	require.NoError(t, json.Unmarshal([]byte(out), &first))
	require.True(t, auth.IsAPIKey(first.APIKey))
	code, out, _ = run("", "--org", "Demo", "--email", "DEMO@example.com", "--password-env", "PASSWORD")
	require.Zero(t, code)
	require.NoError(t, json.Unmarshal([]byte(out), &second))
	require.Equal(t, identity.Founded{OrgID: first.OrgID, UserID: first.UserID}, second, "the same, and no new secret")
	for _, args := range [][]string{{}, {"--org", "x"}, {"--org", "x", "--email", "a@b"}, {"--nonsense"}, {"--org", "x", "--email", "a@b", "--password-stdin", "more"}} {
		code, _, text = run("", args...)
		require.Equal(t, 2, code)
		require.NotEmpty(t, text)
	}
	code, _, text = run("short\n", "--org", "x", "--email", "nonsense", "--password-stdin")
	require.Equal(t, 1, code)
	require.Contains(t, text, "email")
	require.Contains(t, text, "8 characters to 1024 bytes")
}
