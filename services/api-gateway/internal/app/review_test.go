package app

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"

	"github.com/sametick/sametick/pkg/reviewhash"
	promptsv1 "github.com/sametick/sametick/proto/gen/go/sametick/prompts/v1"
)

// judge stands for prompt-worker: it rejects what has "bad" in its name.
type judge struct {
	promptsv1.UnimplementedReviewServiceServer

	mu    sync.Mutex
	asked []*promptsv1.ProposedWrite
	// generation is what the last request named.
	generation *int64
	// mangled is what the judge has read beyond what was asked.
	mangled string
	// before runs ahead of each judgement.
	before func(ctx context.Context, r *promptsv1.ReviewRequest) error
}

func (j *judge) Review(ctx context.Context, r *promptsv1.ReviewRequest) (*promptsv1.ReviewResponse, error) {
	j.mu.Lock()
	j.asked, j.generation = append(j.asked, r.GetWrites()...), r.Generation
	before := j.before
	j.mu.Unlock()
	if before != nil {
		if err := before(ctx, r); err != nil {
			return nil, err
		}
	}
	res := &promptsv1.ReviewResponse{}
	for _, w := range r.GetWrites() {
		v := &promptsv1.HookVerdict{HookId: 7, HookName: "names", Verdict: "approve", Enforcement: "enforce", RunId: 70}
		if strings.Contains(w.GetRecordName(), "bad") {
			v.Verdict, v.Enforced, v.Reason, v.RuleIds = "reject", true, "a bad name", []string{"name"}
		}
		hash, err := reviewhash.Hash(reviewhash.Write{OrgID: r.GetOrgId(), EventType: w.GetEventType(), AggregateType: w.GetAggregateType(), AggregateID: w.GetAggregateId(),
			BaseVersion: w.GetBaseVersion(), RecordName: w.GetRecordName() + j.mangled, WorkflowID: w.WorkflowId, StepID: w.StepId, Changed: w.GetChanged(), After: []byte(w.GetAfter().GetText())})
		if err != nil {
			return nil, err
		}
		res.Judgements = append(res.Judgements, &promptsv1.Judgement{Rejected: v.GetEnforced(), Hash: hash, Verdicts: []*promptsv1.HookVerdict{v}})
	}
	return res, nil
}

func (j *judge) took() []*promptsv1.ProposedWrite {
	j.mu.Lock()
	defer j.mu.Unlock()
	list := j.asked
	j.asked = nil
	return list
}

func (j *judge) do(before func(ctx context.Context, r *promptsv1.ReviewRequest) error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.before = before
}

// startReviewed runs the service beside a judge. stop ends the judge.
func startReviewed(t *testing.T) (s *suite, j *judge, stop func()) {
	j = &judge{}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	server := grpc.NewServer()
	promptsv1.RegisterReviewServiceServer(server, j)
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(l) }()
	stop = sync.OnceFunc(func() { server.Stop(); require.NoError(t, <-ended) })
	t.Cleanup(stop)
	return start(t, func(c *Config) { c.PromptAddr = l.Addr().String() }), j, stop
}

// hook makes a hook of organisation A, behind the service's back as prompt-worker does.
func (s *suite) hook(id int64, policy, enforcement string, patterns ...string) {
	s.t.Helper()
	_, err := s.admin.Exec(s.t.Context(), `INSERT INTO sametick.review_hooks VALUES ($1, $2, 'names', $3, $4, $5, 1000)
		ON CONFLICT (org_id, hook_id) DO UPDATE SET failure_policy = $4, enforcement = $5, event_types = $3`, s.a.OrgID, id, patterns, policy, enforcement)
	require.NoError(s.t, err)
}

func (s *suite) unhook() {
	s.t.Helper()
	_, err := s.admin.Exec(s.t.Context(), `DELETE FROM sametick.review_hooks`)
	require.NoError(s.t, err)
}

// rows counts the tasks of organisation A, and gives the outcome and reviews of the newest audit entry.
func (s *suite) rows() (tasks int64, outcome, reviews string) {
	s.t.Helper()
	require.NoError(s.t, s.admin.QueryRow(s.t.Context(), `SELECT (SELECT count(*) FROM sametick.records WHERE org_id = $1 AND type = 'task'),
		a.outcome, coalesce(e.payload->>'reviews', '') FROM sametick.audit_entries a JOIN sametick.events e ON e.id = a.event_ids[1] WHERE a.org_id = $1
		ORDER BY a.id DESC LIMIT 1`, s.a.OrgID).Scan(&tasks, &outcome, &reviews))
	return tasks, outcome, reviews
}

