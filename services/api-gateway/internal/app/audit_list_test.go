package app

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"

	"github.com/sametick/sametick/pkg/auth"
	"github.com/sametick/sametick/pkg/errs"
	"github.com/sametick/sametick/pkg/rpc"
	auditv1 "github.com/sametick/sametick/proto/gen/go/sametick/audit/v1"
	relayv1 "github.com/sametick/sametick/proto/gen/go/sametick/relay/v1"
)

type wireEntries struct {
	Data []struct {
		ID            int64
		OrgID         int64  `json:"org_id"`
		ActorID       *int64 `json:"actor_id"`
		Action        string
		Outcome       string
		AggregateType string  `json:"aggregate_type"`
		AggregateID   int64   `json:"aggregate_id"`
		EventIDs      []int64 `json:"event_ids"`
		Changes       json.RawMessage
		RequestID     *string `json:"request_id"`
		OccurredAt    string  `json:"occurred_at"`
	}
	Total      int64
	NextCursor *string `json:"next_cursor"`
}

func TestAuditEntries(t *testing.T) {
	s := start(t, nil)
	var task wireRecord
	s.ok("POST", create, `{"name":"one"}`, &task)
	s.ok("PATCH", fmt.Sprintf("%s/%d", create, task.ID), `{"name":"two"}`, nil)
	for range 5 {
		s.ok("POST", create, `{"name":"more"}`, nil)
	}
	var list wireEntries
	s.ok("GET", fmt.Sprintf("/api/audit?aggregate_type=task&aggregate_id=%d", task.ID), "", &list)
	require.EqualValues(t, 2, list.Total)
	require.Nil(t, list.NextCursor)
	update := list.Data[0]
	require.Equal(t, []any{"update", "applied", s.a.OrgID}, []any{update.Action, update.Outcome, update.OrgID})
	require.JSONEq(t, `{"name":{"before":"one","after":"two"}}`, string(update.Changes))
	require.Equal(t, "null", string(list.Data[1].Changes))
	require.Len(t, update.EventIDs, 2)
	require.Regexp(t, `^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$`, update.OccurredAt)

	for query, want := range map[string]int64{
		"action=create&aggregate_type=task": 6, "action=update": 1, "outcome=rejected": 0, "outcome=applied&aggregate_type=task": 7,
		fmt.Sprint("actor_id=", *update.ActorID, "&aggregate_type=task"): 7, "actor_id=99999": 0, "from=2999-01-01": 0, "to=2999-01-01&aggregate_type=task": 7,
		"from=" + url.QueryEscape(update.OccurredAt) + "&action=update": 0, "request_id=" + *update.RequestID: 1, "request_id=nobody": 0,
	} {
		s.ok("GET", "/api/audit?"+query, "", &list)
		require.Equal(t, want, list.Total, query)
		require.Len(t, list.Data, int(want), query)
	}

	var pages, cursors []int64
	for page := 1; page <= 4; page++ {
		s.ok("GET", fmt.Sprintf("/api/audit?aggregate_type=task&limit=2&page=%d", page), "", &list)
		require.EqualValues(t, 7, list.Total)
		for _, e := range list.Data {
			pages = append(pages, e.ID)
		}
	}
	for path := "/api/audit?aggregate_type=task&limit=2"; ; path = "/api/audit?aggregate_type=task&limit=2&cursor=" + *list.NextCursor {
		list.NextCursor = nil
		s.ok("GET", path, "", &list)
		require.EqualValues(t, 7, list.Total, "of the whole list, at any page")
		for _, e := range list.Data {
			cursors = append(cursors, e.ID)
		}
		if list.NextCursor == nil {
			break
		}
	}
	require.Len(t, pages, 7)
	require.Equal(t, pages, cursors)
	require.IsDecreasing(t, pages)
	var one json.RawMessage
	s.ok("GET", fmt.Sprintf("/api/audit/%d", update.ID), "", &one)
	require.Contains(t, string(one), `"two"`)
}

