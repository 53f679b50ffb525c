package app

import (
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	workflowv1 "github.com/sametick/sametick/proto/gen/go/sametick/workflow/v1"
)

type wireFlow struct {
	ID     int64
	Status string
	Moves  []string
	Steps  []struct {
		ID          int64
		Key, Status string
		Moves       []string
	}
}

const hiring = `{"name":"Hiring","steps":[{"key":"screen","name":"Screen"},{"key":"offer","name":"Offer","needs":["screen"],"approval":true}]}`

func (s *suite) started(definition string) (f wireFlow) {
	s.t.Helper()
	var d struct{ ID int64 }
	s.ok("POST", "/api/workflows/definitions", definition, &d)
	s.ok("POST", "/api/workflows", fmt.Sprintf(`{"definition_id":%d,"name":"Hire Ann","attributes":{"description":"soon"}}`, d.ID), &f)
	return f
}

func TestAWorkflowTellsItsStory(t *testing.T) {
	s := start(t, nil)
	f := s.started(hiring)
	require.Equal(t, "running", f.Status)
	require.Equal(t, []string{"cancel"}, f.Moves)
	require.Equal(t, []string{"pass", "fail"}, f.Steps[0].Moves)
	require.Empty(t, f.Steps[1].Moves)
	step := func(i int, move string) string {
		return fmt.Sprintf("/api/workflows/%d/steps/%d:%s", f.ID, f.Steps[i].ID, move)
	}
	p := s.call("POST", step(1, "pass"), "", "{}").problem(t)
	require.Equal(t, "ILLEGAL_MOVE", p.Reason)
	require.Equal(t, map[string]string{"status": "pending", "workflow_status": "running", "allowed": ""}, p.Metadata)
	s.ok("POST", step(0, "pass"), `{"note":"good"}`, &f)
	s.ok("POST", step(1, "pass"), "{}", &f)
	require.Equal(t, "awaiting_approval", f.Steps[1].Status)
	p = s.call("POST", step(1, "pass"), "", "{}").problem(t)
	require.Equal(t, "approve,fail", p.Metadata["allowed"])
	s.ok("POST", step(1, "approve"), "{}", &f)
	require.Equal(t, "completed", f.Status)
	var again wireFlow
	s.ok("GET", fmt.Sprintf("/api/workflows/%d", f.ID), "", &again)
	require.Equal(t, f, again)

	story := func(typ string, id int64) (list []string) {
		var e wireEvents
		s.ok("GET", fmt.Sprintf("/api/events/%s/%d", typ, id), "", &e)
		for _, one := range e.Data {
			list = append(list, one.EventType)
			require.InDelta(t, f.ID, one.Payload["workflow_id"], 0)
			require.Equal(t, "Hire Ann", one.Payload["workflow_name"])
			if typ == "step" {
				require.InDelta(t, id, one.Payload["step_id"], 0)
				require.NotEmpty(t, one.Payload["step_name"])
			}
		}
		return list
	}
	require.Equal(t, []string{"workflow.pre_create", "workflow.post_create", "workflow.started", "workflow.pre_update", "workflow.post_update", "workflow.completed"}, story("workflow", f.ID))
	require.Equal(t, []string{"step.pre_create", "step.post_create", "step.pre_update", "step.post_update", "step.passed"}, story("step", f.Steps[0].ID))
	require.Equal(t, []string{"step.pre_create", "step.post_create", "step.pre_update", "step.post_update", "step.pre_update", "step.post_update", "step.passed",
		"step.pre_update", "step.post_update", "step.approved"}, story("step", f.Steps[1].ID))
	var r wireRecord
	s.ok("GET", fmt.Sprintf("/api/records/step/%d", f.Steps[0].ID), "", &r)
	require.JSONEq(t, `{"key":"screen","status":"passed","note":"good"}`, string(r.Attributes))
	require.EqualValues(t, 2, r.Version)
}

func TestFailureAndCancelling(t *testing.T) {
	s := start(t, nil)
	f := s.started(hiring)
	s.ok("POST", fmt.Sprintf("/api/workflows/%d/steps/%d:fail", f.ID, f.Steps[0].ID), `{"note":"no"}`, &f)
	require.Equal(t, "failed", f.Status)
	require.Equal(t, "cancelled", f.Steps[1].Status)
	f = s.started(hiring)
	s.ok("POST", fmt.Sprintf("/api/workflows/%d:cancel", f.ID), `{"note":"not now"}`, &f)
	require.Equal(t, "cancelled", f.Status)
	var e wireEvents
	s.ok("GET", "/api/events?event_type=workflow.cancelled&event_type=workflow.failed", "", &e)
	require.Equal(t, []string{"workflow.cancelled", "workflow.failed"}, e.types())
	require.Equal(t, "not now", e.Data[0].Payload["note"])
}

