package app

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func (s *suite) keyed(method, path, key, body string) answer {
	s.t.Helper()
	req, err := http.NewRequestWithContext(s.t.Context(), method, s.url+path, strings.NewReader(body))
	require.NoError(s.t, err)
	req.Header.Set("Authorization", "Bearer "+s.a.APIKey)
	req.Header.Set("Idempotency-Key", key)
	return s.do(req)
}

func (s *suite) count(table string) (n int) {
	s.t.Helper()
	require.NoError(s.t, s.admin.QueryRow(s.t.Context(), "SELECT count(*) FROM sametick."+table).Scan(&n))
	return n
}

func TestIdempotencyKey(t *testing.T) {
	s := start(t, nil)
	before := s.count("events")
	one := s.keyed("POST", "/api/records/task", "k1", `{"name":"x"}`)
	require.Equal(t, http.StatusOK, one.status, one.text)
	require.Empty(t, one.header.Get("Idempotency-Replayed"))
	again := s.keyed("POST", "/api/records/task", "k1", `{ "name" : "x" }`)
	require.Equal(t, "true", again.header.Get("Idempotency-Replayed"))
	require.Equal(t, one.text, again.text)
	require.Equal(t, `"1"`, again.header.Get("ETag"))
	require.Equal(t, before+2, s.count("events"), "done once")

	for _, other := range []answer{s.keyed("POST", "/api/records/task", "k1", `{"name":"y"}`), s.keyed("POST", "/api/records/team", "k1", `{"name":"x"}`),
		s.keyed("POST", "/api/types", "k1", `{"name":"invoice","schema":{"type":"object"}}`)} {
		require.Equal(t, http.StatusUnprocessableEntity, other.status)
		require.Equal(t, "IDEMPOTENCY_KEY_REUSED", other.problem(t).Reason)
	}
	// A failed call leaves no claim, nor anything else.
	require.Equal(t, http.StatusBadRequest, s.keyed("POST", "/api/records/task", "k2", `{"name":""}`).status)
	require.Equal(t, http.StatusOK, s.keyed("POST", "/api/records/task", "k2", `{"name":"now it has one"}`).status)

	var r wireRecord
	one.into(t, &r)
	path := fmt.Sprintf("/api/records/task/%d", r.ID)
	for range 2 { // every way that the store writes in
		require.Equal(t, `"2"`, s.keyed("PATCH", path, "k3", `{"name":"y"}`).header.Get("ETag"))
		require.Equal(t, http.StatusOK, s.keyed("POST", "/api/records/task:batch", "k4", fmt.Sprintf(`{"operations":[{"create":{"name":"b"}},{"update":{"id":%d,"name":"z"}}]}`, r.ID)).status)
		require.Equal(t, http.StatusOK, s.keyed("DELETE", path, "k5", "").status)
		require.Equal(t, http.StatusOK, s.keyed("POST", "/api/types", "k6", `{"name":"invoice","schema":{"type":"object"}}`).status)
		require.Equal(t, http.StatusOK, s.keyed("POST", "/api/workflows/definitions", "k7", hiring).status)
	}
	require.Equal(t, `"4"`, s.call("GET", path, "", "").header.Get("ETag"))
	require.Equal(t, 1, s.count("types"))
	require.Equal(t, 1, s.count("workflow_definitions"))

	// What a key is refused for is told as whole as without one.
	unique := `{"name":"x","attributes":{"external_id":"e1"}}`
	var first wireRecord
	s.ok("POST", "/api/records/task", unique, &first)
	require.Equal(t, fmt.Sprint(first.ID), s.keyed("POST", "/api/records/task", "taken", unique).problem(t).Metadata["id"])

	// The secret that is shown once is given again, and the table does not have it.
	key := s.keyed("POST", "/api/api-keys", "k8", `{"name":"ci","scopes":["records:read"]}`)
	require.Equal(t, key.text, s.keyed("POST", "/api/api-keys", "k8", `{"name":"ci","scopes":["records:read"]}`).text)
	var made struct{ Secret string }
	key.into(t, &made)
	var seen int
	require.NoError(t, s.admin.QueryRow(t.Context(), `SELECT count(*) FROM sametick.idempotency_keys WHERE position($1::bytea IN answer) > 0 OR position('k8'::bytea IN key_hash) > 0`,
		[]byte(made.Secret)).Scan(&seen))
	require.Zero(t, seen)
	revoked := s.keyed("DELETE", "/api/api-keys/"+fmt.Sprint(s.idOfKey("ci")), "k9", "")
	require.Contains(t, revoked.text, `"archived_at":"`, "a read in the transaction sees what it has written")

	for bad, reason := range map[string]string{strings.Repeat("x", 256): "INVALID_KEY", "ключ": "INVALID_KEY"} {
		require.Equal(t, reason, s.keyed("POST", "/api/records/task", bad, `{"name":"x"}`).problem(t).Errors[0].Reason)
	}
	require.Equal(t, "NOT_SUPPORTED", s.keyed("POST", "/api/auth/login", "k1", `{"email":"a@b.c","password":"x"}`).problem(t).Errors[0].Reason)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.url+"/api/auth/password", strings.NewReader(`{}`))
	require.NoError(t, err)
	req.Header.Set("Authorization", "Bearer "+s.session().AccessToken)
	req.Header.Set("Idempotency-Key", "k1")
	require.Equal(t, "NOT_SUPPORTED", s.do(req).problem(t).Errors[0].Reason, "tries of a password count, whatever becomes of the call")
	// Another caller's keys, and yesterday's, are others.
	require.Equal(t, http.StatusOK, s.call("POST", "/api/records/task", s.b.APIKey, `{"name":"x"}`).status)
	_, err = s.admin.Exec(t.Context(), `UPDATE sametick.idempotency_keys SET created_at = now() - interval '26 hours'`)
	require.NoError(t, err)
	require.Empty(t, s.keyed("POST", "/api/records/task", "k1", `{"name":"y"}`).header.Get("Idempotency-Replayed"))
	require.NoError(t, s.g.store.ForgetKeys(t.Context()))
	require.Equal(t, 1, s.count("idempotency_keys"))
}

