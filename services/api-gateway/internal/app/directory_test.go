package app

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	"github.com/sametick/sametick/pkg/auth"
	identityv1 "github.com/sametick/sametick/proto/gen/go/sametick/identity/v1"
)

type wireUser struct {
	ID                  int64
	Name, Email, Status string
	Roles               []int64
	Scopes              []string
	Version             int64
	CreatedAt           string  `json:"created_at"`
	UpdatedAt           string  `json:"updated_at"`
	ArchivedAt          *string `json:"archived_at"`
}

type wireRole struct {
	ID            int64
	Name          string
	Scopes        []string
	Administrator bool
	Version       int64
	ArchivedAt    *string `json:"archived_at"`
}

// administrator is the built-in role of organisation A.
func (s *suite) administrator() (id int64) {
	var list struct{ Data []wireRole }
	s.ok("GET", "/api/roles", "", &list)
	for _, r := range list.Data {
		if r.Administrator {
			require.Equal(s.t, "administrator", r.Name)
			require.Equal(s.t, auth.AllScopes(), r.Scopes)
			return r.ID
		}
	}
	require.FailNow(s.t, "no administrator's role")
	return 0
}

func (s *suite) role(name string, scopes ...string) (r wireRole) {
	body, err := json.Marshal(map[string]any{"name": name, "scopes": scopes})
	require.NoError(s.t, err)
	s.ok("POST", "/api/roles", string(body), &r)
	return r
}

// user makes a user of organisation A who signs in with the tests' password.
func (s *suite) user(email string, roles ...int64) (u wireUser) {
	body, err := json.Marshal(map[string]any{"email": email, "password": password, "roles": roles})
	require.NoError(s.t, err)
	s.ok("POST", "/api/users", string(body), &u)
	return u
}

// deputy is another administrator of organisation A.
func (s *suite) deputy() wireUser { return s.user("dan@acme.example", s.administrator()) }

// mask names the fields of an update.
func mask(fields ...string) *fieldmaskpb.FieldMask { return &fieldmaskpb.FieldMask{Paths: fields} }

// tokensOf signs a user in.
func (s *suite) tokensOf(email string) (tokens wireTokens) {
	a := s.login(email, password)
	require.Equal(s.t, http.StatusOK, a.status, a.text)
	a.into(s.t, &tokens)
	return tokens
}

func (s *suite) history(kind string, id int64) wireEvents {
	var h wireEvents
	s.ok("GET", fmt.Sprintf("/api/events/%s/%d", kind, id), "", &h)
	return h
}

func TestUsersAndRoles(t *testing.T) {
	s := start(t, nil)
	reader, writer := s.role("reader", "records:read"), s.role("writer", "records:write", "records:read")
	require.Equal(t, []string{"records:read", "records:write"}, writer.Scopes)
	u := s.user("Eve@acme.example", writer.ID, reader.ID)
	require.Equal(t, wireUser{ID: u.ID, Name: "Eve@acme.example", Email: "Eve@acme.example", Status: "active", Roles: []int64{reader.ID, writer.ID},
		Scopes: []string{"records:read", "records:write"}, Version: 1, CreatedAt: u.CreatedAt, UpdatedAt: u.UpdatedAt}, u)
	eve := s.tokensOf("eve@ACME.example").AccessToken
	require.Equal(t, http.StatusOK, s.call("POST", create, eve, `{"name":"x"}`).status)
	require.Equal(t, http.StatusForbidden, s.call("GET", "/api/users", eve, "").status)

	path := fmt.Sprintf("/api/users/%d", u.ID)
	s.ok("PATCH", path, fmt.Sprintf(`{"name":"Eve","roles":[%d],"version":1}`, reader.ID), &u)
	require.Equal(t, []string{"records:read"}, u.Scopes)
	require.Equal(t, int64(2), u.Version)
	require.Equal(t, http.StatusForbidden, s.call("POST", create, eve, `{"name":"x"}`).status, "a signed token loses the scope at once")
	require.Equal(t, "VERSION_MISMATCH", s.call("PATCH", path, "", `{"name":"x","version":1}`).problem(t).Reason)
	s.ok("PATCH", path, `{"name":"Eve"}`, &u)
	require.Equal(t, int64(2), u.Version, "nothing changed")
	s.ok("PATCH", path, `{"roles":[]}`, &u)
	require.Empty(t, u.Scopes)
	s.ok("GET", path, "", &u)
	require.Empty(t, u.Roles)

	s.ok("DELETE", path, "", &u)
	require.Equal(t, "archived", u.Status)
	require.Equal(t, "TOKEN_REVOKED", s.call("GET", create, eve, "").problem(t).Reason)
	require.Equal(t, "LOGIN_FAILED", s.login("eve@acme.example", password).problem(t).Reason)
	require.Equal(t, "RECORD_ARCHIVED", s.call("PATCH", path, "", `{"name":"x"}`).problem(t).Reason)
	require.Equal(t, "RECORD_ARCHIVED", s.call("POST", path+":reset-password", "", "{}").problem(t).Reason)

	h := s.history("user", u.ID)
	require.Equal(t, []string{"user.pre_create", "user.post_create", "auth.login", "user.pre_update", "user.post_update",
		"user.pre_update", "user.post_update", "user.pre_archive", "user.post_archive"}, h.types())
	require.Equal(t, map[string]any{
		"name":   map[string]any{"before": "Eve@acme.example", "after": "Eve"},
		"roles":  map[string]any{"before": []any{float64(reader.ID), float64(writer.ID)}, "after": []any{float64(reader.ID)}},
		"scopes": map[string]any{"before": []any{"records:read", "records:write"}, "after": []any{"records:read"}},
	}, h.Data[4].Payload["changes"])
	require.Equal(t, []string{"create 2 applied", "login 1 applied", "update 2 applied", "update 2 applied", "archive 2 applied"}, s.auditOf("user", u.ID))

	var list struct {
		Data  []wireUser
		Total int64
	}
	s.ok("GET", "/api/users", "", &list)
	require.Equal(t, int64(1), list.Total, "the founder")
	s.ok("GET", "/api/users?include_archived=true", "", &list)
	require.Equal(t, int64(2), list.Total)
	require.Equal(t, u, list.Data[0])
}

