package app

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/sametick/sametick/pkg/auth"
	recordsv1 "github.com/sametick/sametick/proto/gen/go/sametick/records/v1"
	wirev1 "github.com/sametick/sametick/proto/gen/go/sametick/wire/v1"
)

// bad is a request that must be refused, and how.
type bad struct {
	name, method, path, body string
	status                   int
	reason, field            string
	// contains is in the field's description, or in the detail where there is no field.
	contains string
}

const create = "/api/records/task"

func badBodies() []bad {
	deep := strings.Repeat("[", 40) + strings.Repeat("]", 40)
	return []bad{
		{"empty", "POST", create, ``, 400, "EMPTY_BODY", "", "JSON object"},
		{"malformed", "POST", create, `{"name":"x",}`, 400, "MALFORMED_JSON", "", "byte 11"},
		{"cut off", "POST", create, `{"name":"x"`, 400, "MALFORMED_JSON", "", "byte"},
		{"no object", "POST", create, `[]`, 400, "MALFORMED_JSON", "", "object"},
		{"two values", "POST", create, `{"name":"x"} {}`, 400, "MALFORMED_JSON", "", "follows"},
		{"form", "POST", create, `name=x`, 400, "MALFORMED_JSON", "", "byte 1"},
		{"unknown field", "POST", create, `{"name":"x","colour":"red"}`, 400, "INVALID_REQUEST", "colour", "name, attributes, workflow_id, step_id"},
		{"field of the path", "POST", create, `{"name":"x","type":"user"}`, 400, "INVALID_REQUEST", "type", "one of: name"},
		{"mask in the body", "PATCH", create + "/1", `{"update_mask":"name"}`, 400, "INVALID_REQUEST", "update_mask", "one of: name"},
		{"duplicate key", "POST", create, `{"name":"x","name":"y"}`, 400, "DUPLICATE_KEY", "name", "twice"},
		{"no name", "POST", create, `{}`, 400, "INVALID_REQUEST", "name", "1 to 500"},
		{"null name", "POST", create, `{"name":null}`, 400, "INVALID_REQUEST", "name", "1 to 500"},
		{"name is a number", "POST", create, `{"name":1}`, 400, "INVALID_REQUEST", "name", "a string"},
		{"long name", "POST", create, `{"name":"` + strings.Repeat("é", 501) + `"}`, 400, "INVALID_REQUEST", "name", "1 to 500"},
		{"NUL in name", "POST", create, `{"name":"a\u0000b"}`, 400, "NUL_CHARACTER", "name", "NUL"},
		{"raw NUL in name", "POST", create, "{\"name\":\"a\x00b\"}", 400, "MALFORMED_JSON", "name", "byte"},
		{"NUL in attributes", "POST", create, `{"name":"x","attributes":{"a":{"b":"\u0000"}}}`, 400, "NUL_CHARACTER", "attributes.a.b", "NUL"},
		{"NUL in a key", "POST", create, `{"name":"x","attributes":{"\u0000":1}}`, 400, "NUL_CHARACTER", `attributes.\x00`, "NUL"},
		{"lone surrogate", "POST", create, `{"name":"\ud800"}`, 400, "LONE_SURROGATE", "name", "surrogate"},
		{"surrogates swapped", "POST", create, `{"name":"x","attributes":{"a":["\udc00\ud800"]}}`, 400, "LONE_SURROGATE", "attributes.a.0", "surrogate"},
		{"invalid UTF-8", "POST", create, "{\"name\":\"\xff\"}", 400, "INVALID_UTF8", "", "byte 9"},
		{"encoded surrogate", "POST", create, "{\"name\":\"\xed\xa0\x80\"}", 400, "INVALID_UTF8", "", "byte 9"},
		{"attributes no object", "POST", create, `{"name":"x","attributes":[1]}`, 400, "INVALID_REQUEST", "attributes", "object"},
		{"attributes a string", "POST", create, `{"name":"x","attributes":"{}"}`, 400, "INVALID_REQUEST", "attributes", "object"},
		{"attributes too deep", "POST", create, `{"name":"x","attributes":{"a":` + deep + `}}`, 400, "INVALID_REQUEST", "attributes", "32 levels"},
		{"body too deep", "POST", create, strings.Repeat("[", 5000), 400, "TOO_DEEP", "", "100"},
		{"attributes too large", "POST", create, `{"name":"x","attributes":{"a":"` + strings.Repeat("x", 256<<10) + `"}}`, 400, "INVALID_REQUEST", "attributes", "262144"},
		{"duplicate in attributes", "POST", create, `{"name":"x","attributes":{"a":1,"a":2}}`, 400, "DUPLICATE_KEY", "attributes.a", "twice"},
		{"enormous number", "POST", create, `{"name":"x","attributes":{"a":1e999999}}`, 400, "INVALID_REQUEST", "attributes.a", "308"},
		{"long external id", "POST", create, `{"name":"x","attributes":{"external_id":"` + strings.Repeat("x", 256) + `"}}`, 400, "INVALID_REQUEST", "attributes.external_id", "255"},
		{"workflow of nobody", "POST", create, `{"name":"x","workflow_id":999999999}`, 400, "INVALID_REQUEST", "workflow_id", "existing workflow"},
		{"step of nobody", "POST", create, `{"name":"x","step_id":999999999}`, 400, "INVALID_REQUEST", "step_id", "existing step"},
		{"workflow as text", "POST", create, `{"name":"x","workflow_id":"1"}`, 400, "INVALID_REQUEST", "workflow_id", "integer of 64 bits"},
		{"workflow too large", "POST", create, `{"name":"x","workflow_id":9223372036854775808}`, 400, "INVALID_REQUEST", "workflow_id", "integer of 64 bits"},
		{"workflow negative", "POST", create, `{"name":"x","workflow_id":-1}`, 400, "INVALID_REQUEST", "workflow_id", "from 1"},
		{"workflow a fraction", "POST", create, `{"name":"x","workflow_id":1.0}`, 400, "INVALID_REQUEST", "workflow_id", "integer"},
		{"cleared name", "PATCH", create + "/1", `{"name":null}`, 400, "INVALID_REQUEST", "name", "1 to 500"},
		{"version 0", "PATCH", create + "/1", `{"version":0}`, 400, "INVALID_REQUEST", "version", "from 1"},
		{"login without email", "POST", "/api/auth/login", `{"password":"x"}`, 400, "INVALID_REQUEST", "email", "email"},
		{"login with NUL", "POST", "/api/auth/login", `{"email":"a@b","password":"\u0000"}`, 400, "NUL_CHARACTER", "password", "NUL"},
		{"key without scopes", "POST", "/api/api-keys", `{"name":"x"}`, 400, "INVALID_REQUEST", "scopes", "records:read"},
		{"key with odd scope", "POST", "/api/api-keys", `{"name":"x","scopes":["root"]}`, 400, "INVALID_REQUEST", "scopes[0]", "records:read"},
		{"scopes no list", "POST", "/api/api-keys", `{"name":"x","scopes":"events:read"}`, 400, "INVALID_REQUEST", "scopes", "array"},
		{"key of the past", "POST", "/api/api-keys", `{"name":"x","scopes":["events:read"],"expires_at":"2001-01-01T00:00:00Z"}`, 400, "INVALID_REQUEST", "expires_at", "to come"},
		{"key with odd time", "POST", "/api/api-keys", `{"name":"x","scopes":["events:read"],"expires_at":"soon"}`, 400, "INVALID_REQUEST", "expires_at", "RFC 3339"},
	}
}