func TestReviewedCreate(t *testing.T) {
	s, j, _ := startReviewed(t)
	s.ok("POST", "/api/records/task", `{"name":"bad, and nobody minds"}`, nil)
	require.Empty(t, j.took(), "without a hook nobody is asked")

	s.hook(7, "fail_closed", "enforce", "task.pre_create")
	s.ok("POST", "/api/records/employee", `{"name":"bad"}`, nil)
	require.Empty(t, j.took(), "a hook for another type")
	var made wireRecord
	s.ok("POST", "/api/records/task", `{"name":"good","attributes":{"note":"x"}}`, &made)
	asked := j.took()
	var generation int64
	require.NoError(t, s.admin.QueryRow(t.Context(), `SELECT generation FROM sametick.review_sets WHERE org_id = $1`, s.a.OrgID).Scan(&generation))
	require.Equal(t, &generation, j.generation, "the judge is told which hooks the write insists on")
	require.Len(t, asked, 1)
	require.JSONEq(t, `{"name":"good","attributes":{"note":"x"},"workflow_id":null,"step_id":null,"archived":false}`, asked[0].GetAfter().GetText())
	require.Empty(t, asked[0].GetBefore().GetText())
	tasks, outcome, reviews := s.rows()
	require.Equal(t, "applied", outcome)
	require.JSONEq(t, `[{"hook_id":7,"hook_name":"names","verdict":"approve","enforced":false,"enforcement":"enforce","run_id":70}]`, reviews)

	j.mangled = "!"
	require.Equal(t, http.StatusServiceUnavailable, s.call("POST", "/api/records/task", "", `{"name":"good"}`).status, "another write was judged")
	j.mangled = ""
	for range 2 { // with a key: what was rejected can be asked again, and each time it is kept
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.url+"/api/records/task", strings.NewReader(`{"name":"bad"}`))
		require.NoError(t, err)
		req.Header.Set("Authorization", "Bearer "+s.a.APIKey)
		req.Header.Set("Idempotency-Key", "one")
		a := s.do(req)
		require.Equal(t, http.StatusUnprocessableEntity, a.status, a.text)
		p := a.problem(t)
		require.Equal(t, "REVIEW_REJECTED", p.Reason)
		require.Contains(t, p.Detail, "a bad name")
		require.Equal(t, map[string]string{"hook_id": "7", "hook": "names", "rules": "name"}, p.Metadata)
	}
	after, outcome, reviews := s.rows()
	require.Equal(t, tasks, after, "nothing is written")
	require.Equal(t, "rejected", outcome)
	require.Contains(t, reviews, "a bad name")
	var kept int
	require.NoError(t, s.admin.QueryRow(t.Context(), `SELECT count(*) FROM sametick.events WHERE event_type = 'task.pre_create' AND payload->>'record_name' = 'bad'
		AND NOT EXISTS (SELECT FROM sametick.events q WHERE q.event_type = 'task.post_create' AND q.aggregate_id = events.aggregate_id)`).Scan(&kept))
	require.Equal(t, 2, kept)
}

// The hooks change behind the back of a replica that knows them: the very next write is by the new ones. Without
// the database's check it slips by.
func TestReviewSetIsExact(t *testing.T) {
	s, _, _ := startReviewed(t)
	bad := func() int { return s.call("POST", "/api/records/task", "", `{"name":"bad"}`).status }
	require.Equal(t, http.StatusOK, bad())
	for range 3 {
		s.hook(7, "fail_closed", "enforce", "task.pre_create")
		require.Equal(t, http.StatusUnprocessableEntity, bad())
		s.unhook()
		require.Equal(t, http.StatusOK, bad())
	}
	_, err := s.admin.Exec(t.Context(), `CREATE OR REPLACE FUNCTION sametick.begin_write(org bigint, reviewed_by bigint) RETURNS void LANGUAGE plpgsql AS
		$$ BEGIN PERFORM set_config('sametick.org_id', org::text, true); END $$`)
	require.NoError(t, err)
	s.hook(7, "fail_closed", "enforce", "task.pre_create")
	require.Equal(t, http.StatusOK, bad(), "the control: nobody has noticed the hook")
}

