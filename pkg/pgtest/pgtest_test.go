package pgtest_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/sametick/sametick/pkg/pgtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func execAt(ctx context.Context, url string, statements ...string) error {
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(ctx) }()
	for _, sql := range statements {
		if _, err := conn.Exec(ctx, sql); err != nil {
			return fmt.Errorf("%s: %w", sql, err)
		}
	}
	return nil
}

func TestMigratedIsACloneOfItsOwn(t *testing.T) {
	t.Parallel()
	made := 0
	migrate := func(ctx context.Context, url string) error {
		made++
		return execAt(ctx, url, "CREATE TABLE t (x int)")
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

// TestATemplateIsMadeOnceUnderARace also leaves a session open in the template, which would stand in
// the way of every clone.
func TestATemplateIsMadeOnceUnderARace(t *testing.T) {
	t.Parallel()
	var made atomic.Int32
	name := t.Name() + t.TempDir()
	t.Run("group", func(t *testing.T) {
		for i := range 6 {
			t.Run(fmt.Sprint(i), func(t *testing.T) {
				t.Parallel()
				db := pgtest.Migrated(t, name, func(ctx context.Context, url string) error {
					made.Add(1)
					conn, err := pgx.Connect(ctx, url)
					if err != nil {
						return err
					}
					t.Cleanup(func() { _ = conn.Close(context.Background()) })
					_, err = conn.Exec(ctx, "CREATE TABLE t (x int)")
					return err
				})
				require.NoError(t, execAt(t.Context(), db.URL, "INSERT INTO t VALUES (1)"))
			})
		}
	})
	require.EqualValues(t, 1, made.Load())
}

// TestADatabaseIsDroppedThoughSomebodyIsConnected: a test's forgotten pool must not keep it.
func TestADatabaseIsDroppedThoughSomebodyIsConnected(t *testing.T) {
	t.Parallel()
	var url string
	var left *pgx.Conn
	t.Run("test", func(t *testing.T) {
		url = pgtest.New(t).URL
		var err error
		left, err = pgx.Connect(context.Background(), url)
		require.NoError(t, err)
	})
	require.NotNil(t, left)
	require.Error(t, left.Ping(t.Context()))
	require.ErrorContains(t, execAt(t.Context(), url), "does not exist")
}

// TestRolesFromManySidesAtOnce: without the lock ALTER ROLE fails with "tuple concurrently updated",
// which the second half shows.
func TestRolesFromManySidesAtOnce(t *testing.T) {
	t.Parallel()
	server := pgtest.Private(t, nil)
	db := pgtest.New(t)
	role := "sametick_pgtest"
	for _, url := range []string{db.URL, server.URL} {
		require.NoError(t, execAt(t.Context(), url, "DO $$ BEGIN CREATE ROLE "+role+" LOGIN; EXCEPTION WHEN duplicate_object THEN NULL; END $$"))
	}
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			if err := execAt(t.Context(), db.URLAs(t, role)); err != nil {
				t.Errorf("connect as %s: %v", role, err)
			}
		})
	}
	all.Wait()

	var collisions atomic.Int32
	for range 8 {
		all.Go(func() {
			conn, err := pgx.Connect(t.Context(), server.URL)
			if err != nil {
				t.Errorf("connect: %v", err)
				return
			}
			defer func() { _ = conn.Close(context.Background()) }()
			for i := 0; i < 2000 && collisions.Load() == 0; i++ {
				if _, err := conn.Exec(t.Context(), "ALTER ROLE "+role+" CONNECTION LIMIT 9"); err != nil && strings.Contains(err.Error(), "concurrently updated") {
					collisions.Add(1)
				}
			}
		})
	}
	all.Wait()
	require.NotZero(t, collisions.Load(), "the lock guards against nothing")
}

func TestPrivateSurvivesACrash(t *testing.T) {
	t.Parallel()
	p := pgtest.Private(t, nil)
	require.NoError(t, execAt(t.Context(), p.URL, "CREATE TABLE t (x int)", "INSERT INTO t VALUES (7)"))
	require.NoError(t, p.Kill())
	require.Error(t, execAt(t.Context(), p.URL))
	require.NoError(t, p.Start(t.Context()))
	require.NoError(t, execAt(t.Context(), p.URL, "DELETE FROM t"))
}

// TestAServerThatCannotServeTestsIsSaid runs this test's binary again with another DATABASE_URL.
func TestAServerThatCannotServeTestsIsSaid(t *testing.T) {
	t.Parallel()
	if os.Getenv("PGTEST_CHILD") != "" {
		pgtest.New(t)
		return
	}
	db := pgtest.New(t)
	require.NoError(t, execAt(t.Context(), db.URL, "DO $$ BEGIN CREATE ROLE sametick_pgtest_weak LOGIN; EXCEPTION WHEN duplicate_object THEN NULL; END $$"))
	child := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+t.Name()+"$")
	child.Env = append(os.Environ(), "PGTEST_CHILD=1", "DATABASE_URL="+db.URLAs(t, "sametick_pgtest_weak"))
	out, err := child.CombinedOutput()
	require.Error(t, err)
	require.Contains(t, string(out), "must connect as a superuser")
}