func badParameters() []bad {
	const list = "/api/events"
	out := []bad{
		{"unknown type", "POST", "/api/records/unicorn", `{"name":"x"}`, 400, "INVALID_REQUEST", "type", "webhook_endpoint"},
		{"unknown type read", "GET", "/api/records/unicorn/1", ``, 400, "INVALID_REQUEST", "type", "task, employee"},
		{"type with NUL", "GET", "/api/records/%00", ``, 400, "INVALID_REQUEST", "type", "NUL"},
		{"type of bytes", "GET", "/api/records/%ff", ``, 400, "INVALID_REQUEST", "type", "UTF-8"},
		{"type of SQL", "GET", "/api/records/task'%20OR%201=1--", ``, 400, "INVALID_REQUEST", "type", "task"},
		{"id no number", "GET", "/api/records/task/abc", ``, 400, "INVALID_REQUEST", "id", "integer"},
		{"id too large", "GET", "/api/records/task/99999999999999999999", ``, 400, "INVALID_REQUEST", "id", "integer"},
		{"id of nobody", "GET", "/api/records/task/999999999", ``, 404, "RECORD_NOT_FOUND", "", "no such record"},
		{"id negative", "GET", "/api/records/task/-1", ``, 404, "RECORD_NOT_FOUND", "", "no such record"},
		{"update of nobody", "PATCH", "/api/records/task/999999999", `{"name":"x"}`, 404, "RECORD_NOT_FOUND", "", "no such record"},
		{"archive of nobody", "DELETE", "/api/records/task/999999999", ``, 404, "RECORD_NOT_FOUND", "", "no such record"},
		{"key of nobody", "DELETE", "/api/api-keys/999999999", ``, 404, "API_KEY_NOT_FOUND", "", "no such"},
		{"history of nobody", "GET", "/api/events/task/999999999", ``, 404, "ENTITY_NOT_FOUND", "", "no such entity"},
		{"history of no type", "GET", "/api/events/unicorn/1", ``, 400, "INVALID_REQUEST", "aggregate_type", "task"},
		{"events of no type", "GET", list + "?aggregate_type=unicorn", ``, 400, "INVALID_REQUEST", "aggregate_type", "webhook_endpoint"},
		{"events of bad type", "GET", list + "?event_type=task", ``, 400, "INVALID_REQUEST", "event_type", "task.post_create"},
		{"from after to", "GET", list + "?from=2026-02-01&to=2026-01-01", ``, 400, "INVALID_REQUEST", "from", "not after"},
		{"no date", "GET", list + "?from=yesterday", ``, 400, "INVALID_REQUEST", "from", "ISO 8601"},
		{"no day", "GET", list + "?to=2026-02-30", ``, 400, "INVALID_REQUEST", "to", "ISO 8601"},
		{"no zone", "GET", list + "?to=2026-02-03T10:00:00", ``, 400, "INVALID_REQUEST", "to", "zone"},
		{"injection in a date", "GET", list + "?to=2026-02-03'%3B--", ``, 400, "INVALID_REQUEST", "to", "ISO 8601"},
		{"unknown parameter", "GET", list + "?sort=asc", ``, 400, "INVALID_REQUEST", "sort", "aggregate_type, event_type, from, to, limit, page"},
		{"no order", "GET", list + "?order=up", ``, 400, "INVALID_REQUEST", "order", "asc"},
		{"a cursor of nowhere", "GET", list + "?cursor=AAAA", ``, 400, "INVALID_REQUEST", "cursor", "next_cursor"},
		{"page and cursor", "GET", list + "?cursor=AAAA&page=2", ``, 400, "INVALID_REQUEST", "page", "cursor"},
		{"an entity of no type", "GET", list + "?aggregate_id=1", ``, 400, "INVALID_REQUEST", "aggregate_id", "aggregate_type"},
		{"entity 0", "GET", list + "?aggregate_type=task&aggregate_id=0", ``, 400, "INVALID_REQUEST", "aggregate_id", "from 1"},
		{"actor x", "GET", list + "?actor_id=x", ``, 400, "INVALID_REQUEST", "actor_id", "integer"},
		{"one of two types unknown", "GET", list + "?aggregate_type=task&aggregate_type=unicorn", ``, 400, "INVALID_REQUEST", "aggregate_type", "task"},
		{"parameter of a POST", "POST", create + "?name=x", `{"name":"x"}`, 400, "INVALID_REQUEST", "name", "no query parameters"},
		{"parameter twice", "GET", list + "?limit=1&limit=2", ``, 400, "INVALID_REQUEST", "limit", "once"},
		{"NUL in parameter", "GET", "/api/records/task?external_id=%00", ``, 400, "INVALID_REQUEST", "external_id", "NUL"},
		{"bytes in parameter", "GET", "/api/records/task?external_id=%ff", ``, 400, "INVALID_REQUEST", "external_id", "UTF-8"},
		{"odd flag", "GET", "/api/records/task?include_archived=yes", ``, 400, "INVALID_REQUEST", "include_archived", "true or false"},
		{"broken query", "GET", list + "?limit=%zz", ``, 400, "INVALID_REQUEST", "query", "percent-encoded"},
		{"history limit", "GET", "/api/events/task/1?limit=1001", ``, 400, "INVALID_REQUEST", "limit", "1 to 1000"},
		{"unknown route", "GET", "/api/nothing", ``, 404, "ROUTE_NOT_FOUND", "", "no such route"},
		{"root", "POST", "/", `{}`, 405, "METHOD_NOT_ALLOWED", "", "GET, HEAD"},
		{"wrong method", "PUT", create, `{}`, 405, "METHOD_NOT_ALLOWED", "", "GET, HEAD, POST"},
		{"wrong method of the stream", "POST", "/api/events/stream", `{}`, 405, "METHOD_NOT_ALLOWED", "", "GET, HEAD"},
	}
	for _, path := range []string{list, "/api/records/task", "/api/api-keys"} {
		for _, value := range []string{"0", "101", "x", "-1", "", "1.5", "99999999999"} {
			out = append(out, bad{"limit " + value, "GET", path + "?limit=" + value, ``, 400, "INVALID_REQUEST", "limit", "1 to 100"})
		}
		for _, value := range []string{"0", "x", "1000001"} {
			out = append(out, bad{"page " + value, "GET", path + "?page=" + value, ``, 400, "INVALID_REQUEST", "page", "1 to 1000000"})
		}
	}
	return out
}

