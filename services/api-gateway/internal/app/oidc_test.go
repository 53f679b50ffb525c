package app

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/stretchr/testify/require"
	"github.com/zitadel/oidc/v3/example/server/exampleop"
	"github.com/zitadel/oidc/v3/example/server/storage"
	"github.com/zitadel/oidc/v3/pkg/op"

	"github.com/sametick/sametick/pkg/auth"
	"github.com/sametick/sametick/pkg/config"
	"github.com/sametick/sametick/pkg/errs"
)

// people are the users of an issuer, by id.
type people map[string]*storage.User

func (p people) GetUserByID(id string) *storage.User         { return p[id] }
func (p people) GetUserByUsername(name string) *storage.User { return p[name] }
func (p people) ExampleClientID() string                     { return storage.ServiceUserID }

// issuer is a real OpenID Connect server.
type issuer struct {
	t       *testing.T
	url     string
	people  people
	storage *storage.Storage
	down    atomic.Bool
}

const callback = "http://localhost:9999/auth/callback"

func newIssuer(t *testing.T) *issuer {
	i := &issuer{t: t, people: people{}}
	i.storage = storage.NewStorageWithClients(i.people, map[string]*storage.Client{
		"sametick": storage.WebClient("sametick", "secret", callback), "another": storage.WebClient("another", "secret", callback)})
	var handler http.Handler
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if i.down.Load() {
			http.Error(w, "down", http.StatusBadGateway)
			return
		}
		handler.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	i.url = server.URL
	handler = exampleop.SetupServer(i.url, i.storage, nil, false, op.WithAllowInsecure())
	return i
}

func (i *issuer) person(id, email string, verified bool) {
	i.people[id] = &storage.User{ID: id, Username: id, Password: "p", Email: email, EmailVerified: verified}
}

// login gives the ID token that a person gets for a client, by OpenID Connect's implicit flow (Core, 3.2).
func (i *issuer) login(id, client string) string {
	i.t.Helper()
	http1 := http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }, Transport: &http.Transport{DisableKeepAlives: true}}
	location := func(method, to string, form url.Values) *url.URL {
		base, err := url.Parse(i.url)
		require.NoError(i.t, err)
		u, err := base.Parse(to)
		require.NoError(i.t, err)
		req, err := http.NewRequestWithContext(i.t.Context(), method, u.String(), nil)
		require.NoError(i.t, err)
		req.URL.RawQuery = form.Encode()
		if len(form) == 0 {
			req.URL.RawQuery = u.RawQuery
		}
		res, err := http1.Do(req)
		require.NoError(i.t, err)
		require.NoError(i.t, res.Body.Close())
		next, err := res.Location()
		require.NoError(i.t, err, "%s %s: %d", method, to, res.StatusCode)
		return next
	}
	u := location("GET", "/auth", url.Values{"client_id": {client}, "redirect_uri": {callback}, "response_type": {"id_token"},
		"scope": {"openid email"}, "nonce": {"n"}, "state": {"s"}})
	u = location("POST", "/login/username", url.Values{"username": {id}, "password": {"p"}, "id": {u.Query().Get("authRequestID")}})
	u = location("GET", u.String(), nil)
	fragment, err := url.ParseQuery(u.Fragment)
	require.NoError(i.t, err)
	require.NotEmpty(i.t, fragment.Get("id_token"), u.String())
	return fragment.Get("id_token")
}

// forge signs claims with the issuer's own key, or as change says.
func (i *issuer) forge(claims jwt.MapClaims, method jwt.SigningMethod, change func(kid string, key *rsa.PrivateKey) (string, any)) string {
	signing, err := i.storage.SigningKey(context.Background())
	require.NoError(i.t, err)
	private, ok := signing.Key().(*rsa.PrivateKey)
	require.True(i.t, ok)
	kid, key := signing.ID(), any(private)
	if change != nil {
		kid, key = change(kid, private)
	}
	token := jwt.NewWithClaims(method, claims)
	token.Header["kid"] = kid
	text, err := token.SignedString(key)
	require.NoError(i.t, err)
	return text
}

func startWithIssuer(t *testing.T) (*suite, *issuer) {
	i := newIssuer(t)
	s := start(t, func(c *Config) { c.OIDCIssuer, c.OIDCAudience, c.OIDCOrg = i.url, "sametick", 1 })
	require.Equal(t, int64(1), s.a.OrgID, "the first organisation of the database")
	return s, i
}

