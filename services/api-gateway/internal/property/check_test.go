package property_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"mime"
	"net/http"
	"slices"
	"strings"

	"github.com/getkin/kin-openapi/openapi3"
)

// answer is what came back.
type answer struct {
	status int
	header http.Header
	body   []byte
}

// may are the answers to a request that the document allows but 2xx: what it means can be missing, in
// another state, or too much for now.
var may = []int{http.StatusNotFound, http.StatusConflict, http.StatusPreconditionFailed, http.StatusUnprocessableEntity,
	http.StatusPreconditionRequired, http.StatusTooManyRequests}

// check gives what is wrong with an answer.
func check(c *call, a answer) (wrong []string) {
	say := func(format string, args ...any) { wrong = append(wrong, fmt.Sprintf(format, args...)) }
	// outbox-relay, which makes proofs, is not there in this run.
	away := a.status == http.StatusServiceUnavailable && bytes.Contains(a.body, []byte(`"PROOFS_UNAVAILABLE"`))
	if a.status >= 500 && !away {
		say("a status of the server's own fault: %d", a.status)
	}
	if a.status >= 400 && c.method != http.MethodHead {
		problem(a, say)
	}
	switch {
	case c.broken == "" && a.status >= 400 && !away && !allowed(c, a):
		say("a request that the document allows is refused: %d", a.status)
	case c.broken != "" && !c.lenient && a.status < 400:
		say("a request that the document forbids (%s) is taken", c.broken)
	}
	if c.broken == wrongMethod {
		return wrong
	}
	response := c.op.Responses.Value(fmt.Sprint(a.status))
	if response == nil && a.status >= 400 && a.status < 500 {
		response = c.op.Responses.Value("4XX")
	}
	if response == nil && a.status >= 500 {
		response = c.op.Responses.Value("5XX")
	}
	if response == nil {
		response = c.op.Responses.Default()
	}
	if response == nil {
		say("status %d is not in the document", a.status)
		return wrong
	}
	schema(a, response.Value, say)
	return wrong
}

// allowed tells whether a refusal says nothing against the request's form: a wrong password has one too.
func allowed(c *call, a answer) bool {
	// The run has an API key: a few routes are for users who signed in, and no key may outlive its maker.
	if a.status == http.StatusForbidden && (bytes.Contains(a.body, []byte(`"USER_REQUIRED"`)) || bytes.Contains(a.body, []byte(`"OUTLIVES_ITS_MAKER"`))) {
		return true
	}
	return slices.Contains(may, a.status) || a.status == http.StatusBadRequest && rule(a) || c.op.public && (a.status == http.StatusUnauthorized || a.status == http.StatusForbidden)
}

// rule tells whether a refusal names fields that break rules, not a form: the document says types and need not say
// every rule.
func rule(a answer) bool {
	var p struct {
		Reason string
		Errors []struct{ Field, Reason string }
	}
	if json.Unmarshal(a.body, &p) != nil || strings.HasPrefix(p.Reason, "MALFORMED") || p.Reason == "INVALID_REQUEST" && len(p.Errors) == 0 {
		return false
	}
	for _, e := range p.Errors {
		if slices.Contains([]string{"UNKNOWN_FIELD", "UNKNOWN_PARAMETER", "INVALID_VALUE", "REPEATED"}, e.Reason) && !strings.HasPrefix(e.Field, "attributes.") {
			return false
		}
	}
	return true
}

// problem holds an error to RFC 9457 and to what clients branch on.
func problem(a answer, say func(string, ...any)) {
	if got := a.header.Get("Content-Type"); got != "application/problem+json" {
		say("an error as %q", got)
		return
	}
	var p struct {
		Type, Title, Detail, Reason string
		Status                      int
		RequestID                   string `json:"request_id"`
	}
	if err := json.Unmarshal(a.body, &p); err != nil {
		say("a problem that is no JSON: %v", err)
		return
	}
	if p.Status != a.status || p.Reason == "" || p.RequestID == "" || p.RequestID != a.header.Get("X-Request-Id") || p.Title == "" || p.Detail == "" || p.Type == "" {
		say("an incomplete problem: %+v", p)
	}
}

// schema holds a body to the schema of its content type.
func schema(a answer, r *openapi3.Response, say func(string, ...any)) {
	kind, _, err := mime.ParseMediaType(a.header.Get("Content-Type"))
	if len(r.Content) == 0 {
		if len(a.body) > 0 {
			say("a body of %d bytes where the document has none", len(a.body))
		}
		return
	}
	media := r.Content.Get(kind)
	if err != nil || media == nil {
		say("content type %q is not in the document", a.header.Get("Content-Type"))
		return
	}
	if media.Schema == nil || kind != "application/json" && !strings.HasSuffix(kind, "+json") {
		return
	}
	var v any
	if err := json.Unmarshal(a.body, &v); err != nil {
		say("a body that is no JSON: %v", err)
		return
	}
	if err := media.Schema.Value.VisitJSON(v, openapi3.VisitAsResponse(), openapi3.EnableFormatValidation()); err != nil {
		say("a body that its schema does not allow: %v", err)
	}
}
