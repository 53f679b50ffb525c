// Package workertest has what the tests of prompt-worker share. For tests only.
package workertest

import (
	"context"
	"log/slog"
	"testing"

	"go.uber.org/goleak"

	"github.com/sametick/sametick/pkg/pgtest"
	"github.com/sametick/sametick/services/prompt-worker/internal/store"
)

// Role is the service's in Postgres.
const Role = "sametick_prompt"

// Database gives a migrated database.
func Database(t testing.TB) *pgtest.DB {
	t.Helper()
	sum, err := store.Schema().Fingerprint()
	if err != nil {
		t.Fatalf("workertest: %v", err)
	}
	return pgtest.Migrated(t, "prompt-worker "+pgtest.Fingerprint(sum...), func(ctx context.Context, url string) error {
		return store.Schema().Migrate(ctx, url, slog.New(slog.DiscardHandler))
	})
}

// Main runs a package's tests and finds goroutines that outlive them; the server that pgtest starts
// when DATABASE_URL is not set lives as long as the process.
func Main(m *testing.M) {
	goleak.VerifyTestMain(m,
		goleak.IgnoreAnyFunction("github.com/sametick/sametick/pkg/devstack.StartProcess.func1"),
		goleak.IgnoreAnyFunction("os/exec.(*Cmd).writerDescriptor.func1"))
}
