package app

import (
	"net/http"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/stretchr/testify/require"
)

// The document is one, has every route that there is and says which needs no token; the page is there.
func TestOpenAPI(t *testing.T) {
	s := start(t, nil)
	a := s.call("GET", "/api/openapi.json", "-", "")
	require.Equal(t, http.StatusOK, a.status)
	doc, err := openapi3.NewLoader().LoadFromData([]byte(a.text))
	require.NoError(t, err)
	require.NoError(t, doc.Validate(t.Context()))
	public := map[string]bool{}
	operations := 0
	for _, path := range doc.Paths.InMatchingOrder() {
		for method, o := range doc.Paths.Value(path).Operations() {
			operations++
			require.NotEmpty(t, o.Summary, path)
			if o.Security != nil && len(*o.Security) == 0 {
				public[method+" "+path] = true
			}
		}
	}
	require.Subset(t, keys(public), []string{"POST /api/auth/login", "POST /api/auth/refresh", "POST /api/auth/logout"})
	require.Greater(t, operations, 30)
	require.EqualValues(t, 100, *doc.Paths.Value("/api/events").Get.Parameters.GetByInAndName("query", "limit").Schema.Value.Max)

	page := s.call("GET", "/api/docs/", "-", "")
	require.Equal(t, http.StatusOK, page.status)
	require.Contains(t, page.text, "/api/openapi.json")
	require.Contains(t, page.header.Get("Content-Security-Policy"), "default-src 'none'")
	require.Equal(t, http.StatusMethodNotAllowed, s.call("POST", "/api/openapi.json", "-", "").status)
}

func keys(m map[string]bool) (list []string) {
	for k := range m {
		list = append(list, k)
	}
	return list
}
