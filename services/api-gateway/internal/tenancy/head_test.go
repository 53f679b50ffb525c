package tenancy_test

import (
	"encoding/json"
	"maps"
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestHead asks every route that GET has by HEAD: the same status and header, no body (RFC 9110, 9.3.2), and
// nothing done by it; also of what is refused.
func TestHead(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	routes := 0
	for _, m := range w.methods {
		for _, by := range m.routes {
			if by.verb != http.MethodGet {
				continue
			}
			routes++
			good := baseOf(w.b, m)
			if m.name == "AuditService.GetInclusionProof" { // away, but its path needs a value
				good["entry_id"] = 1
			}
			for name, r := range map[string]request{"fine": good, "unknown parameter": with(maps.Clone(good), request{"nonsense": "x"}),
				"bad token": with(maps.Clone(good), request{asKey: "nobody"})} {
				where := by.path + ", " + name
				get := w.b.rest(by)(m, r)
				before := w.entries()
				head := w.b.rest(route{http.MethodHead, by.path})(m, r)
				require.Equal(t, get.code, head.code, where)
				require.Empty(t, head.text, where)
				require.NotEmpty(t, get.text, where)
				want, got := header(t, get), header(t, head)
				require.Equal(t, want, got, where)
				require.Equal(t, before, w.entries(), "%s: HEAD leaves a trace", where)
			}
		}
	}
	require.Greater(t, routes, 15)
}

// entries counts the audit log, of all organisations.
func (w *world) entries() (n int) {
	require.NoError(w.t, w.g.Admin.QueryRow(w.t.Context(), `SELECT count(*) FROM sametick.audit_entries`).Scan(&n))
	return n
}

// header is what an answer says of itself, but for what no two answers have alike.
func header(t *testing.T, s said) (h http.Header) {
	t.Helper()
	require.NoError(t, json.Unmarshal([]byte(s.head), &h))
	require.NotEmpty(t, h.Get("X-Request-Id"))
	h.Del("Date")
	h.Del("X-Request-Id")
	return h
}
