package app

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/csv"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/sametick/sametick/pkg/auth"
	recordsv1 "github.com/sametick/sametick/proto/gen/go/sametick/records/v1"
	"github.com/sametick/sametick/services/api-gateway/internal/records"
)

func contextSchema(t *testing.T) *jsonschema.Schema {
	f, err := os.Open("testdata/event_context.schema.json")
	require.NoError(t, err)
	defer func() { require.NoError(t, f.Close()) }()
	doc, err := jsonschema.UnmarshalJSON(f)
	require.NoError(t, err)
	c := jsonschema.NewCompiler()
	c.AssertFormat()
	require.NoError(t, c.AddResource("context.json", doc))
	return c.MustCompile("context.json")
}

// phases are what one record and one export of its type fire.
var phases = []string{"pre_create", "post_create", "pre_update", "post_update", "pre_archive", "post_archive",
	"pre_update", "post_update", "pre_export", "post_export"}

// Each type of records goes through all eight phases, over REST and over gRPC, and each event's payload is an
// EventContext. The seventeenth, webhook_endpoint, does so in webhook-worker, internal/grpcapi.
func TestAllPhasesOfEveryType(t *testing.T) {
	s := start(t, nil)
	schema := contextSchema(t)
	api, ctx := recordsv1.NewRecordServiceClient(s.conn), as(t.Context(), s.a.APIKey)
	overREST := func(typ string) {
		var r wireRecord
		s.ok("POST", "/api/records/"+typ, `{"name":"First"}`, &r)
		path := fmt.Sprintf("/api/records/%s/%d", typ, r.ID)
		s.ok("PATCH", path, `{"name":"Second","attributes":{"note":"x"}}`, nil)
		s.ok("DELETE", path, "", &r)
		require.NotNil(t, r.ArchivedAt)
		s.ok("POST", path+":restore", "{}", &r)
		require.Nil(t, r.ArchivedAt)
		require.Equal(t, http.StatusOK, s.call("POST", "/api/records/"+typ+":export", "", "").status)
	}
	overGRPC := func(typ string) {
		r, err := api.CreateRecord(ctx, &recordsv1.CreateRecordRequest{Type: typ, Name: "First"})
		require.NoError(t, err)
		name := "Second"
		_, err = api.UpdateRecord(ctx, &recordsv1.UpdateRecordRequest{Type: typ, Id: r.GetId(), Name: &name})
		require.NoError(t, err)
		_, err = api.ArchiveRecord(ctx, &recordsv1.ArchiveRecordRequest{Type: typ, Id: r.GetId()})
		require.NoError(t, err)
		r, err = api.RestoreRecord(ctx, &recordsv1.RestoreRecordRequest{Type: typ, Id: r.GetId()})
		require.NoError(t, err)
		require.Nil(t, r.GetArchivedAt())
		_, _, err = export(s, api, &recordsv1.ExportRecordsRequest{Type: typ})
		require.NoError(t, err)
	}
	for _, typ := range recordTypes() {
		for how, walk := range map[string]func(string){"REST": overREST, "gRPC": overGRPC} {
			t.Run(typ+" over "+how, func(t *testing.T) {
				var before, after wireEvents
				s.ok("GET", "/api/events?limit=1&aggregate_type="+typ, "", &before)
				walk(typ)
				s.ok("GET", "/api/events?limit=20&aggregate_type="+typ, "", &after)
				require.EqualValues(t, len(phases), after.Total-before.Total)
				for i, phase := range phases {
					e := after.Data[len(phases)-1-i]
					require.Equal(t, typ+"."+phase, e.EventType)
					require.NoError(t, schema.Validate(any(e.Payload)), "%s: %v", e.EventType, e.Payload)
				}
			})
		}
	}
	// The control: the schema finds what is no EventContext.
	for _, bad := range []map[string]any{{}, {"org_id": "1"}} {
		require.Error(t, schema.Validate(any(bad)))
	}
}

// export reads a whole export over gRPC.
func export(s *suite, api recordsv1.RecordServiceClient, req *recordsv1.ExportRecordsRequest) ([]byte, *recordsv1.ExportSummary, error) {
	stream, err := api.ExportRecords(as(s.t.Context(), s.a.APIKey), req)
	if err != nil {
		return nil, nil, err
	}
	var all bytes.Buffer
	var summary *recordsv1.ExportSummary
	for {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return all.Bytes(), summary, nil
		}
		if err != nil {
			return nil, nil, err
		}
		all.Write(m.GetData())
		summary = m.GetSummary()
	}
}