func (s *suite) idOfKey(name string) (id int64) {
	require.NoError(s.t, s.admin.QueryRow(s.t.Context(), `SELECT id FROM sametick.records WHERE type = 'api_key' AND name = $1`, name).Scan(&id))
	return id
}

// Of many calls at once with one key one is done, and all get its answer.
func TestConcurrentIdempotencyKey(t *testing.T) {
	s := start(t, nil)
	before := s.count("events")
	const callers = 30 // more than there are connections
	answers := make([]answer, callers)
	var wg sync.WaitGroup
	for i := range callers {
		wg.Go(func() { answers[i] = s.keyed("POST", "/api/records/task", "same", `{"name":"x"}`) })
	}
	wg.Wait()
	replayed := 0
	for _, a := range answers {
		require.Equal(t, http.StatusOK, a.status, a.text)
		require.Equal(t, answers[0].text, a.text)
		if a.header.Get("Idempotency-Replayed") == "true" {
			replayed++
		}
	}
	require.Equal(t, callers-1, replayed)
	require.Equal(t, before+2, s.count("events"))
}

// A server that is cut off between the write and its commit has done nothing: the same key does it then.
func TestIdempotencyOverACrash(t *testing.T) {
	s := start(t, nil)
	_, err := s.admin.Exec(t.Context(), `CREATE FUNCTION pg_temp_cut() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); RETURN NEW; END $$`)
	require.NoError(t, err)
	_, err = s.admin.Exec(t.Context(), `CREATE TRIGGER cut AFTER UPDATE ON sametick.idempotency_keys FOR EACH ROW EXECUTE FUNCTION pg_temp_cut()`)
	require.NoError(t, err)
	before := s.count("records")
	require.NotEqual(t, http.StatusOK, s.keyed("POST", "/api/records/task", "k", `{"name":"x"}`).status)
	require.Equal(t, before, s.count("records"))
	require.Zero(t, s.count("idempotency_keys"))
	_, err = s.admin.Exec(t.Context(), `DROP TRIGGER cut ON sametick.idempotency_keys`)
	require.NoError(t, err)
	require.Equal(t, http.StatusOK, s.keyed("POST", "/api/records/task", "k", `{"name":"x"}`).status)
	require.Equal(t, before+1, s.count("records"))
}

