package app

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/sametick/sametick/pkg/auth"
	identityv1 "github.com/sametick/sametick/proto/gen/go/sametick/identity/v1"
)

const otherPassword = "a better battery staple"

type wireSessions struct {
	Data []struct {
		ID         string
		Current    bool
		UserAgent  string `json:"user_agent"`
		IP         string
		CreatedAt  time.Time `json:"created_at"`
		LastUsedAt time.Time `json:"last_used_at"`
		ExpiresAt  time.Time `json:"expires_at"`
	}
	Total int64
}

func (s *suite) sessions(token string) (list wireSessions) {
	a := s.call("GET", "/api/auth/sessions", token, "")
	require.Equal(s.t, http.StatusOK, a.status, a.text)
	a.into(s.t, &list)
	return list
}

// alive tells whether a token still opens anything.
func (s *suite) alive(token string) bool {
	a := s.call("GET", "/api/organization", token, "")
	if a.status != http.StatusOK {
		require.Equal(s.t, "TOKEN_REVOKED", a.problem(s.t).Reason)
	}
	return a.status == http.StatusOK
}

func TestSessionsEnd(t *testing.T) {
	s := start(t, nil)
	one, two, three := s.session(), s.session(), s.session()
	list := s.sessions(two.AccessToken)
	require.Equal(t, int64(3), list.Total)
	require.Equal(t, []bool{false, true, false}, []bool{list.Data[0].Current, list.Data[1].Current, list.Data[2].Current}, "newest first")
	require.Equal(t, "127.0.0.1", list.Data[0].IP)
	require.Contains(t, list.Data[0].UserAgent, "Go-http-client")
	require.WithinDuration(t, time.Now().Add(24*time.Hour), list.Data[0].ExpiresAt, time.Minute)
	oldest := list.Data[2].ID

	// A refresh moves its session to the front; its older access token goes on.
	var next wireTokens
	s.refresh(one.RefreshToken).into(t, &next)
	require.Equal(t, oldest, s.sessions(two.AccessToken).Data[0].ID)
	require.True(t, s.alive(one.AccessToken))

	// Logging out ends the access tokens at once, of this session alone.
	require.Equal(t, http.StatusOK, s.call("POST", "/api/auth/logout", "-", fmt.Sprintf(`{"refresh_token":%q}`, next.RefreshToken)).status)
	require.False(t, s.alive(one.AccessToken))
	require.False(t, s.alive(next.AccessToken))
	require.True(t, s.alive(two.AccessToken))

	// One by its id; not another user's, which is as if absent.
	id := s.sessions(three.AccessToken).Data[0].ID
	s.user("eve@acme.example")
	eve := s.tokensOf("eve@acme.example").AccessToken
	for _, path := range []string{id, oldest, "00000000-0000-0000-0000-000000000000", "nonsense"} {
		require.Equal(t, "SESSION_NOT_FOUND", s.call("DELETE", "/api/auth/sessions/"+path, eve, "").problem(t).Reason, path)
	}
	require.Equal(t, http.StatusOK, s.call("DELETE", "/api/auth/sessions/"+id, two.AccessToken, "").status)
	require.False(t, s.alive(three.AccessToken))
	require.Equal(t, "REFRESH_TOKEN_REVOKED", s.refresh(three.RefreshToken).problem(t).Reason)

	// All of them, by either route.
	four := s.session()
	require.Equal(t, http.StatusOK, s.call("POST", "/api/auth/logout", "-", fmt.Sprintf(`{"refresh_token":%q,"all":true}`, four.RefreshToken)).status)
	require.False(t, s.alive(two.AccessToken))
	require.Equal(t, "REFRESH_TOKEN_REVOKED", s.refresh(two.RefreshToken).problem(t).Reason)
	five, six := s.session(), s.session()
	require.Equal(t, http.StatusOK, s.call("DELETE", "/api/auth/sessions", five.AccessToken, "").status)
	require.False(t, s.alive(five.AccessToken))
	require.False(t, s.alive(six.AccessToken))
	require.True(t, s.alive(eve))
	require.Equal(t, "USER_REQUIRED", s.call("DELETE", "/api/auth/sessions", "", "").problem(t).Reason, "a key has no sessions")

	var said []string
	for _, e := range s.history("user", s.a.UserID).Data {
		if e.EventType == "auth.logout" {
			said = append(said, fmt.Sprint(e.Payload["session_id"], " ", e.Payload["all"]))
		}
	}
	require.Equal(t, []string{oldest + " <nil>", id + " <nil>", "<nil> true", "<nil> true"}, said)
}