// TestRoleTakesEffect: a role that loses a scope, or is archived, takes it from whoever has it, and from the
// keys that they made.
func TestRoleTakesEffect(t *testing.T) {
	s := start(t, nil)
	r := s.role("writer", "records:read", "records:write", "org:admin")
	s.user("eve@acme.example", r.ID)
	eve := s.tokensOf("eve@acme.example").AccessToken
	_, key := s.key(eve, `{"name":"k","scopes":["records:write","records:read"]}`)
	for _, token := range []string{eve, key} {
		require.Equal(t, http.StatusOK, s.call("POST", create, token, `{"name":"x"}`).status)
	}
	path := fmt.Sprintf("/api/roles/%d", r.ID)
	s.ok("PATCH", path, `{"scopes":["records:read"]}`, &r)
	for _, token := range []string{eve, key} {
		require.Equal(t, "SCOPE_MISSING", s.call("POST", create, token, `{"name":"x"}`).problem(t).Reason)
		require.Equal(t, http.StatusOK, s.call("GET", create, token, "").status)
	}
	s.ok("DELETE", path, "", &r)
	require.NotNil(t, r.ArchivedAt)
	for _, token := range []string{eve, key, s.tokensOf("eve@acme.example").AccessToken} {
		require.Equal(t, "SCOPE_MISSING", s.call("GET", create, token, "").problem(t).Reason)
	}
	p := s.call("POST", "/api/users", "", fmt.Sprintf(`{"email":"x@acme.example","roles":[%d]}`, r.ID)).problem(t)
	require.Equal(t, "UNKNOWN_ROLE", p.Errors[0].Reason)
	require.Equal(t, []string{"role.pre_create", "role.post_create", "role.pre_update", "role.post_update", "role.pre_archive", "role.post_archive"}, s.history("role", r.ID).types())
}