func (s *suite) exported(typ, body string) (*http.Response, []byte, error) {
	req, err := http.NewRequestWithContext(s.t.Context(), http.MethodPost, s.url+"/api/records/"+typ+":export", strings.NewReader(body))
	require.NoError(s.t, err)
	req.Header.Set("Authorization", "Bearer "+s.a.APIKey)
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	res, err := client.Do(req)
	require.NoError(s.t, err)
	defer func() { require.NoError(s.t, res.Body.Close()) }()
	text, err := io.ReadAll(res.Body)
	return res, text, err
}

func TestExport(t *testing.T) {
	s := start(t, nil)
	names := []string{"plain", `=cmd|' /C calc'!A0`, "two\r\nlines, \"quoted\"", "-1", "@x", "ключ 🔑"}
	var made []wireRecord
	for _, name := range names {
		body, err := json.Marshal(map[string]any{"name": name, "attributes": map[string]any{"k": name}})
		require.NoError(t, err)
		var r wireRecord
		s.ok("POST", "/api/records/task", string(body), &r)
		made = append(made, r)
	}
	s.ok("DELETE", fmt.Sprintf("/api/records/task/%d", made[3].ID), "", nil)

	res, text, err := s.exported("task", `{"include_archived":true}`)
	require.NoError(t, err)
	require.Equal(t, "application/x-ndjson", res.Header.Get("Content-Type"))
	require.Equal(t, `attachment; filename="task.ndjson"`, res.Header.Get("Content-Disposition"))
	lines := strings.Split(strings.TrimSuffix(string(text), "\n"), "\n")
	require.Len(t, lines, len(names))
	for i, line := range lines {
		one := s.call("GET", fmt.Sprintf("/api/records/task/%d", made[i].ID), "", "")
		require.Equal(t, one.text, line, "each line is the record as REST shows it")
	}
	sum := sha256.Sum256(text)
	require.Equal(t, hex.EncodeToString(sum[:]), res.Trailer.Get("Sametick-Sha256"))
	require.Equal(t, "6", res.Trailer.Get("Sametick-Count"))

	res, text, err = s.exported("task", `{"format":"csv"}`)
	require.NoError(t, err)
	require.Equal(t, "text/csv; charset=utf-8", res.Header.Get("Content-Type"))
	rows, err := csv.NewReader(bytes.NewReader(text)).ReadAll()
	require.NoError(t, err)
	require.Len(t, rows, len(names), "a head, and all but the archived one")
	require.Equal(t, "'"+names[1], rows[2][2], "no formula")
	require.Equal(t, "two\nlines, \"quoted\"", rows[3][2]) // encoding/csv reads \r\n as \n
	require.JSONEq(t, string(made[0].Attributes), rows[1][9])

	overGRPC, summary, err := export(s, recordsv1.NewRecordServiceClient(s.conn), &recordsv1.ExportRecordsRequest{Type: "task", Format: "csv"})
	require.NoError(t, err)
	require.Equal(t, text, overGRPC)
	require.Equal(t, res.Trailer.Get("Sametick-Sha256"), summary.GetSha256())

	var last wireEvents
	s.ok("GET", "/api/events?event_type=task.post_export", "", &last)
	require.EqualValues(t, 3, last.Total)
	require.Equal(t, summary.GetSha256(), last.Data[0].Payload["sha256"])
	require.InDelta(t, 5, last.Data[0].Payload["count"], 0)

	for body, reason := range map[string]string{`{"format":"xml"}`: "NOT_IN_ENUM", `{"type":"team"}`: "UNKNOWN_FIELD", `{"workflow_id":0}`: "OUT_OF_RANGE"} {
		p := s.call("POST", "/api/records/task:export", "", body).problem(t)
		require.Equal(t, reason, p.Errors[0].Reason, body)
	}
	require.Equal(t, "UNKNOWN_TYPE", s.call("POST", "/api/records/unicorn:export", "", "").problem(t).Errors[0].Reason)
	require.Equal(t, http.StatusUnauthorized, s.call("POST", "/api/records/task:export", "-", "").status)
	require.Equal(t, http.StatusMethodNotAllowed, s.call("GET", "/api/records/task:export", "", "").status)
	b := s.call("POST", "/api/records/task:export", s.b.APIKey, "")
	require.Empty(t, b.text, "another organisation exports its own: nothing")
}

