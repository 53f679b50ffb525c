package app

import (
	"encoding/json"
	"fmt"
	"net/http"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	recordsv1 "github.com/sametick/sametick/proto/gen/go/sametick/records/v1"
	wirev1 "github.com/sametick/sametick/proto/gen/go/sametick/wire/v1"
	"github.com/sametick/sametick/services/api-gateway/internal/records"
)

// TestOtherOrganisations: B sees nothing of A, and cannot tell absent from foreign.
func TestOtherOrganisations(t *testing.T) {
	s := start(t, nil)
	var flow, task wireRecord
	s.ok("POST", "/api/records/workflow", `{"name":"Secret","attributes":{"external_id":"e"}}`, &flow)
	s.ok("POST", "/api/records/task", `{"name":"Secret"}`, &task)
	b := s.b.APIKey
	for _, c := range []struct{ method, path, body string }{
		{"GET", "/api/records/task/%d", ""}, {"PATCH", "/api/records/task/%d", `{"name":"x"}`}, {"DELETE", "/api/records/task/%d", ""},
		{"GET", "/api/events/task/%d", ""},
	} {
		foreign, absent := s.call(c.method, fmt.Sprintf(c.path, task.ID), b, c.body), s.call(c.method, fmt.Sprintf(c.path, 999999), b, c.body)
		require.Equal(t, http.StatusNotFound, foreign.status, c.path)
		x, y := foreign.problem(t), absent.problem(t)
		x.RequestID, y.RequestID, x.Metadata, y.Metadata = "", "", nil, nil
		require.Equal(t, y, x)
	}
	p := s.call("POST", "/api/records/task", b, fmt.Sprintf(`{"name":"x","workflow_id":%d}`, flow.ID)).problem(t)
	require.Equal(t, "REFERENCE_MISSING", p.Errors[0].Reason)
	for _, path := range []string{"/api/records/task", "/api/records/workflow?external_id=e", "/api/events?aggregate_type=task"} {
		var list struct {
			Data  []json.RawMessage
			Total int64
		}
		s.call("GET", path, b, "").into(t, &list)
		require.Zero(t, list.Total, path)
		require.Empty(t, list.Data, path)
	}
	a := s.call("POST", "/api/records/workflow", b, `{"name":"mine","attributes":{"external_id":"e"}}`)
	require.Equal(t, http.StatusOK, a.status, "external ids are each organisation's own")
}

// TestRowLevelSecurity asks as the service's role, past the service's own conditions. The negative
// control: without the policies the same questions are answered.
func TestRowLevelSecurity(t *testing.T) {
	s := start(t, nil)
	s.ok("POST", "/api/records/task", `{"name":"Secret"}`, nil)
	tables := []string{"records", "credentials", "api_keys", "events", "audit_entries"}
	foreign := func(table string) (n int) {
		tx, err := s.g.pool.Begin(t.Context())
		require.NoError(t, err)
		defer func() { require.NoError(t, tx.Rollback(t.Context())) }()
		_, err = tx.Exec(t.Context(), "SELECT set_config('sametick.org_id', $1, true)", fmt.Sprint(s.b.OrgID))
		require.NoError(t, err)
		require.NoError(t, tx.QueryRow(t.Context(), "SELECT count(*) FROM sametick."+table+" WHERE org_id = $1", s.a.OrgID).Scan(&n))
		return n
	}
	for _, table := range tables {
		require.Zero(t, foreign(table), table)
	}
	_, err := s.g.pool.Exec(t.Context(), `INSERT INTO sametick.records (org_id, type, id, name) VALUES ($1, 'task', 1000000, 'x')`, s.a.OrgID)
	require.Error(t, err, "a write without an organisation")
	for _, table := range tables {
		_, err := s.admin.Exec(t.Context(), "ALTER TABLE sametick."+table+" DISABLE ROW LEVEL SECURITY")
		require.NoError(t, err)
		require.NotZero(t, foreign(table), "the question above finds a missing policy of %s", table)
	}
}

