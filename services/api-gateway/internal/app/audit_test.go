package app

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

type wireEntry struct {
	ID            int64
	OrgID         int64  `json:"org_id"`
	ActorID       *int64 `json:"actor_id"`
	Action        string
	Outcome       string
	AggregateType string  `json:"aggregate_type"`
	AggregateID   int64   `json:"aggregate_id"`
	EventIDs      []int64 `json:"event_ids"`
	Changes       map[string]struct{ Before, After any }
	RequestID     *string `json:"request_id"`
	OccurredAt    string  `json:"occurred_at"`
}

type wireAudit struct {
	Data  []wireEntry
	Total int64
	Next  *string `json:"next_cursor"`
}

func TestAudit(t *testing.T) {
	s := start(t, nil)
	var r wireRecord
	s.ok("POST", "/api/records/task", `{"name":"a"}`, &r)
	path := fmt.Sprintf("/api/records/task/%d", r.ID)
	for i := range 5 {
		s.ok("PATCH", path, fmt.Sprintf(`{"name":"b%d"}`, i), nil)
	}
	s.ok("DELETE", path, "", nil)
	var list, rest wireAudit
	s.ok("GET", fmt.Sprintf("/api/audit?aggregate_type=task&aggregate_id=%d&limit=4", r.ID), "", &list)
	require.EqualValues(t, 7, list.Total)
	require.Equal(t, "archive", list.Data[0].Action)
	require.Equal(t, "b4", list.Data[1].Changes["name"].After)
	require.Len(t, list.Data[0].EventIDs, 2)
	require.Equal(t, s.a.UserID, *list.Data[0].ActorID)
	s.ok("PATCH", "/api/organization", `{"name":"meanwhile"}`, nil)
	s.ok("GET", fmt.Sprintf("/api/audit?aggregate_type=task&aggregate_id=%d&limit=4&cursor=%s", r.ID, *list.Next), "", &rest)
	require.Len(t, rest.Data, 3)
	require.Equal(t, "create", rest.Data[2].Action)
	require.Nil(t, rest.Next)
	for query, want := range map[string]int64{"action=update&aggregate_type=task": 5, "outcome=failed": 0, "request_id=" + url.QueryEscape(*list.Data[0].RequestID): 1,
		"from=2999-01-01": 0, fmt.Sprintf("actor_id=%d&aggregate_type=task&to=2999-01-01", s.a.UserID): 7} {
		var found wireAudit
		s.ok("GET", "/api/audit?"+query, "", &found)
		require.Equal(t, want, found.Total, query)
	}
	one := fmt.Sprintf("/api/audit/%d", list.Data[0].ID)
	var entry wireEntry
	s.ok("GET", one, "", &entry)
	require.Equal(t, list.Data[0], entry)

	// Another organisation's entry is absent, and so is its proof; without the relay proofs are away, not broken.
	for _, p := range []string{one, fmt.Sprintf("/api/audit/proofs/inclusion/%d", entry.ID)} {
		require.Equal(t, http.StatusNotFound, s.call("GET", p, s.b.APIKey, "").status, p)
	}
	require.Equal(t, http.StatusServiceUnavailable, s.call("GET", "/api/audit/proofs/head", "", "").status)
	for query, field := range map[string]string{"outcome=good": "outcome", "action=No": "action", "cursor=x": "cursor", "cursor=" + *list.Next + "&page=2": "page",
		"from=2026-02-01&to=2026-01-01": "from", "aggregate_id=0": "aggregate_id", "limit=101": "limit"} {
		require.Equal(t, field, s.call("GET", "/api/audit?"+query, "", "").problem(t).Errors[0].Field, query)
	}

	export := s.call("GET", "/api/audit/export?aggregate_type=task", "", "")
	require.Equal(t, "application/x-ndjson", export.header.Get("Content-Type"), export.text)
	var ids []int64
	for lines := bufio.NewScanner(strings.NewReader(export.text)); lines.Scan(); {
		var e wireEntry
		require.NoError(t, json.Unmarshal(lines.Bytes(), &e))
		ids = append(ids, e.ID)
	}
	require.Len(t, ids, 7)
	require.Less(t, ids[0], ids[6])
	var told wireEvents
	s.ok("GET", "/api/events?event_type=audit.exported", "", &told)
	require.EqualValues(t, 1, told.Total, "who exported it is in it")
	require.Equal(t, "outcome", s.call("GET", "/api/audit/export?outcome=x", "", "").problem(t).Errors[0].Field)
	require.Equal(t, http.StatusUnauthorized, s.call("GET", "/api/audit/export", "-", "").status)
}
