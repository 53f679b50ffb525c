package property_test

import (
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/sametick/sametick/services/api-gateway/internal/gatewaytest"
)

func TestMain(m *testing.M) {
	// The tests' own Postgres lives as long as their process.
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("github.com/sametick/sametick/pkg/devstack.StartProcess.func1"),
		goleak.IgnoreAnyFunction("os/exec.(*Cmd).Start.func2"))
}

// callsEach is how many requests each operation gets in `make test`; PROPERTY_CALLS says another number.
const callsEach = 60

// number reads a variable of the environment.
func number(t *testing.T, name string, def int) int {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return def
	}
	n, err := strconv.Atoi(text)
	require.NoError(t, err, name)
	return n
}

// document reads what the gateway serves and holds it to the standard.
func document(t *testing.T, g *gatewaytest.Gateway) *openapi3.T {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, g.URL+"/api/openapi.json", nil)
	require.NoError(t, err)
	served, err := gatewaytest.Do(req)
	require.NoError(t, err)
	doc, err := openapi3.NewLoader().LoadFromData([]byte(served.Body))
	require.NoError(t, err)
	require.NoError(t, doc.Validate(t.Context()))
	return doc
}

// elsewhere are the services that another process has, which is not there in these tests: deploy/e2e calls them over
// REST, and the workers' own tests hold them to their rules.
func elsewhere(method string) bool {
	return strings.HasPrefix(method, "/sametick.webhooks.v1.WebhookService/") || strings.HasPrefix(method, "/sametick.prompts.v1.PromptService/")
}

// operations gives those that can be called one answer at a time, in a fixed order.
func operations(doc *openapi3.T) (list []*operation) {
	for _, path := range doc.Paths.InMatchingOrder() {
		item := doc.Paths.Value(path)
		for method, op := range item.Operations() {
			o := &operation{method: method, path: path, Operation: op, parameters: append(slices.Clone(item.Parameters), op.Parameters...)}
			security := doc.Security
			if op.Security != nil {
				security = *op.Security
			}
			o.public = len(security) == 0 || slices.ContainsFunc(security, func(r openapi3.SecurityRequirement) bool { return len(r) == 0 })
			method, _ := op.Extensions["x-grpc-method"].(string)
			if !streams(op) && !elsewhere(method) {
				list = append(list, o)
			}
		}
	}
	slices.SortFunc(list, func(a, b *operation) int { return strings.Compare(a.String(), b.String()) })
	return list
}

// streams tells whether an operation never ends by itself.
func streams(op *openapi3.Operation) bool {
	ok := op.Responses.Value("200")
	return ok != nil && ok.Value.Content.Get("text/event-stream") != nil && ok.Value.Content.Get("application/json") == nil
}

// runner sends generated requests and collects what is wrong with the answers.
type runner struct {
	*generator
	t          *testing.T
	url, token string
	client     http.Client
	// counts are the answers by operation and class.
	counts map[string]int
	wrong  []string
	// renew gives another organisation's token, for when a request has revoked the one at hand.
	renew func() string
}

func newRunner(t *testing.T, g *gatewaytest.Gateway, url string, seed int) *runner {
	founded := 0
	return &runner{renew: func() string {
		founded++
		return g.Found(t, "Again", fmt.Sprintf("again%d@property.example", founded+seed*1000)).APIKey
	}, generator: &generator{rand.New(rand.NewPCG(uint64(seed), 0)), &memory{}}, t: t, url: url, token: g.A.APIKey, //nolint:gosec // a test that repeats
		client: http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: time.Minute,
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }},
		counts: map[string]int{}}
}

// run sends n requests of each operation, in turns, so that what one makes the others meet.
func (r *runner) run(list []*operation, n int) {
	for range n {
		for _, o := range list {
			c, ok := r.valid(o)
			if !ok {
				r.counts[o.String()+" impossible"]++
				continue
			}
			if r.likely(45) && !r.breakIt(c) {
				continue
			}
			r.send(c)
		}
	}
}

