package pgtest

import (
	"context"
	"fmt"
	"os"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/sametick/sametick/pkg/devstack"
)

// ownServer gives the URL of this process' own server, used when DATABASE_URL is not set (`make test`
// sets it, an editor does not). One per process, not one for all: nobody has to count users or to end
// it, since it ends with the process, and its data is kept in a scratch directory for the next run.
var ownServer = sync.OnceValues(func() (string, error) {
	ctx := context.Background()
	var p *devstack.Postgres
	err := devstack.InScratch("pgtest", func(dir string) (err error) {
		p, err = devstack.StartPostgres(ctx, devstack.PostgresOptions{Dir: dir, Settings: FastSettings(), Log: os.Stderr})
		return err
	})
	if err != nil {
		return "", fmt.Errorf("start a Postgres for tests: %w", err)
	}
	return p.URL, withLock(ctx, p.URL, func(conn *pgx.Conn) error { return sweep(ctx, conn, 0) })
})

// adminURL is checked once per process, so that a server which cannot serve tests is said clearly.
var adminURL = sync.OnceValues(func() (string, error) {
	url := os.Getenv("DATABASE_URL")
	if url == "" {
		return ownServer()
	}
	ctx := context.Background()
	return url, withLock(ctx, url, func(conn *pgx.Conn) error {
		var super bool
		if err := conn.QueryRow(ctx, "SELECT rolsuper FROM pg_roles WHERE rolname = current_user").Scan(&super); err != nil {
			return fmt.Errorf("ask DATABASE_URL who it connects as: %w", err)
		}
		if !super {
			return fmt.Errorf("DATABASE_URL must connect as a superuser (tests make databases and set roles' passwords), or be unset: a private server is started then")
		}
		return sweep(ctx, conn, leftoverAge)
	})
})

func serverURL(t testing.TB) string {
	t.Helper()
	u, err := adminURL()
	if err != nil {
		t.Fatalf("pgtest: %v", err)
	}
	return u
}

// FastSettings are for data that need not survive the machine. A commit still waits for its turn in the
// log as it does in production, only the disk is not waited for.
func FastSettings() map[string]string {
	return map[string]string{
		"fsync": "off", "synchronous_commit": "on", "full_page_writes": "off", "max_wal_size": "1GB", "wal_recycle": "off", "wal_init_zero": "off",
	}
}

// Private gives a whole server with new data, for a test that crashes it. Settings come over
// FastSettings.
func Private(t testing.TB, settings map[string]string) *devstack.Postgres {
	t.Helper()
	all := FastSettings()
	for name, value := range settings {
		all[name] = value
	}
	var p *devstack.Postgres
	err := devstack.InScratch("private", func(dir string) (err error) {
		p, err = devstack.StartPostgres(t.Context(), devstack.PostgresOptions{Dir: dir, Settings: all, Fresh: true})
		return err
	})
	if err != nil {
		t.Fatalf("pgtest: %v", err)
	}
	t.Cleanup(func() {
		if err := p.Stop(); err != nil {
			t.Errorf("pgtest: %v", err)
		}
	})
	return p
}