func TestBadInput(t *testing.T) {
	s := start(t, nil)
	for _, c := range append(badBodies(), badParameters()...) {
		t.Run(c.method+" "+c.name, func(t *testing.T) {
			a := s.call(c.method, c.path, "", c.body)
			require.Equal(t, c.status, a.status, a.text)
			p := a.problem(t)
			require.Equal(t, c.reason, p.Reason)
			if c.field == "" {
				require.Contains(t, p.Detail, c.contains)
				return
			}
			require.Len(t, p.Errors, 1, a.text)
			require.Equal(t, c.field, p.Errors[0].Field)
			require.NotEmpty(t, p.Errors[0].Reason)
			require.Contains(t, p.Errors[0].Description, c.contains)
		})
	}
	var events wireEvents
	s.ok("GET", "/api/events?aggregate_type=task", "", &events)
	require.Zero(t, events.Total, "what is refused leaves no trace")
	for line := range strings.Lines(s.log.String()) {
		require.Contains(t, line, `"request_id":"`)
		require.NotContains(t, line, `"level":"ERROR"`)
		require.NotContains(t, line, "panic")
	}
}

func TestSeveralFaultsAtOnce(t *testing.T) {
	s := start(t, nil)
	p := s.call("POST", "/api/records/unicorn", "", `{"name":"","attributes":[],"step_id":-1}`).problem(t)
	var fields []string
	for _, e := range p.Errors {
		fields = append(fields, e.Field)
	}
	require.Equal(t, []string{"type", "name", "attributes", "step_id"}, fields)
}

