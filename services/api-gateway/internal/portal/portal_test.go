package portal_test

import (
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sametick/sametick/services/api-gateway/internal/portal"
)

func get(t *testing.T, path string) *httptest.ResponseRecorder {
	handler, err := portal.New()
	require.NoError(t, err)
	w := httptest.NewRecorder()
	handler.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, path, nil))
	return w
}

func TestServed(t *testing.T) {
	page := get(t, portal.Path)
	require.Equal(t, http.StatusOK, page.Code)
	require.Contains(t, page.Body.String(), "<title>Webhooks</title>")
	for path, kind := range map[string]string{"": "text/html", "portal.css": "text/css", "main.js": "text/javascript"} {
		w := get(t, portal.Path+path)
		require.Equal(t, http.StatusOK, w.Code, path)
		require.True(t, strings.HasPrefix(w.Header().Get("Content-Type"), kind), "%s: %s", path, w.Header().Get("Content-Type"))
		policy := w.Header().Get("Content-Security-Policy")
		require.Contains(t, policy, "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self';")
		require.NotContains(t, policy, "unsafe")
		require.Equal(t, "no-referrer", w.Header().Get("Referrer-Policy"))
		require.Equal(t, "nosniff", w.Header().Get("X-Content-Type-Options"))
	}
	require.Equal(t, portal.Path, get(t, strings.TrimSuffix(portal.Path, "/")).Header().Get("Location"))
	require.Equal(t, http.StatusNotFound, get(t, portal.Path+"absent.js").Code)
	require.Equal(t, http.StatusNotFound, get(t, portal.Path+"../portal.go").Code)
	require.True(t, portal.Serves("/api/portal/x"))
	require.False(t, portal.Serves("/api/portals"))
}

// forbidden finds what would make markup of texts, run a script that is no file of the page's, or load from elsewhere.
var forbidden = regexp.MustCompile(`innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|DOMParser|createContextualFragment|srcdoc|\son[a-z]+=|style=|<script>|<style|javascript:|(?:src|href)="(?:https?:)?//|url\(|@import`)

// The page's files keep to what its policy allows, so that it works, and what could undo the policy is not in them.
func TestNothingForbidden(t *testing.T) {
	seen := 0
	require.NoError(t, fs.WalkDir(os.DirFS("page"), ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		seen++
		text, err := os.ReadFile("page/" + path)
		require.NoError(t, err)
		require.Empty(t, forbidden.FindAllString(string(text), -1), path)
		return nil
	}))
	require.GreaterOrEqual(t, seen, 8)
	for _, bad := range []string{`e.innerHTML = x`, `<p onclick="x()">`, `<script>x</script>`, `<script src="https://cdn.example/x.js">`, `background: url(x)`, `<a style="x">`} {
		require.NotEmpty(t, forbidden.FindString(bad), "the control: %s", bad)
	}
}