// TestGrants walks what the role may do with this service's tables, and that strangers may do nothing.
func TestGrants(t *testing.T) {
	db := database(t).Pool(t)
	rows, err := db.Query(t.Context(), `SELECT c.relname || ' ' || string_agg(p, ',' ORDER BY p) FROM pg_class c, unnest(ARRAY['SELECT','INSERT','UPDATE','DELETE','TRUNCATE']) p
		WHERE c.relnamespace = 'sametick'::regnamespace AND c.relname IN ('records', 'credentials', 'api_keys', 'refresh_tokens',
			'roles', 'user_roles', 'sessions', 'user_tokens', 'external_identities', 'login_attempts', 'types')
		AND has_table_privilege('sametick_api', c.oid, p) GROUP BY c.relname ORDER BY c.relname`)
	require.NoError(t, err)
	var got []string
	for rows.Next() {
		var line string
		require.NoError(t, rows.Scan(&line))
		got = append(got, line)
	}
	require.NoError(t, rows.Err())
	require.Equal(t, []string{"api_keys INSERT,SELECT", "credentials INSERT,SELECT", "external_identities INSERT,SELECT", "records INSERT,SELECT,UPDATE",
		"refresh_tokens INSERT", "roles INSERT,SELECT", "sessions INSERT,SELECT", "types INSERT,SELECT,UPDATE", "user_roles DELETE,INSERT,SELECT", "user_tokens INSERT,SELECT"}, got)
	var open int
	require.NoError(t, db.QueryRow(t.Context(), `SELECT count(*) FROM pg_proc WHERE pronamespace = 'sametick'::regnamespace AND prosecdef
		AND has_function_privilege('sametick_webhook', oid, 'EXECUTE') AND proname ~ '^(find_|rotate_|end_|renew_|finish_|begin_|require_|after_)'`).Scan(&open))
	require.Zero(t, open)
}

// TestConcurrentUpdates: with a version each writer knows what it changed; one wins each round.
func TestConcurrentUpdates(t *testing.T) {
	s := start(t, nil)
	api, ctx := recordsv1.NewRecordServiceClient(s.conn), as(t.Context(), s.a.APIKey)
	r, err := api.CreateRecord(ctx, &recordsv1.CreateRecordRequest{Type: "task", Name: "0"})
	require.NoError(t, err)
	const writers = 8
	var wg sync.WaitGroup
	outcomes := make([]codes.Code, writers)
	for i := range writers {
		wg.Go(func() {
			name, version := fmt.Sprint("writer ", i), int64(1)
			_, err := api.UpdateRecord(ctx, &recordsv1.UpdateRecordRequest{Type: "task", Id: r.GetId(), Name: &name, Version: &version})
			outcomes[i] = status.Code(err)
		})
	}
	wg.Wait()
	count := map[codes.Code]int{}
	for _, c := range outcomes {
		count[c]++
	}
	require.Equal(t, map[codes.Code]int{codes.OK: 1, codes.Aborted: writers - 1}, count)

	for i := range writers { // without one, all win, one after the other, and no change is lost
		wg.Go(func() {
			_, err := api.UpdateRecord(ctx, &recordsv1.UpdateRecordRequest{Type: "task", Id: r.GetId(), Attributes: &wirev1.Json{Text: fmt.Sprintf(`{"k%d":1}`, i)}})
			outcomes[i] = status.Code(err)
		})
	}
	wg.Wait()
	got, err := api.GetRecord(ctx, &recordsv1.GetRecordRequest{Type: "task", Id: r.GetId()})
	require.NoError(t, err)
	require.Equal(t, int64(2+writers), got.GetVersion())
	var attributes map[string]int
	require.NoError(t, json.Unmarshal([]byte(got.GetAttributes().GetText()), &attributes))
	require.Len(t, attributes, writers)
	var history wireEvents
	s.ok("GET", fmt.Sprintf("/api/events/task/%d", r.GetId()), "", &history)
	require.Equal(t, int64(2*(2+writers)), history.Total)
}