// fill puts n records of about a kilobyte into an organisation, past the API.
func (s *suite) fill(n int) {
	_, err := s.admin.Exec(s.t.Context(), `INSERT INTO sametick.records (org_id, type, id, name, attributes)
SELECT $1, 'task', 1000000 + i, 'task ' || i, jsonb_build_object('text', repeat(md5(i::text), 32)) FROM generate_series(1, $2::int) i`, s.a.OrgID, n)
	require.NoError(s.t, err)
}

// An export takes the same memory whatever its size: 50,000 records are 55 MB.
func TestExportTakesConstantMemory(t *testing.T) {
	s := start(t, nil)
	s.fill(50_000)
	stream, err := recordsv1.NewRecordServiceClient(s.conn).ExportRecords(as(t.Context(), s.a.APIKey), &recordsv1.ExportRecordsRequest{Type: "task"})
	require.NoError(t, err)
	heap := func() uint64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before, most, bytes, chunks := heap(), uint64(0), 0, 0
	for {
		m, err := stream.Recv()
		require.NoError(t, err)
		bytes += len(m.GetData())
		if chunks++; chunks%200 == 0 {
			most = max(most, heap())
		}
		if m.GetSummary() != nil {
			require.EqualValues(t, 50_000, m.GetSummary().GetCount())
			break
		}
	}
	require.Greater(t, bytes, 50<<20)
	require.Less(t, most, before+16<<20)
}

// A client that goes away in the middle leaves an audit entry that says so, and nobody takes what it has for
// the whole.
func TestExportCutOff(t *testing.T) {
	s := start(t, nil)
	s.fill(20_000)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.url+"/api/records/task:export", nil)
	require.NoError(t, err)
	req.Header.Set("Authorization", "Bearer "+s.a.APIKey)
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	res, err := client.Do(req)
	require.NoError(t, err)
	_, err = io.ReadFull(res.Body, make([]byte, 100))
	require.NoError(t, err)
	require.NoError(t, res.Body.Close())
	outcomes := func() (list string) {
		require.NoError(t, s.admin.QueryRow(t.Context(), `SELECT coalesce(string_agg(action || ' ' || outcome, ', ' ORDER BY id), '') FROM sametick.audit_entries
			WHERE aggregate_type = 'task'`).Scan(&list))
		return list
	}
	for outcomes() != "export applied, export_failed failed" {
		require.NoError(t, t.Context().Err())
		runtime.Gosched()
	}
	// In the middle, the server's end: the client's read fails.
	stream, err := recordsv1.NewRecordServiceClient(s.conn).ExportRecords(as(t.Context(), s.a.APIKey), &recordsv1.ExportRecordsRequest{Type: "task"})
	require.NoError(t, err)
	_, err = stream.Recv()
	require.NoError(t, err)
	_, err = s.admin.Exec(t.Context(), `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'sametick_api' AND query LIKE '%ORDER BY id' AND state = 'active'`)
	require.NoError(t, err)
	for err == nil {
		_, err = stream.Recv()
	}
	require.NotErrorIs(t, err, io.EOF)
}

// Who goes away right after the last byte has it all: the export's end is told.
func TestExportGoneAtTheEnd(t *testing.T) {
	s := start(t, nil)
	s.fill(1)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	summary, err := s.g.records.Export(ctx, records.Call{OrgID: s.a.OrgID, ActorID: &s.a.UserID}, records.Query{Type: "task"}, "",
		func([]byte) error { cancel(); return nil })
	require.NoError(t, err)
	require.EqualValues(t, 1, summary.Count)
}