// TestRevokedOnOtherReplicas: another replica believes what it knows for a while, and no longer.
func TestRevokedOnOtherReplicas(t *testing.T) {
	s := start(t, nil)
	session := s.session()
	require.True(t, s.alive(session.AccessToken))
	_, err := s.admin.Exec(t.Context(), "UPDATE sametick.sessions SET revoked_at = now()") // as another replica does
	require.NoError(t, err)
	require.True(t, s.alive(session.AccessToken), "known; the negative control of what follows")
	s.g.checker.Clear() // as time does, see identity.TestStandingIsAskedAgain
	require.False(t, s.alive(session.AccessToken))
}

func (s *suite) changePassword(token, current, next string) answer {
	body, err := json.Marshal(map[string]string{"current_password": current, "new_password": next})
	require.NoError(s.t, err)
	return s.call("POST", "/api/auth/password", token, string(body))
}

func TestChangePassword(t *testing.T) {
	s := start(t, nil)
	mine, other := s.session(), s.session()
	for _, c := range []struct{ current, next, reason string }{
		{password, "short", "OUT_OF_RANGE"}, {password, strings.Repeat("x", 1025), "OUT_OF_RANGE"}, {password, "Password1", "TOO_COMMON"},
		{password, "aaaaaaaaaaaa", "TOO_COMMON"}, {password, "Ann@Acme.example", "GUESSABLE"}, {password, password, "UNCHANGED"},
		{"", otherPassword, "OUT_OF_RANGE"},
	} {
		p := s.changePassword(mine.AccessToken, c.current, c.next).problem(t)
		require.Equal(t, c.reason, p.Errors[0].Reason, c.next)
		require.NotContains(t, fmt.Sprint(p), c.next+" ")
	}
	require.Equal(t, "PASSWORD_WRONG", s.changePassword(mine.AccessToken, "wrong", otherPassword).problem(t).Reason)
	require.Equal(t, "USER_REQUIRED", s.changePassword("", password, otherPassword).problem(t).Reason, "not by a key")
	require.True(t, s.alive(other.AccessToken))

	a := s.changePassword(mine.AccessToken, password, otherPassword)
	require.Equal(t, "{}", a.text)
	require.True(t, s.alive(mine.AccessToken), "the session that did it goes on")
	require.Equal(t, http.StatusOK, s.refresh(mine.RefreshToken).status)
	require.False(t, s.alive(other.AccessToken))
	require.Equal(t, "REFRESH_TOKEN_REVOKED", s.refresh(other.RefreshToken).problem(t).Reason)
	require.Equal(t, "LOGIN_FAILED", s.login("ann@acme.example", password).problem(t).Reason)
	require.Equal(t, http.StatusOK, s.login("ann@acme.example", otherPassword).status)
	h := s.history("user", s.a.UserID)
	changed := h.Data[len(h.Data)-2]
	require.Equal(t, "auth.password_changed", changed.EventType)
	require.NotEmpty(t, changed.Payload["kept_session_id"])
	var secrets int
	require.NoError(t, s.admin.QueryRow(t.Context(), `SELECT count(*) FROM sametick.events e, sametick.audit_entries a
		WHERE position('argon2' IN e::text || a::text) > 0 OR position($1 IN e::text || a::text) > 0`, otherPassword).Scan(&secrets))
	require.Zero(t, secrets)
	require.NotContains(t, s.log.String(), otherPassword)
}