func (r *runner) send(c *call) {
	r.t.Helper()
	req, err := c.request(r.url, r.token)
	require.NoError(r.t, err)
	res, err := r.client.Do(req)
	if err != nil {
		if strings.Contains(err.Error(), "invalid header") || strings.Contains(err.Error(), "invalid method") {
			return // what this client itself does not send
		}
		if c.broken == hugeBody {
			return // refused while it was still being sent, which may lose the answer on the way
		}
		r.wrong = append(r.wrong, fmt.Sprintf("%s: no answer: %v", c, err))
		return
	}
	defer func() { _ = res.Body.Close() }()
	body, err := io.ReadAll(res.Body)
	require.NoError(r.t, err)
	a := answer{res.StatusCode, res.Header, body}
	if c.broken == "" && !c.op.public && a.status == http.StatusUnauthorized && strings.Contains(string(body), "TOKEN_INVALID") {
		r.token = r.renew()
		r.seen.objects = nil
		return
	}
	for _, text := range check(c, a) {
		r.wrong = append(r.wrong, fmt.Sprintf("%s: %s\n\t%.600s", c, text, body))
	}
	kind := "valid"
	if c.broken != "" {
		kind = "broken"
	}
	r.counts[fmt.Sprintf("%s %s %dxx", c.op, kind, a.status/100)]++
	var v any
	if a.status < 300 && json.Unmarshal(body, &v) == nil {
		before := len(r.seen.objects)
		r.seen.take(v)
		for _, o := range r.seen.objects[min(before, len(r.seen.objects)):] {
			from, _, _ := strings.Cut(c.op.path, "{")
			o[origin] = from
		}
	}
}

// TestDocument sends requests by the document, valid and broken, and finds no answer that breaks it, none of
// the server's own fault, no valid request refused for its form and no broken one taken.
func TestDocument(t *testing.T) {
	g := gatewaytest.Start(t, nil)
	seed, n := number(t, "PROPERTY_SEED", 1), number(t, "PROPERTY_CALLS", callsEach)
	list := operations(document(t, g))
	r := newRunner(t, g, g.URL, seed)
	r.run(list, n)
	require.Empty(t, r.wrong, "PROPERTY_SEED=%d: %d of them, such as\n%s", seed, len(r.wrong), strings.Join(r.wrong[:min(len(r.wrong), 12)], "\n"))
	var never []string
	for _, o := range list {
		if r.counts[o.String()+" valid 2xx"] == 0 {
			never = append(never, o.String())
		}
	}
	t.Logf("never succeeded: %v", never)
	require.Less(t, len(never), len(list)/2, "most operations must succeed at times")
	total := 0
	for name, count := range r.counts {
		if !strings.HasSuffix(name, "impossible") {
			total += count
		}
	}
	t.Logf("seed %d: %d operations, %d requests", seed, len(list), total)
}

// TestDocumentNotices puts a gateway that lies in between: each lie must be found.
func TestDocumentNotices(t *testing.T) {
	g := gatewaytest.Start(t, nil)
	list := operations(document(t, g))
	for name, lie := range map[string]func(a *answer){
		"a status of the server's own fault": func(a *answer) { a.status = http.StatusBadGateway },
		"a body that its schema does not allow": func(a *answer) {
			if a.status < 300 {
				a.body = []byte(strings.Replace(string(a.body), `"id":`, `"id":"x","old_id":`, 1))
			}
		},
		"an incomplete problem": func(a *answer) {
			a.body = []byte(strings.Replace(string(a.body), `"request_id"`, `"requestId"`, 1))
		},
		"an error as": func(a *answer) {
			if a.status >= 400 {
				a.header.Set("Content-Type", "application/json")
			}
		},
		"a request that the document allows is refused": func(a *answer) {
			if a.status < 300 {
				*a = answer{400, http.Header{"Content-Type": {"application/problem+json"}, "X-Request-Id": {"r"}},
					[]byte(`{"type":"about:blank","title":"Bad Request","status":400,"detail":"no","reason":"MALFORMED_JSON","errors":[],"request_id":"r"}`)}
			}
		},
		"is taken": func(a *answer) {
			if a.status == http.StatusBadRequest {
				a.status = http.StatusOK
			}
		},
		"is not in the document": func(a *answer) {
			if a.status < 300 {
				a.status = http.StatusTeapot
			}
		},
	} {
		liar := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, in *http.Request) {
			relay(w, in, g.URL, lie)
		}))
		r := newRunner(t, g, liar.URL, len(name))
		r.run(list, 25)
		liar.Close()
		require.True(t, slices.ContainsFunc(r.wrong, func(w string) bool { return strings.Contains(w, name) }), "nothing notices: %s", name)
	}
}

// relay passes a request on and its answer back, after lie.
func relay(w http.ResponseWriter, in *http.Request, to string, lie func(*answer)) {
	out, err := http.NewRequestWithContext(in.Context(), in.Method, to+in.RequestURI, in.Body)
	if err != nil {
		w.WriteHeader(http.StatusTeapot)
		return
	}
	out.Header = in.Header
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	res, err := client.Do(out)
	if err != nil {
		w.WriteHeader(http.StatusTeapot)
		return
	}
	defer func() { _ = res.Body.Close() }()
	body, _ := io.ReadAll(res.Body)
	a := answer{res.StatusCode, res.Header, body}
	lie(&a)
	for name, values := range a.header {
		if name != "Content-Length" {
			w.Header()[name] = values
		}
	}
	w.WriteHeader(a.status)
	_, _ = w.Write(a.body)
}