func TestIfMatch(t *testing.T) {
	s := start(t, nil)
	a := s.call("POST", "/api/records/task", "", `{"name":"x"}`)
	require.Equal(t, `"1"`, a.header.Get("ETag"))
	var r wireRecord
	a.into(t, &r)
	path := fmt.Sprintf("/api/records/task/%d", r.ID)
	with := func(method, path, match, body string) answer {
		req, err := http.NewRequestWithContext(t.Context(), method, s.url+path, strings.NewReader(body))
		require.NoError(t, err)
		req.Header.Set("Authorization", "Bearer "+s.a.APIKey)
		req.Header.Set("If-Match", match)
		return s.do(req)
	}
	require.Equal(t, `"2"`, with("PATCH", path, `"1"`, `{"name":"y"}`).header.Get("ETag"))
	for _, c := range []struct{ method, path, body string }{{"PATCH", path, `{"name":"z"}`}, {"DELETE", path, ""}, {"POST", path + ":restore", "{}"}} {
		stale := with(c.method, c.path, `"1"`, c.body)
		require.Equal(t, http.StatusPreconditionFailed, stale.status, c.method)
		p := stale.problem(t)
		require.Equal(t, "VERSION_MISMATCH", p.Reason)
		require.Equal(t, "2", p.Metadata["version"])
	}
	for _, bad := range []string{`1`, `W/"1"`, `"x"`, `"0"`, `"1", "2"`, `"-1"`, `"99999999999999999999"`, `""`} {
		p := with("PATCH", path, bad, `{"name":"z"}`).problem(t)
		require.Equal(t, "If-Match", p.Errors[0].Field, bad)
	}
	require.Equal(t, "CONFLICTS_WITH_IF_MATCH", with("PATCH", path, `"2"`, `{"name":"z","version":1}`).problem(t).Errors[0].Reason)
	require.Equal(t, http.StatusConflict, s.call("PATCH", path, "", `{"name":"z","version":1}`).status, "by the body it stays a conflict")
	require.Equal(t, http.StatusOK, with("PATCH", path, `*`, `{"name":"z"}`).status)
	require.Equal(t, `"4"`, with("DELETE", path, `"3"`, "").header.Get("ETag"))
	require.Equal(t, `"5"`, with("POST", path+":restore", `"4"`, "{}").header.Get("ETag"))
	require.Equal(t, `"5"`, s.call("POST", path+":restore", "", "{}").header.Get("ETag"), "what is not archived stays as it is")

	// Whatever shows an ETag keeps it.
	role, user := s.role("clerk", auth.RecordsRead), wireUser{}
	s.ok("POST", "/api/users", fmt.Sprintf(`{"name":"Ann","email":"ann@example.com","password":"a long enough secret","roles":[%d]}`, role.ID), &user)
	s.ok("POST", "/api/types", `{"name":"invoice","schema":{"type":"object"}}`, nil)
	var definition struct{ ID int64 }
	s.ok("POST", "/api/workflows/definitions", `{"name":"Hire","steps":[{"key":"a","name":"A"}]}`, &definition)
	for path, body := range map[string]string{fmt.Sprintf("/api/roles/%d", role.ID): `{"name":"x"}`, fmt.Sprintf("/api/users/%d", user.ID): `{"name":"x"}`,
		"/api/organization": `{"name":"x"}`, "/api/types/invoice": `{"description":"x"}`, fmt.Sprintf("/api/workflows/definitions/%d", definition.ID): `{"name":"x"}`} {
		require.Equal(t, `"1"`, s.call("GET", path, "", "").header.Get("ETag"), path)
		for _, method := range []string{"PATCH", "DELETE"} {
			sent := map[string]string{"PATCH": body}[method]
			require.Equal(t, http.StatusPreconditionFailed, with(method, path, `"7"`, sent).status, "%s %s", method, path)
		}
		require.Equal(t, `"2"`, with("PATCH", path, `"1"`, body).header.Get("ETag"), path)
	}
	require.Equal(t, "NOT_SUPPORTED", with("POST", "/api/records/task", `"1"`, `{"name":"x"}`).problem(t).Errors[0].Reason)
}

