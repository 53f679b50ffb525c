package app

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// faultsOf gives the faulty fields of a refusal as "field REASON".
func (s *suite) faultsOf(status int, method, path, token, body string) (list []string) {
	s.t.Helper()
	a := s.call(method, path, token, body)
	require.Equal(s.t, status, a.status, a.text)
	for _, e := range a.problem(s.t).Errors {
		require.NotEmpty(s.t, e.Description)
		list = append(list, e.Field+" "+e.Reason)
	}
	return list
}

func TestAttributesFitTheirType(t *testing.T) {
	s := start(t, nil)
	require.ElementsMatch(t, []string{"attributes.status NOT_IN_ENUM", "attributes.due_date INVALID_FORMAT", "attributes.tags[1] WRONG_TYPE"},
		s.faultsOf(400, "POST", "/api/records/task", "", `{"name":"x","attributes":{"status":"later","due_date":"tomorrow","tags":["a",1]}}`))
	var task, ann wireRecord
	s.ok("POST", "/api/records/employee", `{"name":"Ann"}`, &ann)
	s.ok("POST", "/api/records/task", fmt.Sprintf(`{"name":"x","attributes":{"status":"open","assignee_id":%d,"own field":{"a":1}}}`, ann.ID), &task)
	path := fmt.Sprintf("/api/records/task/%d", task.ID)
	require.Equal(t, []string{"attributes.status NOT_IN_ENUM"}, s.faultsOf(400, "PATCH", path, "", `{"attributes":{"status":"later"}}`))
	require.Equal(t, []string{"operations[1].create.attributes.status NOT_IN_ENUM"},
		s.faultsOf(400, "POST", "/api/records/task:batch", "", `{"operations":[{"create":{"name":"x"}},{"create":{"name":"y","attributes":{"status":"?"}}}]}`))

	// References: to what is not there, is another organisation's, is of another type, or archived.
	missing := []string{"attributes.assignee_id REFERENCE_MISSING"}
	ofB := s.call("POST", "/api/records/employee", s.b.APIKey, `{"name":"Bob"}`)
	var bob wireRecord
	ofB.into(t, &bob)
	for _, id := range []int64{99999999, bob.ID, task.ID} {
		require.Equal(t, missing, s.faultsOf(400, "POST", "/api/records/task", "", fmt.Sprintf(`{"name":"x","attributes":{"assignee_id":%d}}`, id)))
		require.Equal(t, missing, s.faultsOf(400, "PATCH", path, "", fmt.Sprintf(`{"attributes":{"assignee_id":%d}}`, id)))
	}
	s.ok("DELETE", fmt.Sprintf("/api/records/employee/%d", ann.ID), "", nil)
	require.Equal(t, missing, s.faultsOf(400, "POST", "/api/records/task", "", fmt.Sprintf(`{"name":"x","attributes":{"assignee_id":%d}}`, ann.ID)))
	s.ok("PATCH", path, `{"name":"the reference that it has stays"}`, nil)
	require.Equal(t, []string{"operations[0].create.attributes.to_employee_ids[1] REFERENCE_MISSING"},
		s.faultsOf(400, "POST", "/api/records/kudos:batch", "", fmt.Sprintf(`{"operations":[{"create":{"name":"x","attributes":{"to_employee_ids":[%d,99999999]}}}]}`, must(s))))

	// A record from before its schema: what was wrong may stay, what is changed must fit.
	_, err := s.admin.Exec(t.Context(), `UPDATE sametick.records SET attributes = '{"status":"ancient","priority":"low"}' WHERE id = $1`, task.ID)
	require.NoError(t, err)
	s.ok("PATCH", path, `{"attributes":{"priority":"high"}}`, nil)
	require.Equal(t, []string{"attributes.priority NOT_IN_ENUM"}, s.faultsOf(400, "PATCH", path, "", `{"attributes":{"priority":"?"}}`))
}

func must(s *suite) int64 {
	var r wireRecord
	s.ok("POST", "/api/records/employee", `{"name":"Eve"}`, &r)
	return r.ID
}

