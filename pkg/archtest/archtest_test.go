package archtest_test

import (
	"os"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/stretchr/testify/require"

	"github.com/sametick/sametick/pkg/archtest"
)

func TestRepository(t *testing.T) {
	root := os.DirFS("../..")
	_, err := os.Stat("../../go.work")
	require.NoError(t, err, "the root of the repository")
	found, err := archtest.Check(root)
	require.NoError(t, err)
	for _, v := range found {
		t.Error(v)
	}
}

// Each rule must catch what breaks it, and only that: a rule that never fires proves nothing.
func TestEachRuleBites(t *testing.T) {
	const m = archtest.Module
	imp := func(pkg string, paths ...string) string {
		s := "// Package " + pkg + " is a fixture.\npackage " + pkg + "\n"
		for _, p := range paths {
			s += "import _ \"" + p + "\"\n"
		}
		return s
	}
	body := func(pkg, code string) string { return imp(pkg) + code + "\n" }
	long := strings.Repeat("\n", 81)
	for name, c := range map[string]struct{ file, src, rule string }{
		"L0 imports L1":            {"pkg/errs/a.go", imp("errs", m+"pkg/pg"), "layers"},
		"L1 imports L2":            {"pkg/pg/a.go", imp("pg", m+"pkg/outbox"), "layers"},
		"L1 imports a sibling":     {"pkg/pg/a.go", imp("pg", m+"pkg/rpc"), "layers"},
		"L2 imports rpc":           {"pkg/outbox/a.go", imp("outbox", m+"pkg/rpc"), "layers"},
		"unknown package":          {"pkg/newthing/a.go", imp("newthing", m+"pkg/errs"), "layers"},
		"pkg imports a service":    {"pkg/pg/a.go", imp("pg", m+"services/tick/x"), "layers"},
		"gen imports ours":         {"proto/gen/go/a/a.go", imp("a", m+"pkg/errs"), "gen"},
		"service imports devstack": {"services/tick/internal/app/a.go", imp("app", m+"pkg/devstack"), "test-only"},
		"service imports another":  {"services/tick/internal/app/a.go", imp("app", m+"services/sse-gateway/x"), "services"},
		"domain imports pgx":       {"services/outbox-relay/internal/sequence/a.go", imp("sequence", "github.com/jackc/pgx/v5"), "domain"},
		"domain imports redis":     {"services/sse-gateway/internal/hub/a.go", imp("hub", "github.com/redis/rueidis"), "domain"},
		"domain imports grpc":      {"services/api-gateway/internal/records/a.go", imp("records", "google.golang.org/grpc/codes"), "domain"},
		"domain imports proto":     {"services/api-gateway/internal/audit/x/a.go", imp("x", m+"proto/gen/go/a"), "domain"},
		"long file":                {"pkg/pg/a.go", body("pg", strings.Repeat("\n", 400)), "length"},
		"long test":                {"pkg/pg/a_test.go", body("pg", strings.Repeat("\n", 700)), "length"},
		"long function":            {"pkg/pg/a.go", body("pg", "func f() {"+long+"}"), "length"},
		"long main":                {"services/tick/cmd/tick/main.go", body("main", strings.Repeat("\n", 30)), "length"},
		"init":                     {"pkg/pg/a.go", body("pg", "func init() {}"), "init"},
		"exit in a package":        {"pkg/pg/a.go", body("pg", "func f() { os.Exit(1) }"), "exit"},
		"exit in a helper of main": {"services/tick/cmd/tick/main.go", body("main", "func f() { os.Exit(1) }"), "exit"},
		"log.Fatal in main":        {"services/tick/cmd/tick/main.go", body("main", "func main() { log.Fatal() }"), "exit"},
		"PgError":                  {"pkg/outbox/a.go", body("outbox", "var e *pgconn.PgError"), "sqlstate"},
		"a code":                   {"services/tick/internal/app/a.go", body("app", `var c = "23505"`), "sqlstate"},
		"no comment":               {"pkg/pg/a.go", "package pg\n", "package-comment"},
		"util":                     {"deploy/util/a.go", body("util", ""), "name"},
	} {
		t.Run(name, func(t *testing.T) {
			found, err := archtest.Check(fstest.MapFS{c.file: {Data: []byte(c.src)}})
			require.NoError(t, err)
			require.Len(t, found, 1, "%v", found)
			require.Equal(t, c.rule, found[0].Rule)
		})
	}
}

// What the rules must leave alone.
func TestAllowed(t *testing.T) {
	const m = archtest.Module
	tree := fstest.MapFS{}
	for file, src := range map[string]string{
		"pkg/rpc/a.go":       "// Package rpc x.\npackage rpc\nimport _ \"" + m + "pkg/telemetry\"\n",
		"pkg/stream/a.go":    "// Package stream x.\npackage stream\nimport (\n_ \"" + m + "pkg/pg\"\n_ \"" + m + "pkg/errs\"\n)\n",
		"pkg/pg/a.go":        "// Package pg x.\npackage pg\nvar c = \"23505\"\n",
		"pkg/pg/a_test.go":   "package pg\nimport _ \"" + m + "pkg/pgtest\"\n",
		"deploy/dev/main.go": "// Command dev x.\npackage main\nimport _ \"" + m + "pkg/devstack\"\nfunc main() { os.Exit(1) }\n",
		"services/outbox-relay/internal/store/a.go":    "// Package store x.\npackage store\nimport _ \"github.com/jackc/pgx/v5\"\n",
		"services/outbox-relay/internal/sequence/a.go": "// Package sequence x.\npackage sequence\nimport _ \"" + m + "pkg/errs\"\n",
		"services/tick/testdata/a.go":                  "package util\nfunc init() {}\n",
	} {
		tree[file] = &fstest.MapFile{Data: []byte(src)}
	}
	found, err := archtest.Check(tree)
	require.NoError(t, err)
	require.Empty(t, found)
	_, err = archtest.Check(fstest.MapFS{"a.go": {Data: []byte("packag x")}})
	require.Error(t, err)
}