func TestBatch(t *testing.T) {
	s := start(t, nil)
	var flow, one, two wireRecord
	s.ok("POST", "/api/records/workflow", `{"name":"Hire"}`, &flow)
	s.ok("POST", "/api/records/task", `{"name":"one"}`, &one)
	s.ok("POST", "/api/records/task", `{"name":"two","attributes":{"external_id":"e2"}}`, &two)
	var made struct{ Data []wireRecord }
	s.ok("POST", "/api/records/task:batch", fmt.Sprintf(`{"operations":[{"create":{"name":"new","workflow_id":%d}},{"update":{"id":%d,"name":"ONE","workflow_id":%d}},
		{"archive":{"id":%d}},{"update":{"id":%d,"attributes":{"a":1}}}]}`, flow.ID, two.ID, flow.ID, one.ID, made0(s)), &made)
	require.Len(t, made.Data, 4)
	require.Equal(t, []string{"new", "ONE", "one"}, []string{made.Data[0].Name, made.Data[1].Name, made.Data[2].Name})
	require.NotNil(t, made.Data[2].ArchivedAt)
	var history wireEvents
	s.ok("GET", fmt.Sprintf("/api/events/task/%d", two.ID), "", &history)
	require.Equal(t, "Hire", history.Data[3].Payload["workflow_name"])

	total := func() (n int) {
		require.NoError(t, s.admin.QueryRow(t.Context(), `SELECT count(*) FROM sametick.events`).Scan(&n))
		return n
	}
	before := total()
	refuse := func(status int, body string, want ...string) {
		t.Helper()
		a := s.call("POST", "/api/records/task:batch", "", body)
		require.Equal(t, status, a.status, a.text)
		var got []string
		for _, e := range a.problem(t).Errors {
			got = append(got, e.Field+" "+e.Reason)
		}
		require.Equal(t, want, got)
		require.Equal(t, before, total(), "all or nothing")
	}
	refuse(400, `{"operations":[]}`, "operations OUT_OF_RANGE")
	refuse(400, `{"operations":[{"create":{"name":""}},{"create":{"name":"x"}},{"update":{"id":0,"attributes":[]}},{}]}`,
		"operations[0].create.name REQUIRED", "operations[2].update.id OUT_OF_RANGE", "operations[2].update.attributes NOT_AN_OBJECT", "operations[3] NOT_ONE")
	refuse(400, fmt.Sprintf(`{"operations":[{"update":{"id":%d,"name":"x"}},{"archive":{"id":%d}}]}`, two.ID, two.ID), "operations[1] DUPLICATE")
	refuse(400, `{"operations":[{"create":{"name":1}}]}`, "operations[0].create.name INVALID_TYPE")
	refuse(409, fmt.Sprintf(`{"operations":[{"create":{"name":"x","workflow_id":99999999}},{"update":{"id":%d,"name":"x","version":1}},{"update":{"id":99999999,"name":"x"}},{"update":{"id":%d,"name":"x"}}]}`, two.ID, one.ID),
		"operations[0].create.workflow_id REFERENCE_MISSING", "operations[1] VERSION_MISMATCH", "operations[2] RECORD_NOT_FOUND", "operations[3] RECORD_ARCHIVED")
	refuse(409, `{"operations":[{"create":{"name":"x"}},{"create":{"name":"y","attributes":{"external_id":"e2"}}}]}`, "operations[1] EXTERNAL_ID_EXISTS")
	b := s.call("POST", "/api/records/task:batch", s.b.APIKey, fmt.Sprintf(`{"operations":[{"update":{"id":%d,"name":"x"}}]}`, two.ID))
	require.Equal(t, "RECORD_NOT_FOUND", b.problem(t).Errors[0].Reason)
	large := `{"operations":[` + strings.Repeat(`{"create":{"name":"x"}},`, 1000) + `{"create":{"name":"x"}}]}`
	refuse(400, large, "operations OUT_OF_RANGE")
}

func made0(s *suite) int64 {
	var r wireRecord
	s.ok("POST", "/api/records/task", `{"name":"three"}`, &r)
	return r.ID
}

// A thousand records of 10 KB in one transaction; two batches of the same records in opposite orders wait for
// each other and do not deadlock.
func TestLargeAndConcurrentBatches(t *testing.T) {
	s := start(t, nil)
	var list []string
	for i := range 1000 {
		list = append(list, fmt.Sprintf(`{"create":{"name":"r%d","attributes":{"text":%q}}}`, i, strings.Repeat("x", 10_000)))
	}
	var made struct{ Data []wireRecord }
	s.ok("POST", "/api/records/task:batch", `{"operations":[`+strings.Join(list, ",")+`]}`, &made)
	require.Len(t, made.Data, 1000)
	api := recordsv1.NewRecordServiceClient(s.conn)
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			for round := range 10 {
				req := &recordsv1.BatchRecordsRequest{Type: "task"}
				for i := range 20 {
					at := i
					if w%2 == 0 {
						at = 19 - i
					}
					name := fmt.Sprint(w, round)
					req.Operations = append(req.Operations, &recordsv1.Operation{Update: &recordsv1.Operation_Update{Id: made.Data[at].ID, Name: &name}})
				}
				_, err := api.BatchRecords(as(t.Context(), s.a.APIKey), req)
				if status.Code(err) != codes.OK {
					t.Errorf("batch: %v", err)
				}
			}
		})
	}
	wg.Wait()
	r := s.call("GET", fmt.Sprintf("/api/records/task/%d", made.Data[0].ID), "", "")
	require.Equal(t, `"41"`, r.header.Get("ETag"), "each of forty updates counts")
}