func TestLargeBody(t *testing.T) {
	s := start(t, nil)
	for _, size := range []int{1<<20 + 1, 10 << 20} {
		a := s.call("POST", create, "", `{"name":"`+strings.Repeat("x", size)+`"}`)
		require.Equal(t, http.StatusRequestEntityTooLarge, a.status)
		require.Equal(t, "BODY_TOO_LARGE", a.problem(t).Reason)
	}
}

func TestBadTokens(t *testing.T) {
	s := start(t, nil)
	user := auth.Principal{OrgID: s.a.OrgID, Subject: "user:1", Scopes: auth.ScopesOf(auth.AllScopes()...)}
	sign := func(by *auth.Signer, p auth.Principal, ttl time.Duration) string {
		token, _, err := by.Sign(p, ttl)
		require.NoError(t, err)
		return token
	}
	signing, _, err := auth.GenerateKey("test")
	require.NoError(t, err)
	forger, err := auth.ParseSigner(signing)
	require.NoError(t, err)
	claims := jwt.MapClaims{"iss": "sametick", "aud": "sametick", "sub": "user:1", "org": s.a.OrgID, "scope": "records:read", "exp": time.Now().Add(time.Hour).Unix()}
	none, err := jwt.NewWithClaims(jwt.SigningMethodNone, claims).SignedString(jwt.UnsafeAllowNoneSignatureType)
	require.NoError(t, err)
	hmac := jwt.NewWithClaims(jwt.SigningMethodHS256, claims)
	hmac.Header["kid"] = "test"
	wrong, err := hmac.SignedString([]byte(s.signer.PublicKey()))
	require.NoError(t, err)

	require.Equal(t, http.StatusOK, s.call("GET", create, sign(s.signer, user, time.Hour), "").status)
	for name, c := range map[string]struct {
		token  string
		status int
		reason string
	}{
		"none sent":    {"-", 401, "TOKEN_MISSING"},
		"no token":     {"hello", 401, "TOKEN_MALFORMED"},
		"short key":    {"stk_abc", 401, "TOKEN_MALFORMED"},
		"unknown key":  {auth.NewSecret(auth.APIKeyPrefix), 401, "TOKEN_INVALID"},
		"expired":      {sign(s.signer, user, -time.Hour), 401, "TOKEN_EXPIRED"},
		"forged":       {sign(forger, user, time.Hour), 401, "TOKEN_INVALID"},
		"alg none":     {none, 401, "TOKEN_INVALID"},
		"alg HS256":    {wrong, 401, "TOKEN_INVALID"},
		"scope absent": {sign(s.signer, auth.Principal{OrgID: s.a.OrgID, Subject: "user:1", Scopes: auth.ScopesOf(auth.EventsRead)}, time.Hour), 403, "SCOPE_MISSING"},
	} {
		t.Run(name, func(t *testing.T) {
			a := s.call("GET", create, c.token, "")
			require.Equal(t, c.status, a.status, a.text)
			p := a.problem(t)
			require.Equal(t, c.reason, p.Reason)
			require.NotContains(t, s.log.String(), c.token+`"`)
			if c.status == 401 {
				require.Contains(t, a.header.Get("WWW-Authenticate"), "Bearer")
			}
		})
	}
}