// TestNobodyGivesWhatTheyLack: an administrator of people, who may not write records, cannot come to it by
// any way: own role, new role, new user, another's password or address or key.
func TestNobodyGivesWhatTheyLack(t *testing.T) {
	s := start(t, nil)
	people, writer := s.role("people", "org:admin", "records:read"), s.role("writer", "records:write")
	me := s.user("pat@acme.example", people.ID)
	pat := s.tokensOf("pat@acme.example").AccessToken
	admin := s.administrator()
	key, _ := s.key("", `{"name":"strong","scopes":["records:write"]}`)
	victim := s.user("vic@acme.example", writer.ID)
	for _, c := range []struct{ method, path, body string }{
		{"POST", "/api/roles", `{"name":"mine","scopes":["records:write"]}`},
		{"PATCH", fmt.Sprintf("/api/roles/%d", people.ID), `{"scopes":["org:admin","records:write"]}`},
		{"PATCH", fmt.Sprintf("/api/users/%d", me.ID), fmt.Sprintf(`{"roles":[%d]}`, writer.ID)},
		{"PATCH", fmt.Sprintf("/api/users/%d", me.ID), fmt.Sprintf(`{"roles":[%d]}`, admin)},
		{"POST", "/api/users", fmt.Sprintf(`{"email":"new@acme.example","password":%q,"roles":[%d]}`, password, writer.ID)},
		{"POST", "/api/users/invitations", fmt.Sprintf(`{"email":"new@acme.example","roles":[%d]}`, admin)},
		{"POST", fmt.Sprintf("/api/users/%d:reset-password", victim.ID), `{}`},
		{"POST", fmt.Sprintf("/api/users/%d:reset-password", s.a.UserID), `{}`},
		{"PATCH", fmt.Sprintf("/api/users/%d", victim.ID), `{"email":"pat2@acme.example"}`},
		{"POST", fmt.Sprintf("/api/api-keys/%d:rotate", key.ID), `{}`},
	} {
		a := s.call(c.method, c.path, pat, c.body)
		require.Contains(t, a.text, "SCOPE_NOT_HELD", "%s %s %s", c.method, c.path, c.body)
		require.GreaterOrEqual(t, a.status, 400)
	}
	require.Equal(t, "ROLE_BUILT_IN", s.call("PATCH", fmt.Sprintf("/api/roles/%d", admin), "", `{"name":"x"}`).problem(t).Reason)
	require.Equal(t, "ROLE_BUILT_IN", s.call("DELETE", fmt.Sprintf("/api/roles/%d", admin), "", "").problem(t).Reason)
	// What they have they can give, and what another has already stays with them.
	require.Equal(t, http.StatusOK, s.call("PATCH", fmt.Sprintf("/api/users/%d", victim.ID), pat, fmt.Sprintf(`{"roles":[%d,%d]}`, people.ID, writer.ID)).status)
}

// TestNobodyGivesBackWhatTheyLack: an archived role is still its users', so who restores it gives its scopes.
func TestNobodyGivesBackWhatTheyLack(t *testing.T) {
	s := start(t, nil)
	people, auditor := s.role("people", "org:admin", "records:write", "records:read"), s.role("auditor", "audit:read")
	s.user("pat@acme.example", people.ID, auditor.ID)
	victim := s.user("vic@acme.example", auditor.ID)
	key, secret := s.key("", `{"name":"auditor","scopes":["audit:read"]}`)
	archived := []string{fmt.Sprintf("/api/records/user/%d", victim.ID), fmt.Sprintf("/api/records/api_key/%d", key.ID), fmt.Sprintf("/api/records/role/%d", auditor.ID)}
	for _, path := range archived {
		s.ok("DELETE", path, "", nil)
	}
	for _, path := range archived {
		a := s.call("POST", path+":restore", s.tokensOf("pat@acme.example").AccessToken, "{}")
		require.Equal(t, http.StatusForbidden, a.status, path)
		p := a.problem(t)
		require.Equal(t, "SCOPE_NOT_HELD", p.Reason)
		require.Contains(t, p.Metadata["scopes"], "audit:read")
		require.Equal(t, "SCOPE_MISSING", s.call("GET", "/api/audit", s.tokensOf("pat@acme.example").AccessToken, "").problem(t).Reason)
		s.ok("POST", path+":restore", "{}", nil)
	}
	require.Equal(t, http.StatusOK, s.call("GET", "/api/audit", s.tokensOf("pat@acme.example").AccessToken, "").status)
	require.Equal(t, http.StatusOK, s.call("GET", "/api/audit", secret, "").status)
	require.Equal(t, http.StatusOK, s.login("vic@acme.example", password).status)
}