func TestAuditRefuses(t *testing.T) {
	s := start(t, nil)
	for query, field := range map[string]string{
		"outcome=odd": "outcome", "action=A": "action", "aggregate_type=%27": "aggregate_type", "aggregate_id=0": "aggregate_id", "actor_id=-1": "actor_id",
		"from=yesterday": "from", "from=2026-02-01&to=2026-01-01": "from", "request_id=" + strings.Repeat("x", 201): "request_id",
		"cursor=!": "cursor", "cursor=AAAA": "cursor", "cursor=Cg": "cursor", "cursor=MTA&page=2": "page", "limit=101": "limit", "page=0": "page", "order=asc": "order",
	} {
		for _, path := range []string{"/api/audit", "/api/audit/export"} {
			a := s.call("GET", path+"?"+query, "", "")
			require.Equal(t, http.StatusBadRequest, a.status, path+query+a.text)
			p := a.problem(t)
			require.Equal(t, "INVALID_REQUEST", p.Reason)
			require.Equal(t, field, p.Errors[0].Field, path+"?"+query)
			if strings.HasPrefix(query, "cursor") || strings.HasPrefix(query, "limit") || strings.HasPrefix(query, "page") {
				break // an export has no pages
			}
		}
	}
	token, _, err := s.signer.Sign(auth.Principal{OrgID: s.a.OrgID, Subject: "user:1", Scopes: auth.ScopesOf(auth.AllScopes()...) &^ auth.ScopesOf(auth.AuditRead)}, 1e12)
	require.NoError(t, err)
	for _, path := range []string{"/api/audit", "/api/audit/1", "/api/audit/export", "/api/audit/proofs/head", "/api/audit/proofs/inclusion/1", "/api/audit/proofs/consistency?from=1&to=1"} {
		require.Equal(t, "SCOPE_MISSING", s.call("GET", path, token, "").problem(t).Reason, path)
		require.Equal(t, "TOKEN_MISSING", s.call("GET", path, "-", "").problem(t).Reason, path)
	}
	require.Equal(t, "ENTRY_NOT_FOUND", s.call("GET", "/api/audit/99999999", "", "").problem(t).Reason)
	require.Equal(t, "PROOFS_UNAVAILABLE", s.call("GET", "/api/audit/proofs/head", "", "").problem(t).Reason, "no relay runs here")
	var n int
	require.NoError(t, s.admin.QueryRow(t.Context(), "SELECT count(*) FROM sametick.audit_entries WHERE action = 'exported'").Scan(&n))
	require.Zero(t, n, "what is refused is no export")
}

// TestAuditExport: more than a page and a buffer, each entry once and no one else's, the export on record; the same over gRPC.
func TestAuditExport(t *testing.T) {
	s := start(t, nil)
	_, err := s.admin.Exec(t.Context(), `SELECT sametick.record_event($1, 'task', i, 'post_update', record_name => repeat('x', 200), changes => jsonb_build_object('a', repeat('y', 1000))) FROM generate_series(1, 350) i`, s.a.OrgID)
	require.NoError(t, err)
	a := s.call("GET", "/api/audit/export?aggregate_type=task", "", "")
	require.Equal(t, http.StatusOK, a.status, a.text)
	require.Equal(t, "application/x-ndjson", a.header.Get("Content-Type"))
	var ids []int64
	for lines := bufio.NewScanner(strings.NewReader(a.text)); lines.Scan(); {
		var e struct {
			ID    int64
			OrgID int64 `json:"org_id"`
		}
		require.NoError(t, json.Unmarshal(lines.Bytes(), &e))
		require.Equal(t, s.a.OrgID, e.OrgID)
		ids = append(ids, e.ID)
	}
	require.Len(t, ids, 350)
	require.IsIncreasing(t, ids)
	var events wireEvents
	s.ok("GET", "/api/events?event_type=audit.exported", "", &events)
	require.EqualValues(t, 1, events.Total)
	require.Equal(t, map[string]any{"aggregate_type": "task"}, events.Data[0].Payload["filter"])
	require.NotNil(t, events.Data[0].Payload["actor_id"])

	require.Empty(t, s.call("GET", "/api/audit/export?aggregate_type=task", s.b.APIKey, "").text, "B has none of A's")
	stream, err := auditv1.NewAuditServiceClient(s.conn).ExportEntries(as(t.Context(), s.a.APIKey), &auditv1.ExportEntriesRequest{AggregateType: "task"})
	require.NoError(t, err)
	for _, id := range ids {
		e, err := stream.Recv()
		require.NoError(t, err)
		require.Equal(t, id, e.GetId())
	}
}

