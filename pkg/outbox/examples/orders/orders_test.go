package orders_test

import (
	"context"
	"database/sql"
	"io/fs"
	"log/slog"
	"net/url"
	"os"
	"os/exec"
	"testing"

	_ "github.com/jackc/pgx/v5/stdlib"
	"github.com/stretchr/testify/require"

	"github.com/sametick/sametick/pkg/outbox"
	"github.com/sametick/sametick/pkg/outbox/examples/orders"
	"github.com/sametick/sametick/pkg/pgtest"
)

func database(t *testing.T) *pgtest.DB {
	names, err := fs.Glob(outbox.Migrations(), "*.sql")
	require.NoError(t, err)
	var parts [][]byte
	for _, n := range names {
		text, err := fs.ReadFile(outbox.Migrations(), n)
		require.NoError(t, err)
		parts = append(parts, text)
	}
	return pgtest.Migrated(t, "core "+pgtest.Fingerprint(parts...), func(ctx context.Context, url string) error {
		return outbox.Migrate(ctx, url, slog.New(slog.DiscardHandler))
	})
}

// asProducer gives the URL of a service that has the producer's rights only.
func asProducer(t *testing.T, db *pgtest.DB) string {
	u, err := url.Parse(db.URL)
	require.NoError(t, err)
	q := u.Query()
	q.Set("role", "sametick_producer")
	u.RawQuery = q.Encode()
	return u.String()
}

type recorded struct {
	eventType, name, status string
	org, actor, sequence    int64
}

func read(t *testing.T, db *pgtest.DB) (all []recorded) {
	rows, err := db.Pool(t).Query(t.Context(), `
SELECT event_type, payload->>'record_name', coalesce(payload->'changes'->'status'->>'after', ''), org_id, (payload->>'actor_id')::bigint, sequence
  FROM sametick.events ORDER BY id`)
	require.NoError(t, err)
	defer rows.Close()
	for rows.Next() {
		var r recorded
		require.NoError(t, rows.Scan(&r.eventType, &r.name, &r.status, &r.org, &r.actor, &r.sequence))
		all = append(all, r)
	}
	require.NoError(t, rows.Err())
	return all
}

func TestOrdersRecordTheirEvents(t *testing.T) {
	db := database(t)
	_, err := db.Pool(t).Exec(t.Context(), orders.Schema+"; GRANT SELECT, INSERT, UPDATE ON public.orders TO sametick_producer")
	require.NoError(t, err)
	conn, err := sql.Open("pgx", asProducer(t, db))
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, conn.Close()) })
	s := orders.Store{DB: conn}
	id, err := s.Create(t.Context(), 7, 3, "50 chairs")
	require.NoError(t, err)
	require.NoError(t, s.Ship(t.Context(), 7, 3, id))
	require.ErrorIs(t, s.Ship(t.Context(), 7, 3, id), sql.ErrNoRows, "a second time nothing is written or recorded")
	_, err = s.Create(t.Context(), 0, 3, "of nobody")
	require.Error(t, err)
	var n int
	require.NoError(t, db.Pool(t).QueryRow(t.Context(), "SELECT count(*) FROM public.orders").Scan(&n))
	require.Equal(t, 1, n, "an event that is refused takes the order with it")
	require.Equal(t, []recorded{
		{"order.post_create", "50 chairs", "", 7, 3, 1},
		{"order.shipped", "50 chairs", "shipped", 7, 3, 2},
	}, read(t, db))
}

// The script for psql is run by psql.
func TestPsqlRecordsItsEvents(t *testing.T) {
	db := database(t)
	psql, err := exec.LookPath("psql")
	require.NoError(t, err, "psql comes with every client package of Postgres")
	cmd := exec.CommandContext(t.Context(), psql, db.URL, "-v", "ON_ERROR_STOP=1", "-q", "-f", "../psql/invoice.sql")
	cmd.Env = append(os.Environ(), "PGOPTIONS=-c client_min_messages=warning")
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, string(out))
	require.Equal(t, []recorded{
		{"invoice.post_create", "Invoice 2026-001", "", 7, 3, 1},
		{"invoice.paid", "Invoice 2026-001", "paid", 7, 3, 2},
	}, read(t, db))
}
