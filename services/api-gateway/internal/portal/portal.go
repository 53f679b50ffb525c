// Package portal serves the page that a portal link leads to: files that are the same for everybody. What the page shows
// it asks /api/webhooks for, by the token behind the # of its address, which never comes here.
package portal

import (
	"embed"
	"fmt"
	"io/fs"
	"net/http"
	"strings"
)

// Path is where the page is; its files are below.
const Path = "/api/portal/"

// bare is Path without the slash that the page's own addresses need.
const bare = "/api/portal"

// policy lets the page load and ask from here alone, run no script but its files, and be framed by nobody. Text from
// elsewhere can be no markup: the page's scripts may make none (Trusted Types), and do without.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; " +
	"frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"

//go:embed page
var files embed.FS

// New makes the handler of Path and what is below.
func New() (http.Handler, error) {
	page, err := fs.Sub(files, "page")
	if err != nil {
		return nil, fmt.Errorf("portal: %w", err)
	}
	server := http.StripPrefix(Path, http.FileServerFS(page))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == bare {
			http.Redirect(w, r, Path, http.StatusMovedPermanently) // the browser keeps what is behind the #
			return
		}
		h := w.Header()
		h.Set("Content-Security-Policy", policy)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Cache-Control", "no-cache") // embedded files have no time: none may be older than the service
		server.ServeHTTP(w, r)
	}), nil
}

// Serves tells whether a path is one of this package's.
func Serves(path string) bool { return path == bare || strings.HasPrefix(path, Path) }