// The records API does not step around the machine; records that no definition governs are free.
func TestGovernedRecords(t *testing.T) {
	s := start(t, nil)
	f := s.started(hiring)
	step, flow := fmt.Sprintf("/api/records/step/%d", f.Steps[0].ID), fmt.Sprintf("/api/records/workflow/%d", f.ID)
	for path, body := range map[string]string{step: `{"attributes":{"status":"passed"}}`, flow: `{"attributes":null}`} {
		require.Equal(t, "GOVERNED_BY_WORKFLOW", s.call("PATCH", path, "", body).problem(t).Reason)
	}
	require.Equal(t, "GOVERNED_BY_WORKFLOW", s.call("PATCH", step, "", `{"workflow_id":null}`).problem(t).Reason)
	require.Equal(t, "GOVERNED_BY_WORKFLOW", s.call("DELETE", flow, "", "").problem(t).Reason)
	require.Equal(t, []string{"operations[0].archive.archived_at GOVERNED_BY_WORKFLOW"},
		s.faultsOf(409, "POST", "/api/records/step:batch", "", fmt.Sprintf(`{"operations":[{"archive":{"id":%d}}]}`, f.Steps[0].ID)))
	s.ok("PATCH", step, `{"name":"Screening","attributes":{"description":"by phone"}}`, nil)
	s.ok("POST", fmt.Sprintf("/api/workflows/%d:cancel", f.ID), "{}", nil)
	s.ok("DELETE", flow, "", nil)
	var free wireRecord
	s.ok("POST", "/api/records/step", `{"name":"free","attributes":{"status":"x"}}`, &free)
	s.ok("PATCH", fmt.Sprintf("/api/records/step/%d", free.ID), `{"attributes":{"status":"y"}}`, nil)
	require.Equal(t, http.StatusNotFound, s.call("GET", fmt.Sprintf("/api/workflows/%d", free.ID), "", "").status)
}

func TestDefinitions(t *testing.T) {
	s := start(t, nil)
	f := s.started(hiring)
	var list struct {
		Data []struct {
			ID    int64
			Steps []struct{ Needs []string }
		}
		Total int64
	}
	s.ok("GET", "/api/workflows/definitions", "", &list)
	require.EqualValues(t, 1, list.Total)
	path := fmt.Sprintf("/api/workflows/definitions/%d", list.Data[0].ID)
	require.Equal(t, []string{"steps[0].needs[0] UNKNOWN_STEP"}, s.faultsOf(400, "PATCH", path, "", `{"steps":[{"key":"a","name":"A","needs":["b"]}]}`))
	s.ok("PATCH", path, `{"steps":[{"key":"a","name":"A"}]}`, nil)
	require.Equal(t, "VERSION_MISMATCH", s.call("PATCH", path, "", `{"name":"x","version":1}`).problem(t).Reason)
	s.ok("POST", fmt.Sprintf("/api/workflows/%d/steps/%d:pass", f.ID, f.Steps[0].ID), "{}", nil) // as it was started
	var e wireEvents
	s.ok("GET", "/api/events?aggregate_type=workflow_definition", "", &e)
	require.Equal(t, []string{"workflow_definition.post_update", "workflow_definition.pre_update", "workflow_definition.post_create", "workflow_definition.pre_create"}, e.types())
	s.ok("DELETE", path, "", nil)
	require.Equal(t, "DEFINITION_ARCHIVED", s.call("POST", "/api/workflows", "", fmt.Sprintf(`{"definition_id":%d,"name":"x"}`, list.Data[0].ID)).problem(t).Reason)
	// Another organisation's are not there.
	b := s.b.APIKey
	for _, c := range []struct{ method, path, body string }{{"GET", path, ""}, {"PATCH", path, `{"name":"x"}`}, {"DELETE", path, ""},
		{"GET", fmt.Sprintf("/api/workflows/%d", f.ID), ""}, {"POST", fmt.Sprintf("/api/workflows/%d:cancel", f.ID), "{}"},
		{"POST", fmt.Sprintf("/api/workflows/%d/steps/%d:pass", f.ID, f.Steps[1].ID), "{}"}, {"POST", "/api/workflows", fmt.Sprintf(`{"definition_id":%d,"name":"x"}`, list.Data[0].ID)}} {
		require.Equal(t, http.StatusNotFound, s.call(c.method, c.path, b, c.body).status, c.path)
	}
}

// Two steps pass at the same moment: both do, and exactly one of them completes the workflow.
func TestConcurrentMoves(t *testing.T) {
	s := start(t, nil)
	api := workflowv1.NewWorkflowServiceClient(s.conn)
	ctx := as(t.Context(), s.a.APIKey)
	d, err := api.CreateDefinition(ctx, &workflowv1.CreateDefinitionRequest{Name: "x", Steps: []*workflowv1.StepDefinition{{Key: "a", Name: "a"}, {Key: "b", Name: "b"}, {Key: "c", Name: "c"}}})
	require.NoError(t, err)
	const rounds = 30
	for range rounds {
		f, err := api.StartWorkflow(ctx, &workflowv1.StartWorkflowRequest{DefinitionId: d.GetId(), Name: "x"})
		require.NoError(t, err)
		var wg sync.WaitGroup
		var completed atomic.Int64
		for _, step := range f.GetSteps() {
			wg.Go(func() {
				after, err := api.PassStep(ctx, &workflowv1.PassStepRequest{WorkflowId: f.GetId(), StepId: step.GetId()})
				if err != nil {
					t.Errorf("pass: %v", err)
				}
				if after.GetStatus() == "completed" {
					completed.Add(1)
				}
			})
		}
		wg.Wait()
		require.EqualValues(t, 1, completed.Load())
	}
	var e wireEvents
	s.ok("GET", "/api/events?event_type=workflow.completed", "", &e)
	require.EqualValues(t, rounds, e.Total)
}
