package e2e_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/stretchr/testify/require"
)

// newcomer knows the suite's address, an account and its OpenAPI document; no route and no field but from there.
type newcomer struct {
	t     *testing.T
	base  string
	doc   *openapi3.T
	token string
}

// action is an operation and where it is.
type action struct {
	method, path string
	*openapi3.Operation
}

// TestNewcomer walks as one who has read the reference alone: signs in, watches, creates, updates, exports and
// reads the audit log.
func TestNewcomer(t *testing.T) {
	b := up(t)
	n := &newcomer{t: t, base: b.URL}
	status, text := n.send(http.MethodGet, "/api/openapi.json", nil)
	require.Equal(t, http.StatusOK, status, "no OpenAPI document: %s", text)
	doc, err := openapi3.NewLoader().LoadFromData([]byte(text))
	require.NoError(t, err)
	require.NoError(t, doc.Validate(t.Context()))
	n.doc = doc
	status, page := n.send(http.MethodGet, "/api/docs", nil)
	require.Equal(t, http.StatusOK, status)
	require.Contains(t, page, "<html")

	login := n.find("sign in", func(a action) bool {
		return a.method == http.MethodPost && n.takes(a, "email", "password") && n.gives(a, "access_token")
	})
	create := n.find("create", func(a action) bool {
		return a.method == http.MethodPost && strings.HasSuffix(a.path, "}") && n.takes(a, "name", "attributes") && n.gives(a, "id", "version")
	})
	update := n.find("update", func(a action) bool {
		return a.method == http.MethodPatch && strings.HasPrefix(a.path, create.path+"/{") && n.takes(a, "name") && n.gives(a, "id", "version")
	})
	watch := n.find("watch", func(a action) bool { return a.method == http.MethodGet && answers(a, "text/event-stream") })
	export := n.find("export", func(a action) bool {
		return strings.HasPrefix(a.path, create.path) && answers(a, "application/x-ndjson")
	})
	audit := n.find("audit", func(a action) bool {
		return a.method == http.MethodGet && strings.HasSuffix(a.path, "/audit") && n.gives(a, "data", "total")
	})

	// What is missing has been said; the rest is walked all the same.
	if login.Operation == nil || create.Operation == nil {
		return
	}
	said := n.must(login, nil, map[string]any{"email": b.Secrets.Email, "password": b.Secrets.Password})
	n.token, _ = said["access_token"].(string)
	seen := n.watch(watch.path)
	made := n.must(create, map[string]string{"type": "announcement"}, map[string]any{"name": "seen by a newcomer", "attributes": n.attributes(create)})
	id := map[string]string{"type": "announcement", "id": fmt.Sprint(made["id"])}
	n.sees(seen, "announcement.pre_create", "announcement.post_create")
	if update.Operation != nil {
		changed := n.must(update, id, map[string]any{"name": "changed by a newcomer"})
		require.Equal(t, "changed by a newcomer", changed["name"])
		n.sees(seen, "announcement.pre_update", "announcement.post_update")
	}
	if export.Operation != nil {
		status, text = n.send(export.method, fill(export.path, id), map[string]any{})
		require.Equal(t, http.StatusOK, status, text)
		require.Contains(t, text, "by a newcomer")
		n.sees(seen, "announcement.pre_export", "announcement.post_export")
	}
	if audit.Operation != nil {
		status, text = n.send(audit.method, audit.path, nil)
		require.Equal(t, http.StatusOK, status, text)
		for _, want := range []string{`"create"`, `"update"`, `"export"`, "changed by a newcomer"} {
			require.Contains(t, text, want)
		}
	}
}

// sees waits for events.
func (n *newcomer) sees(seen <-chan string, want ...string) {
	n.t.Helper()
	if seen == nil {
		return
	}
	for _, w := range want {
		require.Equal(n.t, w, <-seen)
	}
}

// find gives the one operation that the document describes so; the shortest path where several do.
func (n *newcomer) find(what string, fits func(action) bool) action {
	n.t.Helper()
	var found []action
	for _, path := range slices.Sorted(maps.Keys(n.doc.Paths.Map())) {
		for method, op := range n.doc.Paths.Value(path).Operations() {
			if a := (action{method, path, op}); fits(a) {
				found = append(found, a)
			}
		}
	}
	if len(found) == 0 {
		n.t.Errorf("the OpenAPI document has nothing to %s by", what)
		return action{}
	}
	return slices.MinFunc(found, func(a, b action) int { return len(a.path) - len(b.path) })
}

// takes tells whether the body has these properties.
func (n *newcomer) takes(a action, names ...string) bool {
	return a.RequestBody != nil && a.RequestBody.Value != nil && has(a.RequestBody.Value.Content.Get("application/json"), names)
}

// gives tells whether the answer has these properties.
func (n *newcomer) gives(a action, names ...string) bool {
	for _, status := range []string{"200", "201"} {
		if r := a.Responses.Value(status); r != nil && has(r.Value.Content.Get("application/json"), names) {
			return true
		}
	}
	return false
}

func has(media *openapi3.MediaType, names []string) bool {
	return media != nil && media.Schema != nil && media.Schema.Value != nil && !slices.ContainsFunc(names, func(name string) bool {
		return media.Schema.Value.Properties[name] == nil
	})
}

func answers(a action, kind string) bool {
	ok := a.Responses.Value("200")
	return ok != nil && ok.Value.Content[kind] != nil
}

// attributes gives what the document asks for of a type: where it says nothing, nothing.
func (n *newcomer) attributes(a action) map[string]any {
	if e, ok := a.RequestBody.Value.Content.Get("application/json").Schema.Value.Properties["attributes"].Value.Example.(map[string]any); ok {
		return e
	}
	return map[string]any{}
}

func fill(path string, values map[string]string) string {
	for name, v := range values {
		path = strings.ReplaceAll(path, "{"+name+"}", v)
	}
	return path
}

// must calls an operation and gives its answer.
func (n *newcomer) must(a action, path map[string]string, body map[string]any) (out map[string]any) {
	n.t.Helper()
	status, text := n.send(a.method, fill(a.path, path), body)
	require.Less(n.t, status, 300, text)
	require.NoError(n.t, json.Unmarshal([]byte(text), &out), text)
	return out
}

func (n *newcomer) send(method, path string, body map[string]any) (int, string) {
	n.t.Helper()
	text := []byte{}
	if body != nil {
		var err error
		text, err = json.Marshal(body)
		require.NoError(n.t, err)
	}
	req, err := http.NewRequestWithContext(n.t.Context(), method, n.base+path, bytes.NewReader(text))
	require.NoError(n.t, err)
	if n.token != "" {
		req.Header.Set("Authorization", "Bearer "+n.token)
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	res, err := http.DefaultClient.Do(req)
	require.NoError(n.t, err)
	defer func() { _ = res.Body.Close() }()
	answer, err := io.ReadAll(res.Body)
	require.NoError(n.t, err)
	return res.StatusCode, string(answer)
}

// watch gives the types of events as they come.
func (n *newcomer) watch(path string) <-chan string {
	n.t.Helper()
	if path == "" {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(n.t.Context()), 2*time.Minute)
	seen, opened, ended := make(chan string, 1000), make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		defer close(seen)
		_ = streamAt(ctx, n.base+path+"?token="+n.token, "", func() { close(opened) }, func(f frame) bool {
			if f.data.AggregateType == "announcement" {
				seen <- f.data.EventType
			}
			return true
		})
	}()
	n.t.Cleanup(func() { cancel(); <-ended })
	select {
	case <-opened:
	case <-ended:
		require.FailNow(n.t, "the stream does not open")
	}
	return seen
}
