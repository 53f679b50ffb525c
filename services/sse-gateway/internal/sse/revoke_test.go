package sse_test

import (
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sametick/sametick/pkg/auth"
	"github.com/sametick/sametick/pkg/event"
)

// sign makes a token of the first organisation.
func (g *gateway) sign(p auth.Principal) (string, time.Time) {
	p.OrgID, p.Scopes = g.org, auth.ScopesOf(auth.EventsRead)
	text, signed, err := g.signer.Sign(p, time.Hour)
	require.NoError(g.t, err)
	return text, signed.IssuedAt
}

// TestRevocation: what an event takes away ends those streams and no other, and does not come back by the same
// token.
func TestRevocation(t *testing.T) {
	user := func(id int64) *int64 { return &id }
	who := map[string]auth.Principal{
		"login 1 of 7":  {Subject: "user:7", SessionID: "s1"},
		"login 2 of 7":  {Subject: "user:7", SessionID: "s2"},
		"key 9 of 7":    {Subject: "api_key:9", UserID: user(7)},
		"login of 8":    {Subject: "user:8", SessionID: "s3"},
		"key of nobody": {Subject: "api_key:10"},
	}
	every := []string{"login 1 of 7", "login 2 of 7", "key 9 of 7", "login of 8", "key of nobody"}
	lost := `"changes":{"scopes":{"before":["events:read","records:read"],"after":["records:read"]}}`
	for _, c := range []struct {
		event, payload string
		id             int64
		ends           []string
	}{
		{"auth.logout", `"session_id":"s1"`, 7, []string{"login 1 of 7"}},
		{"auth.logout", `"all":true`, 7, []string{"login 1 of 7", "login 2 of 7"}},
		{"auth.password_changed", `"kept_session_id":"s2"`, 7, []string{"login 1 of 7"}},
		{"auth.password_changed", ``, 7, []string{"login 1 of 7", "login 2 of 7"}},
		{"user.post_archive", ``, 7, []string{"login 1 of 7", "login 2 of 7", "key 9 of 7"}},
		{"user.post_update", lost, 7, []string{"login 1 of 7", "login 2 of 7", "key 9 of 7"}},
		{"api_key.post_archive", ``, 9, []string{"key 9 of 7"}},
		{"api_key.rotated", `"overlap":0`, 9, []string{"key 9 of 7"}},
		{"role.post_update", lost, 50, every},
		{"role.post_archive", ``, 50, every},
		{"organization.post_archive", ``, 0, every},
		// Nothing of these takes anything.
		{"auth.login", `"session_id":"s1"`, 7, nil},
		{"user.pre_archive", ``, 7, nil},
		{"user.post_update", `"changes":{"name":{"before":"a","after":"b"}}`, 7, nil},
		{"user.post_update", `"changes":{"scopes":{"before":["records:read"],"after":["events:read"]}}`, 7, nil},
		{"role.post_update", `"changes":{"scopes":{"before":["events:read","records:read"],"after":["events:read"]}}`, 50, nil},
		{"api_key.rotated", `"overlap":60`, 9, nil},
		{"organization.post_archive", ``, 77, nil},
		{"auth.logout", `"session_id":7`, 7, nil},
	} {
		t.Run(c.event+" "+c.payload, func(t *testing.T) {
			t.Parallel()
			g := start(t, nil)
			streams, tokens := map[string]*conn{}, map[string]string{}
			var last time.Time
			for name, p := range who {
				tokens[name], last = g.sign(p)
				streams[name] = g.open("?event_type=task.*", "Authorization: Bearer "+tokens[name])
				defer streams[name].close()
				require.Equal(t, http.StatusOK, streams[name].res.StatusCode)
				g.read(streams[name])
			}
			if c.id == 0 {
				c.id = g.org
			}
			for !time.Now().Truncate(time.Millisecond).After(last) { // tokens of the same millisecond end with the others
			}
			at := time.Now().Truncate(time.Millisecond)
			payload := strings.TrimSuffix(fmt.Sprintf(`{"timestamp":%q,%s`, at.UTC().Format(event.TimeLayout), c.payload), ",") + "}"
			kind, _, _ := strings.Cut(c.event, ".")
			g.log.AppendPayload(g.org, kind, c.event, c.id, payload)
			g.emit(1)
			for !time.Now().Truncate(time.Millisecond).After(at) {
			}
			for name := range who { // before any comes back: only then the event is known to be here
				if slices.Contains(c.ends, name) {
					_, err := streams[name].next()
					require.ErrorIs(t, err, io.EOF, "%s: ended before the events that follow", name)
				} else {
					require.Len(t, g.events(streams[name], 1), 1, name)
				}
			}
			for name, p := range who {
				again := g.open("", "Authorization: Bearer "+tokens[name])
				fresh, _ := g.sign(p)
				anew := g.open("", "Authorization: Bearer "+fresh)
				ended := slices.Contains(c.ends, name)
				if ended {
					require.Equal(t, http.StatusUnauthorized, again.res.StatusCode, name)
					require.Contains(t, body(t, again), "TOKEN_REVOKED")
				} else {
					require.Equal(t, http.StatusOK, again.res.StatusCode, name)
				}
				// A new token is good, but there is no new one of a session that is over.
				overForGood := ended && c.event == "auth.logout" && strings.Contains(c.payload, "session_id")
				require.Equal(t, overForGood, anew.res.StatusCode == http.StatusUnauthorized, name)
				again.close()
				anew.close()
			}
		})
	}
}

// TestRevocationDuringReplay: a client that is still far back ends, too.
func TestRevocationDuringReplay(t *testing.T) {
	t.Parallel()
	g := start(t, nil)
	token, _ := g.sign(auth.Principal{Subject: "user:7", SessionID: "s1"})
	g.emit(5000)
	c := g.open("?last_event_id=0", "Authorization: Bearer "+token)
	defer c.close()
	g.read(c)
	g.log.AppendPayload(g.org, "user", "auth.logout", 7, `{"session_id":"s1"}`)
	g.emit(1)
	seen := 0
	for {
		m, err := c.next()
		if err != nil {
			require.ErrorIs(t, err, io.EOF)
			break
		}
		require.NotContains(t, m.data, "auth.logout")
		seen++
	}
	require.LessOrEqual(t, seen, 5001)
}