// TestExternalIDRace: many create the same at once; one wins and the others learn which record won.
func TestExternalIDRace(t *testing.T) {
	s := start(t, nil)
	const writers = 8
	answers := make([]answer, writers)
	var wg sync.WaitGroup
	for i := range writers {
		wg.Go(func() {
			answers[i] = s.call("POST", "/api/records/step", "", `{"name":"x","attributes":{"external_id":"same"}}`)
		})
	}
	wg.Wait()
	var list struct {
		Data  []wireRecord
		Total int64
	}
	s.ok("GET", "/api/records/step?external_id=same", "", &list)
	require.Equal(t, int64(1), list.Total)
	for _, a := range answers {
		if a.status == http.StatusOK {
			continue
		}
		require.Equal(t, http.StatusConflict, a.status, a.text)
		p := a.problem(t)
		require.Equal(t, "EXTERNAL_ID_EXISTS", p.Reason)
		require.Equal(t, fmt.Sprint(list.Data[0].ID), p.Metadata["id"])
	}
	var events wireEvents
	s.ok("GET", "/api/events?aggregate_type=step", "", &events)
	require.Equal(t, int64(2), events.Total, "the losers left no event")
	var other wireRecord
	s.ok("POST", "/api/records/step", `{"name":"y"}`, &other)
	a := s.call("PATCH", fmt.Sprintf("/api/records/step/%d", other.ID), "", `{"attributes":{"external_id":"same"}}`)
	require.Equal(t, "EXTERNAL_ID_EXISTS", a.problem(t).Reason)
}

// TestCrashBetweenStatements ends the server's process, or fails, at each statement of each mutation:
// nothing of it is left. The negative control is the last round, without a fault.
func TestCrashBetweenStatements(t *testing.T) {
	s := start(t, nil)
	ctx := t.Context()
	call := records.Call{OrgID: s.a.OrgID}
	made, err := s.g.records.Create(ctx, call, records.Draft{Type: "task", Name: "before"})
	require.NoError(t, err)
	_, err = s.admin.Exec(ctx, `CREATE FUNCTION public.fault() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
		BEGIN
		  IF TG_ARGV[0] = 'kill' THEN PERFORM pg_terminate_backend(pg_backend_pid()); END IF;
		  RAISE EXCEPTION 'injected fault';
		END $$`)
	require.NoError(t, err)
	state := func() (line string) {
		require.NoError(t, s.admin.QueryRow(ctx, `SELECT (SELECT count(*) || ' ' || sum(version) FROM sametick.records) || ' ' || (SELECT count(*) FROM sametick.events)
			|| ' ' || (SELECT count(*) FROM sametick.audit_entries) || ' ' || (SELECT sum(sequence) FROM sametick.aggregates)`).Scan(&line))
		return line
	}
	mutations := map[string]func() error{
		"create": func() error {
			_, err := s.g.records.Create(ctx, call, records.Draft{Type: "task", Name: "new"})
			return err
		},
		"update": func() error {
			_, err := s.g.records.Update(ctx, call, records.Update{Type: "task", ID: made.ID, Mask: []string{"name"}, Name: "after"})
			return err
		},
		"archive": func() error { _, err := s.g.records.Archive(ctx, call, "task", made.ID, nil); return err },
	}
	before := state()
	for _, table := range []string{"records", "aggregates", "events", "audit_entries"} {
		for _, how := range []string{"raise", "kill"} {
			_, err := s.admin.Exec(ctx, fmt.Sprintf(`CREATE TRIGGER fault AFTER INSERT OR UPDATE ON sametick.%s FOR EACH ROW EXECUTE FUNCTION public.fault('%s')`, table, how))
			require.NoError(t, err)
			for name, mutate := range mutations {
				require.Error(t, mutate(), "%s with %s at %s", name, how, table)
				require.Equal(t, before, state(), "%s with %s at %s", name, how, table)
			}
			_, err = s.admin.Exec(ctx, "DROP TRIGGER fault ON sametick."+table)
			require.NoError(t, err)
		}
	}
	for _, name := range []string{"create", "update", "archive"} {
		now := state()
		require.NoError(t, mutations[name]())
		require.NotEqual(t, now, state())
	}
}

func TestArchivedIsFinal(t *testing.T) {
	s := start(t, nil)
	var r wireRecord
	s.ok("POST", "/api/records/task", `{"name":"x"}`, &r)
	path := fmt.Sprintf("/api/records/task/%d", r.ID)
	a := s.call("DELETE", path+"?version=7", "", "")
	require.Equal(t, "VERSION_MISMATCH", a.problem(t).Reason)
	require.Equal(t, "1", a.problem(t).Metadata["version"])
	s.ok("DELETE", path+"?version=1", "", nil)
	require.Equal(t, "RECORD_ARCHIVED", s.call("PATCH", path, "", `{"name":"y"}`).problem(t).Reason)
}