// A record changes while it is being reviewed: what is written is what was reviewed, so it is reviewed anew.
func TestWhatIsReviewedIsWritten(t *testing.T) {
	s, j, _ := startReviewed(t)
	var r wireRecord
	s.ok("POST", "/api/records/task", `{"name":"a","attributes":{"note":"1","priority":"low"}}`, &r)
	path := fmt.Sprintf("/api/records/task/%d", r.ID)
	s.hook(7, "fail_closed", "enforce", "task.pre_update", "task.pre_archive")
	rounds := 0
	j.do(func(context.Context, *promptsv1.ReviewRequest) error {
		if rounds++; rounds == 1 {
			_, err := s.admin.Exec(t.Context(), `UPDATE sametick.records SET version = version + 1, attributes = attributes || '{"note":"2"}' WHERE id = $1 AND type = 'task'`, r.ID)
			return err
		}
		return nil
	})
	s.ok("PATCH", path, `{"attributes":{"priority":"high"}}`, &r)
	require.Equal(t, 2, rounds)
	require.JSONEq(t, `{"note":"2","priority":"high"}`, string(r.Attributes))
	asked := j.took()
	require.Len(t, asked, 2)
	require.EqualValues(t, 1, asked[0].GetBaseVersion())
	require.EqualValues(t, 2, asked[1].GetBaseVersion())
	require.Equal(t, []string{"attributes.priority"}, asked[1].GetChanged())
	require.Contains(t, asked[1].GetBefore().GetText(), `"note":"2"`)

	j.do(func(context.Context, *promptsv1.ReviewRequest) error {
		_, err := s.admin.Exec(t.Context(), `UPDATE sametick.records SET version = version + 1 WHERE id = $1 AND type = 'task'`, r.ID)
		return err
	})
	a := s.call("PATCH", path, "", `{"attributes":{"priority":"low"}}`)
	require.Equal(t, http.StatusConflict, a.status, "one that changes each time is not written unreviewed")
	j.do(nil)
	s.ok("PATCH", path, `{"name":"a"}`, nil) // changes nothing, so nobody is asked
	j.took()
	require.Equal(t, http.StatusUnprocessableEntity, s.call("PATCH", path, "", `{"name":"bad"}`).status)
	s.ok("DELETE", path, "", &r)
	require.Equal(t, "task.pre_archive", j.took()[1].GetEventType())
	require.NotNil(t, r.ArchivedAt)
}

func TestReviewedBatchAndExport(t *testing.T) {
	s, j, _ := startReviewed(t)
	s.hook(7, "fail_closed", "enforce", "task.*")
	before, _, _ := s.rows()
	a := s.call("POST", "/api/records/task:batch", "", `{"operations":[{"create":{"name":"good"}},{"create":{"name":"bad one"}},{"create":{"name":"bad two"}}]}`)
	require.Equal(t, http.StatusUnprocessableEntity, a.status, a.text)
	p := a.problem(t)
	require.Equal(t, "REVIEW_REJECTED", p.Reason)
	require.Len(t, p.Errors, 2)
	require.Equal(t, "operations[1]", p.Errors[0].Field)
	require.Equal(t, "operations[2]", p.Errors[1].Field)
	after, outcome, _ := s.rows()
	require.Equal(t, before, after)
	require.Equal(t, "rejected", outcome)
	s.ok("POST", "/api/records/task:batch", `{"operations":[{"create":{"name":"good"}},{"create":{"name":"fine"}}]}`, nil)
	after, _, reviews := s.rows()
	require.Equal(t, before+2, after)
	require.Contains(t, reviews, "approve")
	require.Len(t, j.took(), 5)
	require.Equal(t, http.StatusOK, s.call("POST", "/api/records/task:export", "", "").status)
	require.Equal(t, "task.pre_export", j.took()[0].GetEventType())
}

// Nobody can be asked: each hook's own policy decides.
func TestReviewWithoutJudge(t *testing.T) {
	s, j, stop := startReviewed(t)
	hang := make(chan struct{})
	j.do(func(ctx context.Context, _ *promptsv1.ReviewRequest) error {
		select {
		case <-hang:
		case <-ctx.Done():
		}
		return ctx.Err()
	})
	try := func(status int, reason string) answer {
		t.Helper()
		a := s.call("POST", "/api/records/task", "", `{"name":"x"}`)
		require.Equal(t, status, a.status, a.text)
		if reason != "" {
			require.Equal(t, reason, a.problem(t).Reason)
		}
		return a
	}
	all := func() {
		before, _, _ := s.rows()
		s.hook(7, "fail_closed", "enforce", "*.pre_create")
		require.NotEmpty(t, try(http.StatusServiceUnavailable, "REVIEW_UNAVAILABLE").header.Get("Retry-After"))
		after, outcome, _ := s.rows()
		require.Equal(t, before, after, "never an unreviewed write")
		require.Equal(t, "rejected", outcome)
		s.hook(7, "fail_closed", "warn", "*.pre_create")
		try(http.StatusOK, "")
		s.hook(7, "fail_open", "enforce", "*.pre_create")
		try(http.StatusOK, "")
		after, outcome, reviews := s.rows()
		require.Equal(t, before+2, after, "never a blocked one")
		require.Equal(t, "applied", outcome)
		var list []map[string]any
		require.NoError(t, json.Unmarshal([]byte(reviews), &list))
		require.Equal(t, "failed", list[0]["verdict"])
		require.Equal(t, true, list[0]["failed_open"])
		s.hook(8, "fail_closed", "enforce", "task.pre_create")
		try(http.StatusServiceUnavailable, "REVIEW_UNAVAILABLE")
		s.unhook()
	}
	all()
	began := time.Now()
	s.hook(7, "fail_open", "enforce", "*.pre_create")
	try(http.StatusOK, "")
	require.Greater(t, time.Since(began), 900*time.Millisecond, "the control: it did wait for the hook's own second")
	s.unhook()
	close(hang)
	stop()
	all()
}