// TestPasswordChangesAtOnce: of two changes from the same password one is refused.
func TestPasswordChangesAtOnce(t *testing.T) {
	s := start(t, nil)
	api, session := identityv1.NewIdentityServiceClient(s.conn), s.session()
	var wg sync.WaitGroup
	outcomes := make([]codes.Code, 4)
	for i := range outcomes {
		wg.Go(func() {
			_, err := api.ChangePassword(as(t.Context(), session.AccessToken), &identityv1.ChangePasswordRequest{CurrentPassword: password, NewPassword: fmt.Sprint(otherPassword, i)})
			outcomes[i] = status.Code(err)
		})
	}
	wg.Wait()
	good := 0
	for i, c := range outcomes {
		if c == codes.OK {
			good++
			require.Equal(t, http.StatusOK, s.login("ann@acme.example", fmt.Sprint(otherPassword, i)).status)
		}
	}
	require.Equal(t, 1, good, outcomes)
}

func (s *suite) redeem(path, token, password string) answer {
	body, err := json.Marshal(map[string]string{"token": token, "password": password})
	require.NoError(s.t, err)
	return s.call("POST", path, "-", string(body))
}

func TestInvitation(t *testing.T) {
	s := start(t, nil)
	const accept = "/api/auth/invitations/accept"
	r := s.role("reader", "records:read")
	invite := func(email string) (made struct {
		User      wireUser
		Token     string
		ExpiresAt time.Time `json:"expires_at"`
	}) {
		s.ok("POST", "/api/users/invitations", fmt.Sprintf(`{"email":%q,"roles":[%d]}`, email, r.ID), &made)
		return made
	}
	made := invite("ida@acme.example")
	require.True(t, strings.HasPrefix(made.Token, "sti_"))
	require.Equal(t, "invited", made.User.Status)
	require.WithinDuration(t, time.Now().Add(7*24*time.Hour), made.ExpiresAt, time.Minute)
	h := s.history("user", made.User.ID)
	require.Equal(t, []string{"user.pre_create", "user.post_create", "user.invited"}, h.types())
	require.Equal(t, "ida@acme.example", h.Data[2].Payload["email"])
	require.Equal(t, "LOGIN_FAILED", s.login("ida@acme.example", "x").problem(t).Reason)

	require.Equal(t, "TOKEN_INVALID", s.redeem(accept, "sti_nonsense", password).problem(t).Reason)
	require.Equal(t, "TOKEN_INVALID", s.redeem("/api/auth/password/reset", made.Token, password).problem(t).Reason, "of another purpose")
	require.Equal(t, "GUESSABLE", s.redeem(accept, made.Token, "ida@acme.example").problem(t).Errors[0].Reason, "a refused password uses nothing up")
	var tokens wireTokens
	s.redeem(accept, made.Token, password).into(t, &tokens)
	require.Equal(t, http.StatusOK, s.call("GET", create, tokens.AccessToken, "").status)
	require.Equal(t, http.StatusOK, s.refresh(tokens.RefreshToken).status)
	require.Equal(t, "TOKEN_USED", s.redeem(accept, made.Token, otherPassword).problem(t).Reason)
	require.Equal(t, http.StatusOK, s.login("ida@acme.example", password).status)
	require.Equal(t, []string{"user.joined", "auth.login", "auth.login"}, s.history("user", made.User.ID).types()[3:])
	require.Equal(t, "EMAIL_TAKEN", s.call("POST", "/api/users/invitations", "", `{"email":"IDA@acme.example"}`).problem(t).Reason)

	late := invite("late@acme.example")
	_, err := s.admin.Exec(t.Context(), "UPDATE sametick.user_tokens SET expires_at = now() - interval '1 ms' WHERE hash = $1", auth.HashSecret(late.Token))
	require.NoError(t, err)
	require.Equal(t, "TOKEN_EXPIRED", s.redeem(accept, late.Token, password).problem(t).Reason)
	gone := invite("gone@acme.example")
	s.ok("DELETE", fmt.Sprintf("/api/users/%d", gone.User.ID), "", nil)
	require.Equal(t, "TOKEN_INVALID", s.redeem(accept, gone.Token, password).problem(t).Reason, "an archived user's")

	for _, secret := range []string{made.Token, late.Token, tokens.RefreshToken} {
		var found int
		require.NoError(t, s.admin.QueryRow(t.Context(), `SELECT (SELECT count(*) FROM sametick.user_tokens q WHERE position($1 IN q::text) > 0)
			+ (SELECT count(*) FROM sametick.events q WHERE position($1 IN q::text) > 0) + (SELECT count(*) FROM sametick.audit_entries q WHERE position($1 IN q::text) > 0)`,
			secret).Scan(&found))
		require.Zero(t, found, "only hashes are kept, and events have no secrets")
		require.NotContains(t, s.log.String(), secret)
	}
}

