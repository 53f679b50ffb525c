package main

import (
	"context"
	"database/sql"
	"io/fs"
	"log/slog"
	"os/exec"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sametick/sametick/pkg/outbox"
	"github.com/sametick/sametick/pkg/pgtest"
)

// database has the shared tables; producer is a role that may produce and make its own tables.
func database(t *testing.T) (admin, producer *sql.DB, url string) {
	t.Helper()
	var migrations [][]byte
	require.NoError(t, fs.WalkDir(outbox.Migrations(), ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := fs.ReadFile(outbox.Migrations(), path)
		migrations = append(migrations, b)
		return err
	}))
	db := pgtest.Migrated(t, "core-"+pgtest.Fingerprint(migrations...), func(ctx context.Context, url string) error {
		return outbox.Migrate(ctx, url, slog.New(slog.DiscardHandler))
	})
	admin = open(t, db.URL)
	_, err := admin.ExecContext(t.Context(), "GRANT CREATE ON SCHEMA public TO sametick_prompt")
	require.NoError(t, err)
	return admin, open(t, db.URLAs(t, "sametick_prompt")), db.URL
}

func open(t *testing.T, url string) *sql.DB {
	t.Helper()
	db, err := sql.Open("pgx", url)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, db.Close()) })
	return db
}

func count(t *testing.T, db *sql.DB, query string) (n int) {
	t.Helper()
	require.NoError(t, db.QueryRowContext(t.Context(), query).Scan(&n))
	return n
}

func TestPayingAndItsEventAreOne(t *testing.T) {
	t.Parallel()
	admin, producer, _ := database(t)
	_, err := producer.ExecContext(t.Context(), "CREATE TABLE invoices (id bigint PRIMARY KEY, paid boolean NOT NULL DEFAULT false CHECK (id < 100))")
	require.NoError(t, err)

	event, err := Pay(t.Context(), producer, 1, 7)
	require.NoError(t, err)
	require.Positive(t, event)
	require.Equal(t, 1, count(t, admin, "SELECT count(*) FROM sametick.events WHERE event_type = 'invoice.paid' AND aggregate_id = 7"))
	require.Equal(t, 1, count(t, admin, "SELECT count(*) FROM sametick.audit_entries WHERE aggregate_type = 'invoice' AND changes ? 'paid'"))

	_, err = Pay(t.Context(), producer, 1, 100) // the service's own rule
	require.Error(t, err)
	_, err = Pay(t.Context(), producer, 0, 8) // the event's
	require.Error(t, err)
	require.Equal(t, 1, count(t, admin, "SELECT count(*) FROM sametick.events"))
	require.Equal(t, 1, count(t, admin, "SELECT count(*) FROM invoices"))
}

func TestPlainPsql(t *testing.T) {
	t.Parallel()
	psql, err := exec.LookPath("psql")
	require.NoError(t, err, "psql comes with every Postgres server")
	admin, _, url := database(t)
	pay := func(org string) error {
		return exec.CommandContext(t.Context(), psql, url, "-q", "-v", "org="+org, "-v", "invoice=7", "-f", "../psql/pay.sql").Run()
	}
	require.NoError(t, pay("1"))
	require.Error(t, pay("0"))
	require.Equal(t, 1, count(t, admin, "SELECT count(*) FROM sametick.events WHERE event_type = 'invoice.paid'"))
}
