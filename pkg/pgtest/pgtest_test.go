package pgtest_test

import (
	"context"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/sametick/sametick/pkg/pgtest"
)

func TestMigratedIsACloneOfItsOwn(t *testing.T) {
	t.Parallel()
	made := 0
	migrate := func(ctx context.Context, url string) error {
		made++
		conn, err := pgx.Connect(ctx, url)
		if err != nil {
			return err
		}
		defer func() { _ = conn.Close(ctx) }()
		_, err = conn.Exec(ctx, "CREATE TABLE t (x int)")
		return err
	}
	name := t.Name() + t.TempDir()
	a := pgtest.Migrated(t, name, migrate).Pool(t)
	b := pgtest.Migrated(t, name, migrate).Pool(t)
	require.Equal(t, 1, made, "the template is made once")

	_, err := a.Exec(t.Context(), "INSERT INTO t VALUES (1)")
	require.NoError(t, err)
	var n int
	require.NoError(t, b.QueryRow(t.Context(), "SELECT count(*) FROM t").Scan(&n))
	require.Zero(t, n, "one test's rows are not another's")
}
