package app

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// A number of five characters that Postgres writes out as 309 digits must not carry a record or an
// event past the limits that every reader stands on: 256 KiB of attributes, 8 MiB for a page of the
// position log (sse-gateway's maxPage), 16 MiB for tick.
func TestNumbersDoNotGrow(t *testing.T) {
	s := start(t, nil)
	var made struct{ ID int64 }
	s.ok("POST", "/api/records/task", `{"name":"x"}`, &made)
	bomb := `{"attributes":{"a":[` + strings.Repeat("1e308,", 43_000) + `1]}}`
	require.Less(t, len(bomb), 256<<10)
	a := s.call("PATCH", fmt.Sprintf("/api/records/task/%d", made.ID), "", bomb)
	if a.status != http.StatusOK {
		return // refused: fine
	}
	var largest int64
	require.NoError(t, s.admin.QueryRow(t.Context(), `SELECT max(length(payload::text)) FROM sametick.events`).Scan(&largest))
	require.LessOrEqual(t, largest, int64(8<<20), "an event that no reader of the log can be sent (answer of the PATCH: %d bytes)", len(a.text))
}

// An update that changes nothing fires no event, however a number is written.
func TestSameNumberIsNoChange(t *testing.T) {
	s := start(t, nil)
	for _, number := range []string{"1e2", "1E+2", "-0", "0.10e1", "100"} {
		var r struct{ ID, Version int64 }
		body := `{"name":"x","attributes":{"n":` + number + `}}`
		s.ok("POST", "/api/records/task", body, &r)
		s.ok("PATCH", fmt.Sprintf("/api/records/task/%d", r.ID), `{"attributes":{"n":`+number+`}}`, &r)
		if r.Version != 1 {
			t.Errorf("the same patch with %s made version %d", number, r.Version)
		}
	}
}

// A key that is archived over any route is dead at once on the replica that archived it.
func TestArchivedKeyIsDead(t *testing.T) {
	for _, route := range []string{"/api/api-keys/%d", "/api/records/api_key/%d"} {
		t.Run(route, func(t *testing.T) {
			s := start(t, nil)
			var key struct {
				APIKey struct{ ID int64 } `json:"api_key"`
				Secret string
			}
			s.ok("POST", "/api/api-keys", `{"name":"k","scopes":["events:read"]}`, &key)
			require.Equal(t, 200, s.call("GET", "/api/events", key.Secret, "").status)
			s.ok("DELETE", fmt.Sprintf(route, key.APIKey.ID), "", nil)
			require.Equal(t, 401, s.call("GET", "/api/events", key.Secret, "").status)
		})
	}
}

// A user who is archived takes their keys with them at once, like a key that is archived itself.
func TestArchivedUserTakesKeysAlong(t *testing.T) {
	s := start(t, nil)
	require.Equal(t, 200, s.call("GET", "/api/events", "", "").status)
	s.deputy()
	s.ok("DELETE", fmt.Sprintf("/api/records/user/%d", s.a.UserID), "", nil)
	require.Equal(t, 401, s.call("GET", "/api/events", "", "").status)
}