// TestBuiltInRoleStays over the routes of records too.
func TestBuiltInRoleStays(t *testing.T) {
	s := start(t, nil)
	admin, other := s.administrator(), s.role("reader", "records:read")
	path := fmt.Sprintf("/api/records/role/%d", admin)
	for _, c := range []struct{ method, path, body string }{
		{"PATCH", path, `{"name":"x"}`}, {"PATCH", path, `{"attributes":{"external_id":"x"}}`}, {"DELETE", path, ""}, {"POST", path + ":restore", "{}"},
		{"POST", "/api/records/role:batch", fmt.Sprintf(`{"operations":[{"create":{"name":"x"}},{"update":{"id":%d,"name":"x"}}]}`, admin)},
		{"POST", "/api/records/role:batch", fmt.Sprintf(`{"operations":[{"archive":{"id":%d}},{"archive":{"id":%d}}]}`, other.ID, admin)},
	} {
		a := s.call(c.method, c.path, "", c.body)
		require.Equal(t, http.StatusBadRequest, a.status, "%s %s %s: %s", c.method, c.path, c.body, a.text)
		require.Equal(t, "ROLE_BUILT_IN", a.problem(t).Reason)
	}
	require.Equal(t, admin, s.administrator())
	s.ok("PATCH", fmt.Sprintf("/api/records/role/%d", other.ID), `{"name":"x"}`, nil)
	s.ok("POST", "/api/records/role:batch", fmt.Sprintf(`{"operations":[{"archive":{"id":%d}}]}`, other.ID), nil)
}

// TestRolesOnOneConnection: who holds a connection must not wait for another.
func TestRolesOnOneConnection(t *testing.T) {
	s := start(t, func(c *Config) { c.DatabaseMaxConns = 2 })
	reader := s.role("reader", "records:read")
	u := s.user("eve@acme.example")
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	another, err := s.g.pool.Acquire(ctx)
	require.NoError(t, err)
	defer another.Release()
	_, err = identityv1.NewDirectoryServiceClient(s.conn).UpdateUser(as(ctx, s.a.APIKey), &identityv1.UpdateUserRequest{Id: u.ID, Roles: []int64{reader.ID}})
	require.NoError(t, err)
}

// TestLastAdministrator: over every route that could take the last one away.
func TestLastAdministrator(t *testing.T) {
	s := start(t, nil)
	reader, admin := s.role("reader", "records:read"), s.administrator()
	var invited struct{ User wireUser }
	s.ok("POST", "/api/users/invitations", fmt.Sprintf(`{"email":"ida@acme.example","roles":[%d]}`, admin), &invited)
	require.Equal(t, "invited", invited.User.Status)
	for _, c := range []struct{ method, path, body string }{
		{"DELETE", "/api/users/%d", ""}, {"DELETE", "/api/records/user/%d", ""},
		{"PATCH", "/api/users/%d", fmt.Sprintf(`{"roles":[%d]}`, reader.ID)}, {"PATCH", "/api/users/%d", `{"roles":[]}`},
	} {
		a := s.call(c.method, fmt.Sprintf(c.path, s.a.UserID), "", c.body)
		require.Equal(t, http.StatusBadRequest, a.status, c.path)
		require.Equal(t, "LAST_ADMINISTRATOR", a.problem(t).Reason, "who was invited has not come yet")
	}
	p := s.call("POST", "/api/records/user:batch", "", fmt.Sprintf(`{"operations":[{"archive":{"id":%d}}]}`, s.a.UserID)).problem(t)
	require.Equal(t, "LAST_ADMINISTRATOR", p.Reason)
	var me wireUser
	s.ok("GET", fmt.Sprintf("/api/users/%d", s.a.UserID), "", &me)
	require.Equal(t, []int64{admin}, me.Roles, "a refused change leaves nothing")
	dan := s.deputy()
	s.ok("DELETE", fmt.Sprintf("/api/users/%d", dan.ID), "", nil)
	require.Equal(t, "LAST_ADMINISTRATOR", s.call("DELETE", fmt.Sprintf("/api/users/%d", s.a.UserID), "", "").problem(t).Reason, "an archived one does not count")
	_, err := s.admin.Exec(t.Context(), "ALTER TABLE sametick.user_roles DISABLE TRIGGER keep_administrator")
	require.NoError(t, err, "the negative control: the trigger is what refuses")
	s.ok("PATCH", fmt.Sprintf("/api/users/%d", s.a.UserID), fmt.Sprintf(`{"roles":[%d]}`, reader.ID), &me)
}

