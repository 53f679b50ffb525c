package store

import (
	"context"
	"io/fs"
	"log/slog"
	"path"
	"testing"
	"testing/fstest"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/sametick/sametick/pkg/auth"
	"github.com/sametick/sametick/pkg/outbox"
	"github.com/sametick/sametick/pkg/pg"
	"github.com/sametick/sametick/pkg/pgtest"
)

// before migrates a database to the version before roles.
func before(ctx context.Context, t *testing.T, url string) {
	log := slog.New(slog.DiscardHandler)
	require.NoError(t, outbox.Migrate(ctx, url, log))
	some := fstest.MapFS{}
	names, err := fs.Glob(migrations, "migrations/0000[1-3]_*.sql")
	require.NoError(t, err)
	for _, name := range names {
		text, err := fs.ReadFile(migrations, name)
		require.NoError(t, err)
		some[path.Base(name)] = &fstest.MapFile{Data: text}
	}
	require.NoError(t, pg.Migrate(ctx, url, some, Schema().Table, log))
}

// TestUsersGetRoles: who could do something before can do it after, through roles; sessions go on; and the
// release before works with the new schema.
func TestUsersGetRoles(t *testing.T) {
	db := pgtest.New(t)
	before(t.Context(), t, db.URL)
	admin := db.Pool(t)
	exec := func(sql string, args ...any) {
		t.Helper()
		_, err := admin.Exec(t.Context(), sql, args...)
		require.NoError(t, err)
	}
	user := func(id int64, email string, scopes ...string) {
		exec(`INSERT INTO sametick.records (org_id, type, id, name) VALUES (7, 'user', $1, $2)`, id, email)
		exec(`INSERT INTO sametick.credentials (org_id, user_id, email, password_hash, scopes) VALUES (7, $1, $2, 'x', $3)`, id, email, scopes)
	}
	exec(`SELECT setval('sametick.record_ids', 1000)`)
	user(1, "ann@a", auth.AllScopes()...)
	user(2, "ben@a", auth.AllScopes()...)
	user(3, "eve@a", "records:read", "events:read")
	user(4, "fay@a", "events:read", "records:read")
	exec(`INSERT INTO sametick.refresh_tokens (org_id, hash, user_id, family, expires_at) VALUES (7, 'live', 3, gen_random_uuid(), now() + interval '1 h')`)

	require.NoError(t, Schema().Migrate(t.Context(), db.URL, slog.New(slog.DiscardHandler)))
	scopes := func(email string) (list []string) {
		require.NoError(t, admin.QueryRow(t.Context(), `SELECT scopes FROM sametick.find_credentials($1)`, email).Scan(&list))
		return list
	}
	require.ElementsMatch(t, auth.AllScopes(), scopes("ann@a"))
	require.Equal(t, []string{"events:read", "records:read"}, scopes("fay@a"))
	rows, err := admin.Query(t.Context(), `SELECT q.name || ' ' || count(*) FROM sametick.user_roles u JOIN sametick.records q ON q.type = 'role' AND q.id = u.role_id GROUP BY q.id, q.name ORDER BY 1`)
	require.NoError(t, err)
	roles, err := pgx.CollectRows(rows, pgx.RowTo[string])
	require.NoError(t, err)
	require.Equal(t, []string{"administrator 2", "events:read records:read 2"}, roles)
	var told int
	require.NoError(t, admin.QueryRow(t.Context(), `SELECT count(*) FROM sametick.events WHERE event_type IN ('role.pre_create', 'role.post_create') AND org_id = 7`).Scan(&told))
	require.Equal(t, 4, told)

	// The release before: a refresh, a logout, and a founding that knows scopes alone.
	var outcome string
	var given []string
	require.NoError(t, admin.QueryRow(t.Context(), `SELECT outcome, scopes FROM sametick.rotate_refresh_token('live', 'next', $1)`, time.Now().Add(time.Hour)).Scan(&outcome, &given))
	require.Equal(t, "rotated", outcome)
	require.Equal(t, []string{"events:read", "records:read"}, given)
	var who int64
	require.NoError(t, admin.QueryRow(t.Context(), `SELECT user_id FROM sametick.end_session('next')`).Scan(&who))
	require.Equal(t, int64(3), who)
	require.NoError(t, admin.QueryRow(t.Context(), `SELECT outcome FROM sametick.rotate_refresh_token('next', 'more', now())`).Scan(&outcome))
	require.Equal(t, "revoked", outcome)
	user(5, "old@a", "org:admin")
	require.Equal(t, []string{"org:admin"}, scopes("old@a"))
}