// TestInvitationIsAcceptedOnce by many at the same time.
func TestInvitationIsAcceptedOnce(t *testing.T) {
	s := start(t, nil)
	var made struct{ Token string }
	s.ok("POST", "/api/users/invitations", `{"email":"ida@acme.example"}`, &made)
	api := identityv1.NewIdentityServiceClient(s.conn)
	var wg sync.WaitGroup
	outcomes := make([]error, 6)
	for i := range outcomes {
		wg.Go(func() {
			_, outcomes[i] = api.AcceptInvitation(t.Context(), &identityv1.AcceptInvitationRequest{Token: made.Token, Password: fmt.Sprint(password, i)})
		})
	}
	wg.Wait()
	good := 0
	for i, err := range outcomes {
		if err == nil {
			good++
			require.Equal(t, http.StatusOK, s.login("ida@acme.example", fmt.Sprint(password, i)).status)
		} else {
			require.Equal(t, codes.Unauthenticated, status.Code(err))
		}
	}
	require.Equal(t, 1, good)
}

func TestResetPassword(t *testing.T) {
	s := start(t, nil)
	const reset = "/api/auth/password/reset"
	session := s.session()
	path := fmt.Sprintf("/api/users/%d:reset-password", s.a.UserID)
	var first, second struct{ Token string }
	s.ok("POST", path, `{}`, &first)
	s.ok("POST", path, `{}`, &second)
	require.True(t, s.alive(session.AccessToken), "asking changes nothing")
	require.Equal(t, "TOKEN_EXPIRED", s.redeem(reset, first.Token, otherPassword).problem(t).Reason, "the newer one replaced it")
	require.Equal(t, "{}", s.redeem(reset, second.Token, otherPassword).text)
	require.Equal(t, "TOKEN_USED", s.redeem(reset, second.Token, otherPassword).problem(t).Reason)
	require.False(t, s.alive(session.AccessToken))
	require.Equal(t, "REFRESH_TOKEN_REVOKED", s.refresh(session.RefreshToken).problem(t).Reason)
	require.Equal(t, "LOGIN_FAILED", s.login("ann@acme.example", password).problem(t).Reason)
	require.Equal(t, http.StatusOK, s.login("ann@acme.example", otherPassword).status)
	require.Equal(t, []string{"auth.login", "user.password_reset_started", "user.password_reset_started", "auth.password_changed", "auth.login"},
		s.history("user", s.a.UserID).types()[2:])
	var third struct{ Token string }
	s.ok("POST", path, `{}`, &third)
	require.Equal(t, http.StatusOK, s.changePassword(s.tokensOfWith("ann@acme.example", otherPassword), otherPassword, password).status)
	require.Equal(t, "TOKEN_EXPIRED", s.redeem(reset, third.Token, otherPassword).problem(t).Reason, "a change makes open resets void")
}

func (s *suite) tokensOfWith(email, password string) string {
	var tokens wireTokens
	s.login(email, password).into(s.t, &tokens)
	return tokens.AccessToken
}
