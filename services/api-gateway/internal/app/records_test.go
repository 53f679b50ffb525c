package app

import (
	"fmt"
	"net/http"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sametick/sametick/pkg/event"
	eventsv1 "github.com/sametick/sametick/proto/gen/go/sametick/events/v1"
	recordsv1 "github.com/sametick/sametick/proto/gen/go/sametick/records/v1"
	wirev1 "github.com/sametick/sametick/proto/gen/go/sametick/wire/v1"
)

// auditOf gives the actions of an entity's audit entries, with how many events each names.
func (s *suite) auditOf(typ string, id int64) (list []string) {
	rows, err := s.admin.Query(s.t.Context(), `SELECT action || ' ' || cardinality(event_ids) || ' ' || outcome FROM sametick.audit_entries
		WHERE aggregate_type = $1 AND aggregate_id = $2 ORDER BY id`, typ, id)
	require.NoError(s.t, err)
	defer rows.Close()
	for rows.Next() {
		var line string
		require.NoError(s.t, rows.Scan(&line))
		list = append(list, line)
	}
	require.NoError(s.t, rows.Err())
	return list
}

// recordTypes are the built-in types but for the one whose entities webhook-worker keeps.
func recordTypes() []string {
	return slices.DeleteFunc(event.Types(), func(typ string) bool { return typ == "webhook_endpoint" })
}

// TestManagedElsewhere: no record is made, shown or changed of what another service keeps.
func TestManagedElsewhere(t *testing.T) {
	s := start(t, nil)
	before := s.count("events")
	for _, c := range [][3]string{{"POST", "", `{"name":"x"}`}, {"GET", "", ""}, {"GET", "/1", ""}, {"PATCH", "/1", `{"name":"x"}`}, {"DELETE", "/1", ""},
		{"POST", "/1:restore", "{}"}, {"POST", ":batch", `{"operations":[{"create":{"name":"x"}}]}`}, {"POST", ":export", "{}"}} {
		a := s.call(c[0], "/api/records/webhook_endpoint"+c[1], "", c[2])
		require.Equal(t, http.StatusBadRequest, a.status, "%s %s: %s", c[0], c[1], a.text)
		p := a.problem(t)
		require.Equal(t, "MANAGED_ELSEWHERE", p.Reason)
		require.Equal(t, "/api/webhooks/endpoints", p.Metadata["use"])
	}
	require.Equal(t, before, s.count("events"))
	var history wireEvents
	s.ok("GET", "/api/events?aggregate_type=webhook_endpoint", "", &history)
	down := s.call("GET", "/api/webhooks/endpoints", "", "")
	require.Equal(t, http.StatusServiceUnavailable, down.status, "no webhook-worker is here")
	require.Equal(t, "SERVICE_DOWN", down.problem(t).Reason)
	require.NotEmpty(t, down.header.Get("Retry-After"))
	require.Equal(t, "INVALID_VALUE", s.call("GET", "/api/webhooks/deliveries?endpoint_id=1&from=yesterday", "", "").problem(t).Errors[0].Reason)
	require.Equal(t, "INVALID_TYPE", s.call("POST", "/api/webhooks/endpoints", "", `{"url":"x","headers":{"a":1}}`).problem(t).Errors[0].Reason)
}

func lifecycleOf(typ string) (list []string) {
	for _, op := range []string{event.Create, event.Update, event.Archive} {
		list = append(list, typ+"."+event.Pre(op), typ+"."+event.Post(op))
	}
	return list
}

var wantAudit = []string{"create 2 applied", "update 2 applied", "archive 2 applied"}

func TestEveryTypeOverREST(t *testing.T) {
	s := start(t, nil)
	for _, typ := range recordTypes() {
		t.Run(typ, func(t *testing.T) {
			var made, got wireRecord
			s.ok("POST", "/api/records/"+typ, `{"name":"First \"one\"","attributes":{"n":12345678901234567890123,"f":1.50,"deep":{"a":[1,null]}}}`, &made)
			require.Equal(t, typ, made.Type)
			require.Equal(t, int64(1), made.Version)
			require.Regexp(t, `^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$`, made.CreatedAt)
			require.JSONEq(t, `{"n":12345678901234567890123,"f":1.50,"deep":{"a":[1,null]}}`, string(made.Attributes))
			require.Contains(t, string(made.Attributes), "12345678901234567890123", "no digit is lost")
			require.Contains(t, string(made.Attributes), "1.50")
			path := fmt.Sprintf("/api/records/%s/%d", typ, made.ID)
			s.ok("GET", path, "", &got)
			require.Equal(t, made, got)

			s.ok("PATCH", path, `{"name":"Second","attributes":{"f":null,"deep":{"a":null,"b":1}}}`, &got)
			require.Equal(t, int64(2), got.Version)
			require.JSONEq(t, `{"n":12345678901234567890123,"deep":{"b":1}}`, string(got.Attributes))
			var list struct {
				Data  []wireRecord
				Total int64
			}
			s.ok("GET", "/api/records/"+typ, "", &list)
			require.Equal(t, got, list.Data[0], "newest first")
			require.Equal(t, int64(len(list.Data)), list.Total)
			before := list.Total

			s.ok("DELETE", path, "", &got)
			require.NotNil(t, got.ArchivedAt)
			require.Equal(t, int64(3), got.Version)
			s.ok("DELETE", path, "", &got)
			require.Equal(t, int64(3), got.Version, "archived is archived")
			s.ok("GET", "/api/records/"+typ, "", &list)
			require.Equal(t, before-1, list.Total)
			s.ok("GET", "/api/records/"+typ+"?include_archived=true", "", &list)
			require.Equal(t, before, list.Total)

			var history wireEvents
			s.ok("GET", fmt.Sprintf("/api/events/%s/%d", typ, made.ID), "", &history)
			require.Equal(t, lifecycleOf(typ), history.types())
			require.Equal(t, int64(6), history.Total)
			require.Equal(t, wantAudit, s.auditOf(typ, made.ID))
			update := history.Data[3].Payload
			require.Equal(t, map[string]any{"before": "First \"one\"", "after": "Second"}, update["changes"].(map[string]any)["name"])
			require.Equal(t, "Second", update["record_name"])
			require.InDelta(t, s.a.UserID, update["actor_id"], 0)
			require.NotContains(t, history.Data[1].Payload, "changes")
		})
	}
}