func TestExternalIssuer(t *testing.T) {
	s, i := startWithIssuer(t)
	writer := s.role("writer", "records:read", "records:write", "events:read")
	eve := s.user("eve@acme.example", writer.ID)
	i.person("sub-eve", "Eve@ACME.example", true)
	token := i.login("sub-eve", "sametick")
	var made wireRecord
	a := s.call("POST", create, token, `{"name":"by eve"}`)
	require.Equal(t, http.StatusOK, a.status, a.text)
	a.into(t, &made)
	require.InDelta(t, eve.ID, s.history("task", made.ID).Data[1].Payload["actor_id"], 0)
	require.Equal(t, http.StatusForbidden, s.call("GET", "/api/users", token, "").status, "scopes are the roles'")
	h := s.history("user", eve.ID)
	require.Equal(t, []string{"user.pre_create", "user.post_create", "user.identity_linked"}, h.types())
	require.Equal(t, i.url, h.Data[2].Payload["issuer"])

	own, err := s.g.identity.StreamToken(t.Context(), token)
	require.NoError(t, err)
	p, err := s.g.verifier.Verify(t.Context(), own)
	require.NoError(t, err, "sse-gateway gets a token of ours")
	require.Equal(t, eve.ID, *p.UserID)

	// The subject counts from now on: neither her new address nor her old one in another's hands changes who is who.
	i.person("sub-eve", "bob@bolt.example", true)
	require.Equal(t, http.StatusOK, s.call("GET", create, i.login("sub-eve", "sametick"), "").status)
	i.person("sub-heir", "eve@acme.example", true)
	require.Equal(t, "USER_UNKNOWN", s.call("GET", create, i.login("sub-heir", "sametick"), "").problem(t).Reason)

	s.ok("PATCH", fmt.Sprintf("/api/users/%d", eve.ID), `{"roles":[]}`, nil)
	require.Equal(t, "SCOPE_MISSING", s.call("GET", create, token, "").problem(t).Reason, "at once")
	s.ok("DELETE", fmt.Sprintf("/api/users/%d", eve.ID), "", nil)
	require.Equal(t, "USER_UNKNOWN", s.call("GET", create, token, "").problem(t).Reason)
}

// TestExternalStreamAfterArchive: a token for a stream is a new one, so another replica must not give it by what it
// knew before.
func TestExternalStreamAfterArchive(t *testing.T) {
	s, i := startWithIssuer(t)
	other := start(t, func(c *Config) {
		c.DatabaseURL = config.NewSecret(s.db.URLAs(t, "sametick_api"))
		c.OIDCIssuer, c.OIDCAudience, c.OIDCOrg = i.url, "sametick", 1
	})
	eve := s.user("eve@acme.example", s.role("reader", "records:read", "events:read").ID)
	i.person("sub-eve", "eve@acme.example", true)
	token := i.login("sub-eve", "sametick")
	_, err := other.g.identity.StreamToken(t.Context(), token)
	require.NoError(t, err)
	s.ok("DELETE", fmt.Sprintf("/api/users/%d", eve.ID), "", nil)
	require.Equal(t, http.StatusOK, other.call("GET", create, token, "").status, "the control: it is believed for 10 s")
	_, err = other.g.identity.StreamToken(t.Context(), token)
	require.True(t, errs.HasReason(err, "USER_UNKNOWN"), "%v", err)
}