// TestInjection stores what would harm if it were ever put together as text, and reads it back.
func TestInjection(t *testing.T) {
	s := start(t, nil)
	for _, name := range []string{"'; DROP TABLE sametick.records; --", "a\n\ndata: {\"id\":1}\n\nevent: x", "\u2028\u2029\r\n", "<script>", `\u0000 written out`, "😀"} {
		var made, got wireRecord
		s.ok("POST", create, fmt.Sprintf(`{"name":%q,"attributes":{"n":%q}}`, name, name), &made)
		require.Equal(t, name, made.Name)
		s.ok("GET", fmt.Sprintf("%s/%d", create, made.ID), "", &got)
		require.Equal(t, made, got)
		text := s.call("GET", fmt.Sprintf("/api/events/task/%d", made.ID), "", "").text
		require.NotContains(t, strings.TrimSpace(text), "\n", "a line break stays inside JSON")
		var history wireEvents
		s.ok("GET", fmt.Sprintf("/api/events/task/%d", made.ID), "", &history)
		require.Equal(t, name, history.Data[0].Payload["record_name"])
	}
}

// TestBadInputOverGRPC holds the gRPC side to the same rules, with the reasons as details.
func TestBadInputOverGRPC(t *testing.T) {
	s := start(t, nil)
	api := recordsv1.NewRecordServiceClient(s.conn)
	ctx := as(t.Context(), s.a.APIKey)
	for text, field := range map[string]string{`{"a":"\u0000"}`: "attributes.a", `{"a":"\ud800"}`: "attributes.a", `{`: "attributes", `{} {}`: "attributes", `null`: "attributes", "{\"\xff": ""} {
		_, err := api.CreateRecord(ctx, &recordsv1.CreateRecordRequest{Type: "task", Name: "x", Attributes: &wirev1.Json{Text: text}})
		if field == "" {
			require.Error(t, err, "protobuf itself refuses text that is not UTF-8")
			continue
		}
		require.Equal(t, codes.InvalidArgument, status.Code(err), text)
		require.Contains(t, fmt.Sprint(status.Convert(err).Details()), field)
	}
	_, err := api.CreateRecord(ctx, &recordsv1.CreateRecordRequest{Type: "task", Name: "a\x00b"})
	require.Equal(t, codes.InvalidArgument, status.Code(err))
	_, err = api.CreateRecord(t.Context(), &recordsv1.CreateRecordRequest{Type: "task", Name: "x"})
	require.Equal(t, codes.Unauthenticated, status.Code(err))
}