func TestEveryTypeOverGRPC(t *testing.T) {
	s := start(t, nil)
	api, history := recordsv1.NewRecordServiceClient(s.conn), eventsv1.NewEventServiceClient(s.conn)
	ctx := as(t.Context(), s.a.APIKey)
	for _, typ := range recordTypes() {
		t.Run(typ, func(t *testing.T) {
			r, err := api.CreateRecord(ctx, &recordsv1.CreateRecordRequest{Type: typ, Name: "x", Attributes: &wirev1.Json{Text: `{"n":9007199254740993}`}})
			require.NoError(t, err)
			got, err := api.GetRecord(ctx, &recordsv1.GetRecordRequest{Type: typ, Id: r.GetId()})
			require.NoError(t, err)
			require.Equal(t, `{"n": 9007199254740993}`, got.GetAttributes().GetText())
			list, err := api.ListRecords(ctx, &recordsv1.ListRecordsRequest{Type: typ})
			require.NoError(t, err)
			require.Equal(t, r.GetId(), list.GetData()[0].GetId())
			name := "y"
			_, err = api.UpdateRecord(ctx, &recordsv1.UpdateRecordRequest{Type: typ, Id: r.GetId(), Name: &name})
			require.NoError(t, err)
			same, err := api.UpdateRecord(ctx, &recordsv1.UpdateRecordRequest{Type: typ, Id: r.GetId(), Name: &name})
			require.NoError(t, err)
			require.Equal(t, int64(2), same.GetVersion(), "what changes nothing is no mutation")
			_, err = api.ArchiveRecord(ctx, &recordsv1.ArchiveRecordRequest{Type: typ, Id: r.GetId()})
			require.NoError(t, err)

			events, err := history.ListEntityEvents(ctx, &eventsv1.ListEntityEventsRequest{AggregateType: typ, AggregateId: r.GetId()})
			require.NoError(t, err)
			var types []string
			for _, e := range events.GetData() {
				types = append(types, e.GetEventType())
			}
			require.Equal(t, lifecycleOf(typ), types)
			require.Equal(t, wantAudit, s.auditOf(typ, r.GetId()))
		})
	}
}

// TestContext follows the workflow and step of the specification's EventContext.
func TestContext(t *testing.T) {
	s := start(t, nil)
	var flow, step, task, again wireRecord
	s.ok("POST", "/api/records/workflow", `{"name":"Hire"}`, &flow)
	s.ok("POST", "/api/records/step", fmt.Sprintf(`{"name":"Sign","workflow_id":%d}`, flow.ID), &step)
	s.ok("POST", "/api/records/task", fmt.Sprintf(`{"name":"Print","workflow_id":%d,"step_id":%d}`, flow.ID, step.ID), &task)
	last := func(r wireRecord) map[string]any {
		var history wireEvents
		s.ok("GET", fmt.Sprintf("/api/events/%s/%d", r.Type, r.ID), "", &history)
		return history.Data[len(history.Data)-1].Payload
	}
	expect := func(p map[string]any, flow, step any) {
		t.Helper()
		require.Equal(t, []any{flow, step}, []any{p["workflow_name"], p["step_name"]})
	}
	expect(last(flow), "Hire", nil)
	expect(last(step), "Hire", "Sign")
	expect(last(task), "Hire", "Sign")
	require.InDelta(t, flow.ID, last(task)["workflow_id"], 0)
	require.InDelta(t, step.ID, last(task)["step_id"], 0)

	path := fmt.Sprintf("/api/records/task/%d", task.ID)
	s.ok("PATCH", path, `{"name":"Print it"}`, &again)
	expect(last(task), "Hire", "Sign")
	s.ok("PATCH", path, `{"step_id":null}`, &again)
	require.Nil(t, again.StepID)
	require.Equal(t, flow.ID, *again.WorkflowID)
	expect(last(task), "Hire", nil)
	s.ok("PATCH", path, fmt.Sprintf(`{"workflow_id":null,"step_id":%d}`, step.ID), &again)
	expect(last(task), nil, "Sign")
	var list struct{ Data []wireRecord }
	s.ok("GET", fmt.Sprintf("/api/records/step?workflow_id=%d", flow.ID), "", &list)
	require.Len(t, list.Data, 1)
}