// TestExternalStrangers: nobody is taken over.
func TestExternalStrangers(t *testing.T) {
	s, i := startWithIssuer(t)
	for id, c := range map[string]struct {
		email    string
		verified bool
	}{
		"unverified": {"ann@acme.example", false}, "other organisation": {"bob@bolt.example", true},
		"unknown": {"nobody@acme.example", true}, "no address": {"", true},
	} {
		i.person(id, c.email, c.verified)
		require.Equal(t, "USER_UNKNOWN", s.call("GET", create, i.login(id, "sametick"), "").problem(t).Reason, id)
	}
	var links int
	require.NoError(t, s.admin.QueryRow(t.Context(), "SELECT count(*) FROM sametick.external_identities").Scan(&links))
	require.Zero(t, links)

	i.person("ann", "ann@acme.example", true)
	claims := func(change func(jwt.MapClaims)) jwt.MapClaims {
		c := jwt.MapClaims{"iss": i.url, "aud": "sametick", "sub": "ann", "email": "ann@acme.example", "email_verified": true,
			"iat": time.Now().Unix(), "exp": time.Now().Add(time.Hour).Unix()}
		if change != nil {
			change(c)
		}
		return c
	}
	stranger, err := rsa.GenerateKey(rand.Reader, 2048)
	require.NoError(t, err)
	for name, c := range map[string]struct{ token, reason string }{
		"another's audience": {i.login("ann", "another"), "TOKEN_INVALID"},
		"no audience":        {i.forge(claims(func(c jwt.MapClaims) { delete(c, "aud") }), jwt.SigningMethodRS256, nil), "TOKEN_INVALID"},
		"expired":            {i.forge(claims(func(c jwt.MapClaims) { c["exp"] = time.Now().Add(-time.Minute).Unix() }), jwt.SigningMethodRS256, nil), "TOKEN_EXPIRED"},
		"no expiry":          {i.forge(claims(func(c jwt.MapClaims) { delete(c, "exp") }), jwt.SigningMethodRS256, nil), "TOKEN_EXPIRED"},
		"not yet":            {i.forge(claims(func(c jwt.MapClaims) { c["nbf"] = time.Now().Add(time.Hour).Unix() }), jwt.SigningMethodRS256, nil), "TOKEN_INVALID"},
		"no subject":         {i.forge(claims(func(c jwt.MapClaims) { delete(c, "sub") }), jwt.SigningMethodRS256, nil), "TOKEN_INVALID"},
		"verified by text":   {i.forge(claims(func(c jwt.MapClaims) { c["email_verified"] = "true"; c["sub"] = "x" }), jwt.SigningMethodRS256, nil), "USER_UNKNOWN"},
		"forged":             {i.forge(claims(nil), jwt.SigningMethodRS256, func(kid string, _ *rsa.PrivateKey) (string, any) { return kid, stranger }), "TOKEN_INVALID"},
		"unknown key":        {i.forge(claims(nil), jwt.SigningMethodRS256, func(string, *rsa.PrivateKey) (string, any) { return "other", stranger }), "TOKEN_INVALID"},
		"no algorithm":       {i.forge(claims(nil), jwt.SigningMethodNone, func(kid string, _ *rsa.PrivateKey) (string, any) { return kid, jwt.UnsafeAllowNoneSignatureType }), "TOKEN_INVALID"},
		"public key as secret": {i.forge(claims(nil), jwt.SigningMethodHS256, func(kid string, key *rsa.PrivateKey) (string, any) {
			der, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
			require.NoError(t, err)
			return kid, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
		}), "TOKEN_INVALID"},
		"another issuer": {i.forge(claims(func(c jwt.MapClaims) { c["iss"] = i.url + "/" }), jwt.SigningMethodRS256, nil), "TOKEN_INVALID"},
	} {
		a := s.call("GET", create, c.token, "")
		require.Equal(t, http.StatusUnauthorized, a.status, name)
		require.Equal(t, c.reason, a.problem(t).Reason, name)
	}
	require.Equal(t, http.StatusOK, s.call("GET", create, i.forge(claims(nil), jwt.SigningMethodRS256, nil), "").status, "the control: all is well with the rest")
	require.NotContains(t, s.log.String(), `"panic"`)
}

// TestExternalFirstUseAtOnce links once.
func TestExternalFirstUseAtOnce(t *testing.T) {
	s, i := startWithIssuer(t)
	i.person("ann", "ann@acme.example", true)
	token := i.login("ann", "sametick")
	var wg sync.WaitGroup
	outcomes := make([]int, 8)
	for n := range outcomes {
		wg.Go(func() { outcomes[n] = s.call("GET", create, token, "").status })
	}
	wg.Wait()
	require.Equal(t, []int{200, 200, 200, 200, 200, 200, 200, 200}, outcomes)
	require.Equal(t, []string{"user.pre_create", "user.post_create", "user.identity_linked"}, s.history("user", s.a.UserID).types())
}

// TestIssuerAway: the service starts and works without the issuer; its tokens wait.
func TestIssuerAway(t *testing.T) {
	s, i := startWithIssuer(t)
	i.person("ann", "ann@acme.example", true)
	token := i.login("ann", "sametick")
	i.down.Store(true)
	a := s.call("GET", create, token, "")
	require.Equal(t, http.StatusServiceUnavailable, a.status)
	require.Equal(t, "ISSUER_UNAVAILABLE", a.problem(t).Reason)
	require.NotEmpty(t, a.header.Get("Retry-After"))
	require.Equal(t, http.StatusOK, s.call("GET", create, "", "").status)
	i.down.Store(false)
	require.Eventually(t, func() bool { return s.call("GET", create, token, "").status == http.StatusOK }, 10*time.Second, 100*time.Millisecond)
	require.True(t, s.alive(s.session().AccessToken), "our own tokens as ever")
	require.True(t, auth.IsAPIKey(s.a.APIKey))
}
