package tenancy_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestRoutes reads every path that packages rest, openapi and portal write out: each is a route of a method, which TestWalk
// walks, or otherRoutes says where it is tested.
func TestRoutes(t *testing.T) {
	t.Parallel()
	var known []string
	for _, list := range routesOf(t) {
		for _, r := range list {
			known = append(known, r.path)
		}
	}
	files, err := filepath.Glob("../rest/*.go")
	require.NoError(t, err)
	more, err := filepath.Glob("../openapi/*.go")
	require.NoError(t, err)
	pages, err := filepath.Glob("../portal/*.go")
	require.NoError(t, err)
	files = append(append(files, more...), pages...)
	found := map[string]bool{}
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.SkipObjectResolution)
		require.NoError(t, err)
		ast.Inspect(file, func(n ast.Node) bool {
			lit, ok := n.(*ast.BasicLit)
			if !ok || lit.Kind != token.STRING {
				return true
			}
			text, err := strconv.Unquote(lit.Value)
			require.NoError(t, err)
			if i := strings.Index(text, "/"); i >= 0 && (i == 0 || text[i-1] == ' ') && strings.HasPrefix(text[i:], "/api/") || strings.HasPrefix(text, "/.well-known/") {
				found[text[i:]] = true
			}
			return true
		})
	}
	require.NotEmpty(t, found)
	for path := range found {
		begins := func(route string) bool { return strings.HasSuffix(path, "/") && strings.HasPrefix(route, path) }
		if !slices.Contains(known, path) && !slices.ContainsFunc(known, begins) && otherRoutes()[path] == "" {
			t.Errorf("route %s belongs to no method: walk it, and say where in otherRoutes, known_test.go", path)
		}
	}
}