func TestOwnTypes(t *testing.T) {
	s := start(t, nil)
	var list struct {
		Data []struct {
			Name    string
			Builtin bool
		}
		Total int64
	}
	s.ok("GET", "/api/types", "", &list)
	require.EqualValues(t, 17, list.Total)
	require.True(t, list.Data[0].Builtin)
	require.Equal(t, []string{"type UNKNOWN_TYPE"}, s.faultsOf(400, "POST", "/api/records/invoice", "", `{"name":"x"}`))
	s.ok("POST", "/api/types", `{"name":"invoice","description":"what is owed","schema":{"type":"object","required":["total"],"additionalProperties":false,
		"properties":{"total":{"type":"number","minimum":0},"task_id":{"type":"integer","x-reference":"task"},"external_id":{"type":"string"}}}}`, nil)
	require.Equal(t, []string{"attributes.total REQUIRED"}, s.faultsOf(400, "POST", "/api/records/invoice", "", `{"name":"x"}`))
	require.ElementsMatch(t, []string{"attributes.total OUT_OF_RANGE", "attributes.paid UNKNOWN_FIELD"},
		s.faultsOf(400, "POST", "/api/records/invoice", "", `{"name":"x","attributes":{"total":-1,"paid":true}}`))
	require.Equal(t, []string{"attributes.task_id REFERENCE_MISSING"}, s.faultsOf(400, "POST", "/api/records/invoice", "", `{"name":"x","attributes":{"total":1,"task_id":99999999}}`))
	var r wireRecord
	s.ok("POST", "/api/records/invoice", `{"name":"No. 1","attributes":{"total":1}}`, &r)
	path := fmt.Sprintf("/api/records/invoice/%d", r.ID)
	require.Equal(t, []string{"attributes.total REQUIRED"}, s.faultsOf(400, "PATCH", path, "", `{"attributes":{"total":null}}`))
	var events wireEvents
	s.ok("GET", "/api/events?aggregate_type=invoice", "", &events)
	require.Equal(t, []string{"invoice.post_create", "invoice.pre_create"}, events.types())

	// Another organisation has no such type, and may have one of the same name.
	require.Equal(t, []string{"type UNKNOWN_TYPE"}, s.faultsOf(400, "POST", "/api/records/invoice", s.b.APIKey, `{"name":"x"}`))
	require.Equal(t, http.StatusNotFound, s.call("GET", "/api/types/invoice", s.b.APIKey, "").status)
	require.Equal(t, http.StatusNotFound, s.call("PATCH", "/api/types/invoice", s.b.APIKey, `{"description":"x"}`).status)
	require.Equal(t, http.StatusOK, s.call("POST", "/api/types", s.b.APIKey, `{"name":"invoice","schema":{"type":"object"}}`).status)

	// Only what keeps records valid is taken.
	require.Equal(t, []string{"schema.required INCOMPATIBLE", "schema.properties.total.minimum INCOMPATIBLE"}, sorted(s.faultsOf(400, "PATCH", "/api/types/invoice", "", `{"schema":{"type":"object","required":["total","task_id"],
		"additionalProperties":false,"properties":{"total":{"type":"number","minimum":1},"task_id":{"type":"integer","x-reference":"task"},"external_id":{"type":"string"}}}}`)))
	a := s.call("PATCH", "/api/types/invoice", "", `{"schema":{"type":"object","required":["total"],"additionalProperties":false,"properties":{"total":{"type":"number"},
		"task_id":{"type":"integer","x-reference":"task"},"external_id":{"type":"string"},"paid":{"type":"boolean"}}}}`)
	require.Equal(t, http.StatusOK, a.status, a.text)
	require.Equal(t, `"2"`, a.header.Get("ETag"))
	s.ok("PATCH", path, `{"attributes":{"total":-5,"paid":true}}`, nil)
	s.ok("GET", "/api/events?aggregate_type=record_type", "", &events)
	require.Equal(t, []string{"record_type.post_update", "record_type.pre_update", "record_type.post_create", "record_type.pre_create"}, events.types())
	require.Contains(t, events.Data[0].Payload["changes"], "schema")

	s.ok("DELETE", "/api/types/invoice", "", nil)
	require.Equal(t, []string{"type TYPE_ARCHIVED"}, s.faultsOf(400, "POST", "/api/records/invoice", "", `{"name":"x","attributes":{"total":1}}`))
	s.ok("PATCH", path, `{"name":"still mine"}`, nil)
	s.ok("GET", "/api/types", "", &list)
	require.EqualValues(t, 17, list.Total)
	s.ok("GET", "/api/types?include_archived=true", "", &list)
	require.EqualValues(t, 18, list.Total)
}

func sorted(list []string) []string {
	if len(list) == 2 && strings.HasPrefix(list[0], "schema.properties") {
		list[0], list[1] = list[1], list[0]
	}
	return list
}

func TestTypesThatAreRefused(t *testing.T) {
	s := start(t, nil)
	for body, want := range map[string]string{
		`{"name":"task","schema":{"type":"object"}}`:                                                 "name RESERVED",
		`{"name":"auth","schema":{"type":"object"}}`:                                                 "name RESERVED",
		`{"name":"Invoice","schema":{"type":"object"}}`:                                              "name INVALID_NAME",
		`{"name":"invoice"}`:                                                                         "schema REQUIRED",
		`{"name":"invoice","schema":{"type":"array"}}`:                                               "schema NOT_OF_OBJECTS",
		`{"name":"invoice","schema":{"type":"object","properties":{"a":{"$ref":"http://x.test/"}}}}`: "schema.properties.a.$ref REMOTE_REFERENCE",
	} {
		require.Equal(t, []string{want}, s.faultsOf(400, "POST", "/api/types", "", body), body)
	}
	require.Equal(t, "TYPE_BUILT_IN", s.call("PATCH", "/api/types/task", "", `{"description":"x"}`).problem(t).Reason)
	s.ok("POST", "/api/types", `{"name":"invoice","schema":{"type":"object"}}`, nil)
	require.Equal(t, "TYPE_EXISTS", s.call("POST", "/api/types", "", `{"name":"invoice","schema":{"type":"object"}}`).problem(t).Reason)
	require.Equal(t, "VERSION_MISMATCH", s.call("PATCH", "/api/types/invoice", "", `{"description":"x","version":7}`).problem(t).Reason)
	require.Equal(t, []string{"schema REQUIRED"}, s.faultsOf(400, "PATCH", "/api/types/invoice", "", `{"schema":null}`))
}