// halt keeps a call with a key from committing once it has done its work, until the test lets go.
func (s *suite) halt() (halted, release func()) {
	s.t.Helper()
	tx, err := s.admin.Begin(s.t.Context())
	require.NoError(s.t, err)
	s.t.Cleanup(func() { _ = tx.Rollback(context.Background()) }) // of a test that failed
	_, err = tx.Exec(s.t.Context(), `SELECT pg_advisory_xact_lock(4711)`)
	require.NoError(s.t, err)
	return func() {
		s.t.Helper()
		require.Eventually(s.t, func() bool {
			var waits bool
			err := s.admin.QueryRow(s.t.Context(), `SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND objid = 4711 AND NOT granted)`).Scan(&waits)
			return err == nil && waits
		}, 4*time.Second, 5*time.Millisecond)
	}, func() { require.NoError(s.t, tx.Rollback(s.t.Context())) }
}

// TestRelayWokenForKey once there is something to see.
func TestRelayWokenForKey(t *testing.T) {
	s := start(t, nil)
	before, seen := s.count("events"), 0
	s.g.changed.do = func() { seen = s.count("events") }
	require.Equal(t, http.StatusOK, s.keyed("POST", "/api/records/task", "k", `{"name":"x"}`).status)
	require.Equal(t, before+2, seen)
}

// TestChangesWithKeyAreSeenAtOnce: who asks between a change and its commit learns how it was before, and that must
// not be believed any longer than until the commit.
func TestChangesWithKeyAreSeenAtOnce(t *testing.T) {
	s := start(t, nil)
	key, secret := s.key("", `{"name":"ci","scopes":["records:read"]}`)
	schema := func(most int) string {
		return fmt.Sprintf(`"schema":{"type":"object","properties":{"no":{"type":"integer","maximum":%d}}}`, most)
	}
	s.ok("POST", "/api/types", `{"name":"invoice",`+schema(9)+`}`, nil)
	for _, statement := range []string{`CREATE FUNCTION public.halt() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_advisory_xact_lock(4711); RETURN NEW; END $$`,
		`CREATE TRIGGER halt AFTER UPDATE ON sametick.idempotency_keys FOR EACH ROW EXECUTE FUNCTION public.halt()`} {
		_, err := s.admin.Exec(t.Context(), statement)
		require.NoError(t, err)
	}
	for i, c := range []struct {
		method, path, body string
		ask                func() answer
		before, after      int
	}{
		{"DELETE", fmt.Sprintf("/api/api-keys/%d", key.ID), "", func() answer { return s.call("GET", create, secret, "") }, http.StatusOK, http.StatusUnauthorized},
		{"PATCH", "/api/types/invoice", "{" + schema(99) + "}", func() answer {
			return s.call("POST", "/api/records/invoice", "", `{"name":"x","attributes":{"no":10}}`)
		}, http.StatusBadRequest, http.StatusOK},
	} {
		halted, release := s.halt()
		var wg sync.WaitGroup
		var changed answer
		wg.Go(func() { changed = s.keyed(c.method, c.path, fmt.Sprint("k", i), c.body) })
		halted()
		require.Equal(t, c.before, c.ask().status, c.path)
		release()
		wg.Wait()
		require.Equal(t, http.StatusOK, changed.status, changed.text)
		a := c.ask()
		require.Equal(t, c.after, a.status, "%s: %s", c.path, a.text)
	}
}