// prover is a relay that has a proof of everything.
type prover struct {
	relayv1.UnimplementedAuditLogServiceServer
}

func (prover) GetAuditHead(context.Context, *relayv1.GetAuditHeadRequest) (*relayv1.GetAuditHeadResponse, error) {
	return &relayv1.GetAuditHeadResponse{Size: 9, Head: "signed"}, nil
}

func (prover) ProveInclusion(_ context.Context, r *relayv1.ProveInclusionRequest) (*relayv1.ProveInclusionResponse, error) {
	if r.GetEntryId()%2 == 0 {
		return nil, errs.New(errs.Unavailable, "NOT_SEALED", "the entry is not sealed yet").WithRetryAfter(1e9)
	}
	return &relayv1.ProveInclusionResponse{Leaf: r.GetEntryId(), Salt: "s", Hashes: []string{"h"}, Head: "signed"}, nil
}

func (prover) ProveConsistency(context.Context, *relayv1.ProveConsistencyRequest) (*relayv1.ProveConsistencyResponse, error) {
	return nil, errs.New(errs.Invalid, "INVALID_REQUEST", "no").WithField("to", "OUT_OF_RANGE", "less")
}

// TestProofsAreTheOwners: an entry's proof is for its organisation alone, and what the relay refuses is passed on.
func TestProofsAreTheOwners(t *testing.T) {
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	unary, _ := rpc.InternalAuth("0123456789abcdef")
	relay := grpc.NewServer(grpc.ChainUnaryInterceptor(func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
		res, err := next(ctx, req)
		if err != nil {
			err = errs.From(err).GRPCStatus().Err()
		}
		return res, err
	}, unary))
	relayv1.RegisterAuditLogServiceServer(relay, prover{})
	served := make(chan error, 1)
	go func() { served <- relay.Serve(l) }()
	t.Cleanup(func() { relay.Stop(); require.NoError(t, <-served) })
	s := start(t, func(c *Config) { c.RelayAddr = l.Addr().String() })

	for range 2 { // an odd and an even id
		s.ok("POST", create, `{"name":"x"}`, nil)
	}
	var list wireEntries
	s.ok("GET", "/api/audit?aggregate_type=task", "", &list)
	for _, e := range list.Data {
		path := fmt.Sprintf("/api/audit/proofs/inclusion/%d", e.ID)
		a := s.call("GET", path, "", "")
		if e.ID%2 == 0 {
			require.Equal(t, "NOT_SEALED", a.problem(t).Reason)
			require.Equal(t, "1", a.header.Get("Retry-After"))
		} else {
			require.JSONEq(t, fmt.Sprintf(`{"entry_id":%d,"leaf":%d,"salt":"s","hashes":["h"],"head":"signed"}`, e.ID, e.ID), a.text)
		}
		for _, path := range []string{"/api/audit/%d", "/api/audit/proofs/inclusion/%d"} {
			foreign, absent := s.call("GET", fmt.Sprintf(path, e.ID), s.b.APIKey, ""), s.call("GET", fmt.Sprintf(path, 99999999), s.b.APIKey, "")
			require.Equal(t, http.StatusNotFound, foreign.status)
			x, y := foreign.problem(t), absent.problem(t)
			x.RequestID, y.RequestID = "", ""
			require.Equal(t, y, x, "foreign is as absent")
		}
	}
	require.JSONEq(t, `{"size":9,"head":"signed"}`, s.call("GET", "/api/audit/proofs/head", "", "").text)
	require.Equal(t, "to", s.call("GET", "/api/audit/proofs/consistency?from=1&to=99", "", "").problem(t).Errors[0].Field)
}