// TestAdministratorsDemoteEachOther at the same time, again and again: one of the two is refused each time.
func TestAdministratorsDemoteEachOther(t *testing.T) {
	s := start(t, nil)
	admin := s.administrator()
	dan := s.deputy()
	api := identityv1.NewDirectoryServiceClient(s.conn)
	for range 10 {
		ann, other := s.tokensOf("ann@acme.example").AccessToken, s.tokensOf("dan@acme.example").AccessToken
		var wg sync.WaitGroup
		var first, second error
		demote := func(token string, id int64) error {
			_, err := api.UpdateUser(as(t.Context(), token), &identityv1.UpdateUserRequest{Id: id, UpdateMask: mask("roles")})
			return err
		}
		wg.Go(func() { first = demote(ann, dan.ID) })
		wg.Go(func() { second = demote(other, s.a.UserID) })
		wg.Wait()
		require.NotEqual(t, first == nil, second == nil, "%v, %v", first, second)
		left, gone := ann, dan.ID
		if first != nil {
			left, gone = other, s.a.UserID
		}
		refusal := map[bool]error{true: second, false: first}[first == nil]
		require.Contains(t, []codes.Code{codes.FailedPrecondition, codes.PermissionDenied, codes.InvalidArgument}, status.Code(refusal), refusal)
		_, err := api.UpdateUser(as(t.Context(), left), &identityv1.UpdateUserRequest{Id: gone, Roles: []int64{admin}})
		require.NoError(t, err)
	}
}

func TestOrganization(t *testing.T) {
	s := start(t, nil)
	s.user("eve@acme.example", s.role("reader", "records:read").ID)
	eve := s.tokensOf("eve@acme.example")
	var org struct {
		ID      int64
		Name    string
		Version int64
	}
	s.call("GET", "/api/organization", eve.AccessToken, "").into(t, &org)
	require.Equal(t, s.a.OrgID, org.ID)
	require.Equal(t, http.StatusForbidden, s.call("PATCH", "/api/organization", eve.AccessToken, `{"name":"x"}`).status)
	s.ok("PATCH", "/api/organization", `{"name":"Acme 2"}`, &org)
	require.Equal(t, "Acme 2", org.Name)
	require.Equal(t, "UNKNOWN_FIELD", s.call("PATCH", "/api/organization", "", `{"attributes":{}}`).problem(t).Errors[0].Reason)

	s.ok("DELETE", "/api/organization", "", nil)
	require.Equal(t, "TOKEN_REVOKED", s.call("GET", create, eve.AccessToken, "").problem(t).Reason)
	require.Equal(t, "TOKEN_INVALID", s.call("GET", create, "", "").problem(t).Reason, "keys too")
	require.Equal(t, "REFRESH_TOKEN_REVOKED", s.refresh(eve.RefreshToken).problem(t).Reason)
	require.Equal(t, "LOGIN_FAILED", s.login("ann@acme.example", password).problem(t).Reason)
	require.Equal(t, http.StatusOK, s.call("GET", "/api/organization", s.b.APIKey, "").status, "others work on")
}

// TestDirectoryOfOthers: another organisation's users and roles are not there.
func TestDirectoryOfOthers(t *testing.T) {
	s := start(t, nil)
	r := s.role("reader", "records:read")
	u := s.user("eve@acme.example", r.ID)
	for _, c := range []struct{ method, path, body string }{
		{"GET", "/api/users/%d", ""}, {"PATCH", "/api/users/%d", `{"name":"x"}`}, {"DELETE", "/api/users/%d", ""}, {"POST", "/api/users/%d:reset-password", "{}"},
		{"GET", "/api/roles/%d", ""}, {"PATCH", "/api/roles/%d", `{"name":"x"}`}, {"DELETE", "/api/roles/%d", ""}, {"POST", "/api/api-keys/%d:rotate", "{}"},
	} {
		for _, id := range []int64{u.ID, r.ID, s.a.UserID} {
			foreign, absent := s.call(c.method, fmt.Sprintf(c.path, id), s.b.APIKey, c.body), s.call(c.method, fmt.Sprintf(c.path, 999999), s.b.APIKey, c.body)
			require.Equal(t, http.StatusNotFound, foreign.status, c.path)
			x, y := foreign.problem(t), absent.problem(t)
			x.RequestID, y.RequestID, x.Metadata, y.Metadata = "", "", nil, nil
			require.Equal(t, y, x)
		}
	}
	p := s.call("POST", "/api/users", s.b.APIKey, fmt.Sprintf(`{"email":"x@bolt.example","roles":[%d]}`, r.ID)).problem(t)
	require.Equal(t, "UNKNOWN_ROLE", p.Errors[0].Reason)
	require.Equal(t, "EMAIL_TAKEN", s.call("POST", "/api/users", "", `{"email":"EVE@acme.example"}`).problem(t).Reason)
}
