package pg_test

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/sametick/sametick/pkg/errs"
	"github.com/sametick/sametick/pkg/pg"
	"github.com/sametick/sametick/pkg/pgtest"
)

// The shared server of pgtest outlives the tests of this process on purpose.
func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("github.com/sametick/sametick/pkg/devstack.startProcess.func1"),
		goleak.IgnoreAnyFunction("os/exec.(*Cmd).writerDescriptor.func1"))
}

func open(t *testing.T, url string, o pg.Options) *pgxpool.Pool {
	p, err := pg.Open(t.Context(), url, o)
	require.NoError(t, err)
	t.Cleanup(p.Close)
	return p
}

func exec(t *testing.T, p pg.Execer, sql string, args ...any) {
	_, err := p.Exec(t.Context(), sql, args...)
	require.NoError(t, err)
}

func TestTranslateRealErrors(t *testing.T) {
	p := open(t, pgtest.New(t).URL, pg.Options{StatementTimeout: 50 * time.Millisecond})
	exec(t, p, `CREATE TABLE parent (id int PRIMARY KEY, name text NOT NULL, CONSTRAINT name_short CHECK (length(name) < 10), doc jsonb)`)
	exec(t, p, `CREATE TABLE child (id int CONSTRAINT child_parent REFERENCES parent)`)
	exec(t, p, `INSERT INTO parent VALUES (1, 'a')`)
	for name, c := range map[string]struct {
		sql        string
		args       []any
		kind       errs.Kind
		reason     string
		constraint string
	}{
		"unique":      {`INSERT INTO parent VALUES (1, 'b')`, nil, errs.AlreadyExists, "ALREADY_EXISTS", "parent_pkey"},
		"foreign key": {`INSERT INTO child VALUES (7)`, nil, errs.FailedPrecondition, "REFERENCE_MISSING", "child_parent"},
		"check":       {`INSERT INTO parent VALUES (2, 'far too long a name')`, nil, errs.Invalid, "INVALID_VALUE", "name_short"},
		"not null":    {`INSERT INTO parent VALUES (2, NULL)`, nil, errs.Invalid, "INVALID_VALUE", ""},
		"NUL":         {`INSERT INTO parent VALUES (2, $1)`, []any{"a\x00b"}, errs.Invalid, "INVALID_TEXT", ""},
		"NUL in json": {`INSERT INTO parent VALUES (2, 'a', $1)`, []any{`{"a": "\u0000"}`}, errs.Invalid, "INVALID_TEXT", ""},
		"too big":     {`SELECT 2147483647 + length($1)`, []any{"a"}, errs.OutOfRange, "OUT_OF_RANGE", ""},
		"slow":        {`SELECT pg_sleep(10)`, nil, errs.DeadlineExceeded, "STATEMENT_TIMEOUT", ""},
		"our mistake": {`SELEKT`, nil, errs.Internal, "INTERNAL", ""},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := p.Exec(t.Context(), c.sql, c.args...)
			e := errs.From(pg.Translate(err))
			require.Equal(t, c.kind, e.Kind, "%v", err)
			require.Equal(t, c.reason, e.Reason)
			require.Equal(t, c.constraint, pg.Constraint(e))
			require.Equal(t, c.kind == errs.AlreadyExists, pg.IsUnique(e, ""))
			require.NotContains(t, e.Message, "parent", "no names of ours in public")
		})
	}
	var id int
	err := p.QueryRow(t.Context(), `SELECT id FROM parent WHERE id = 99`).Scan(&id)
	require.Equal(t, errs.NotFound, errs.KindOf(pg.Translate(err)))
	require.True(t, pg.IsUnique(errs.New(errs.Internal, "X", "").WithCause(violate(t, p)), "parent_pkey"))
	require.False(t, pg.IsUnique(violate(t, p), "other"))
}

func violate(t *testing.T, p pg.Execer) error {
	_, err := p.Exec(t.Context(), `INSERT INTO parent VALUES (1, 'b')`)
	return err
}

func TestUnreachable(t *testing.T) {
	p := open(t, "postgres://u:hunter2@127.0.0.1:1/db", pg.Options{})
	err := pg.Translate(p.Ping(t.Context()))
	require.Equal(t, errs.Unavailable, errs.KindOf(err))
	_, err = pg.Open(t.Context(), "postgres://u:hunter2@h:notaport/db", pg.Options{})
	require.Error(t, err)
	require.NotContains(t, err.Error(), "hunter2")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.Equal(t, errs.Canceled, errs.KindOf(pg.Translate(p.Ping(ctx))))
}

func TestKilledBackend(t *testing.T) {
	db := pgtest.New(t)
	p, other := open(t, db.URL, pg.Options{}), open(t, db.URL, pg.Options{})
	err := pg.InTx(t.Context(), p, pg.TxOptions{Retries: 3}, func(tx pgx.Tx) error {
		var pid int
		require.NoError(t, tx.QueryRow(t.Context(), `SELECT pg_backend_pid()`).Scan(&pid))
		exec(t, other, `SELECT pg_terminate_backend($1, 5000)`, pid)
		_, err := tx.Exec(t.Context(), `SELECT 1`)
		return err
	})
	require.Equal(t, errs.Unavailable, errs.KindOf(err), "%v", err)
}

// The worst moment: the backend dies while COMMIT waits. Nobody may claim to know what came of it.
func TestCommitUnknown(t *testing.T) {
	db := pgtest.New(t)
	p, other := open(t, db.URL, pg.Options{}), open(t, db.URL, pg.Options{})
	exec(t, p, `CREATE TABLE t (pid int)`)
	exec(t, p, `CREATE FUNCTION hang() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(60); RETURN NULL; END'`)
	exec(t, p, `CREATE CONSTRAINT TRIGGER hang AFTER INSERT ON t DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION hang()`)
	runs := 0
	kill := make(chan int, 1)
	var wg sync.WaitGroup
	wg.Go(func() {
		pid := <-kill
		wait(t, func() bool {
			var n int
			err := other.QueryRow(t.Context(), `SELECT count(*) FROM pg_stat_activity WHERE pid = $1 AND wait_event = 'PgSleep'`, pid).Scan(&n)
			return err == nil && n == 1
		})
		_, _ = other.Exec(t.Context(), `SELECT pg_terminate_backend($1)`, pid)
	})
	err := pg.InTx(t.Context(), p, pg.TxOptions{Retries: 5}, func(tx pgx.Tx) error {
		runs++
		var pid int
		if err := tx.QueryRow(t.Context(), `INSERT INTO t VALUES (pg_backend_pid()) RETURNING pid`).Scan(&pid); err != nil {
			return err
		}
		kill <- pid
		return nil
	})
	wg.Wait()
	require.ErrorIs(t, err, pg.ErrCommitUnknown)
	require.Equal(t, 1, runs, "never retried")
}

func wait(t *testing.T, cond func() bool) {
	deadline := time.After(10 * time.Second)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !cond() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Error("the condition did not come true")
			return
		}
	}
}

func TestInTx(t *testing.T) {
	p := open(t, pgtest.New(t).URL, pg.Options{MaxConns: 1}) // one connection: a leaked one would hang the next
	exec(t, p, `CREATE TABLE t (n int)`)
	count := func() (n int) {
		require.NoError(t, p.QueryRow(t.Context(), `SELECT count(*) FROM t`).Scan(&n))
		return n
	}
	put := func(tx pgx.Tx) { exec(t, tx, `INSERT INTO t VALUES (1)`) }

	require.NoError(t, pg.InTx(t.Context(), p, pg.TxOptions{}, func(tx pgx.Tx) error { put(tx); return nil }))
	require.Equal(t, 1, count())

	own := errs.New(errs.Aborted, "MINE", "mine")
	require.ErrorIs(t, pg.InTx(t.Context(), p, pg.TxOptions{}, func(tx pgx.Tx) error { put(tx); return own }), own)
	require.Panics(t, func() {
		_ = pg.InTx(t.Context(), p, pg.TxOptions{}, func(tx pgx.Tx) error { put(tx); panic("x") })
	})
	ctx, cancel := context.WithCancel(t.Context())
	err := pg.InTx(ctx, p, pg.TxOptions{}, func(tx pgx.Tx) error { put(tx); cancel(); return nil })
	require.Error(t, err)
	// A statement that failed inside and an fn that hides it: COMMIT then rolls back, and must say so.
	err = pg.InTx(t.Context(), p, pg.TxOptions{}, func(tx pgx.Tx) error {
		put(tx)
		_, _ = tx.Exec(t.Context(), `SELECT 1/0`)
		return nil
	})
	require.Error(t, err)
	require.NotErrorIs(t, err, pg.ErrCommitUnknown, "the server did answer")
	require.Equal(t, 1, count())
}

// Two transactions read and write the same counter under SERIALIZABLE: without the retry one fails.
func TestRetries(t *testing.T) {
	p := open(t, pgtest.New(t).URL, pg.Options{MaxConns: 4})
	for retries, ok := range map[int]bool{0: false, 20: true} {
		exec(t, p, `DROP TABLE IF EXISTS c; CREATE TABLE c (n int); INSERT INTO c VALUES (0)`)
		var both sync.WaitGroup // in the first round both have read before either writes
		both.Add(2)
		errors2 := make([]error, 2)
		var wg sync.WaitGroup
		for i := range errors2 {
			wg.Go(func() {
				first := true
				o := pg.TxOptions{TxOptions: pgx.TxOptions{IsoLevel: pgx.Serializable}, Retries: retries}
				errors2[i] = pg.InTx(t.Context(), p, o, func(tx pgx.Tx) error {
					var n int
					if err := tx.QueryRow(t.Context(), `SELECT n FROM c`).Scan(&n); err != nil {
						return err
					}
					if first {
						first = false
						both.Done()
						both.Wait()
					}
					_, err := tx.Exec(t.Context(), `UPDATE c SET n = $1`, n+1)
					return err
				})
			})
		}
		wg.Wait()
		err := errors.Join(errors2...)
		if ok {
			require.NoError(t, err)
			var n int
			require.NoError(t, p.QueryRow(t.Context(), `SELECT n FROM c`).Scan(&n))
			require.Equal(t, 2, n)
		} else {
			require.Equal(t, errs.Aborted, errs.KindOf(err), "the control: it does fail without a retry")
		}
	}
}

func TestOrgEndsWithItsTransaction(t *testing.T) {
	for _, pooled := range []bool{false, true} {
		p := open(t, pgtest.New(t).URL, pg.Options{MaxConns: 1, Pooled: pooled, StatementTimeout: time.Second})
		org := func(q pg.RowQuerier) (s string) {
			require.NoError(t, q.QueryRow(t.Context(), `SELECT coalesce(current_setting('sametick.org_id', true), '')`).Scan(&s))
			return s
		}
		require.NoError(t, pg.InTx(t.Context(), p, pg.TxOptions{Org: 42}, func(tx pgx.Tx) error {
			require.Equal(t, "42", org(tx))
			return nil
		}))
		require.Empty(t, org(p), "the next user of the connection sees no organisation")
		var prepared int
		require.NoError(t, p.QueryRow(t.Context(), `SELECT count(*) FROM pg_prepared_statements`).Scan(&prepared))
		require.Equal(t, pooled, prepared == 0)
	}
}

func migrations(n int) fstest.MapFS {
	all := []string{
		"-- +goose Up\nCREATE TABLE s.a (n int);",
		"-- +goose NO TRANSACTION\n-- +goose Up\nCREATE INDEX CONCURRENTLY a_n ON s.a (n);",
		"-- +goose Up\nALTER TABLE s.a ADD m int;",
	}
	f := fstest.MapFS{}
	for i, sql := range all[:n] {
		f[[]string{"00001_a.sql", "00002_b.sql", "00003_c.sql"}[i]] = &fstest.MapFile{Data: []byte(sql)}
	}
	return f
}

// Several processes migrate at once, one of the steps being CREATE INDEX CONCURRENTLY, which waits
// for every transaction: a blocking lock would deadlock here.
func TestMigrateAtOnce(t *testing.T) {
	db := pgtest.New(t)
	p, log := open(t, db.URL, pg.Options{}), slog.New(slog.DiscardHandler)
	require.Equal(t, errs.FailedPrecondition, errs.KindOf(pg.CheckSchema(t.Context(), p, "s.versions", 1)))
	failed := make([]error, 3)
	var wg sync.WaitGroup
	for i := range failed {
		wg.Go(func() { failed[i] = pg.Migrate(t.Context(), db.URL, migrations(2), "s.versions", log) })
	}
	wg.Wait()
	require.NoError(t, errors.Join(failed...))
	v, err := pg.SchemaVersion(t.Context(), p, "s.versions")
	require.NoError(t, err)
	require.EqualValues(t, 2, v)

	need, err := pg.NewestVersion(migrations(3))
	require.NoError(t, err)
	require.EqualValues(t, 3, need)
	require.ErrorContains(t, pg.CheckSchema(t.Context(), p, "s.versions", need), "at version 2, this program needs 3")
	require.NoError(t, pg.CheckSchema(t.Context(), p, "s.versions", 1), "a newer schema is fine")
}

// A migration that meets a held table lock gives up, so that nobody queues behind it for long, and
// comes again.
func TestMigrateWaitsForLocks(t *testing.T) {
	db := pgtest.New(t)
	p, log := open(t, db.URL, pg.Options{}), &signal{tried: make(chan struct{})}
	require.NoError(t, pg.Migrate(t.Context(), db.URL, migrations(1), "s.versions", slog.New(log)))
	tx, err := p.Begin(t.Context())
	require.NoError(t, err)
	exec(t, tx, `LOCK TABLE s.a`)
	done := make(chan error, 1)
	go func() {
		f := migrations(3)
		delete(f, "00002_b.sql")
		done <- pg.Migrate(t.Context(), db.URL, f, "s.versions", slog.New(log))
	}()
	<-log.tried
	require.NoError(t, tx.Commit(t.Context()))
	require.NoError(t, <-done)
}

// signal is a log handler that tells of the first warning.
type signal struct {
	slog.Handler
	once  sync.Once
	tried chan struct{}
}

func (s *signal) Enabled(context.Context, slog.Level) bool { return true }

func (s *signal) Handle(_ context.Context, r slog.Record) error {
	if r.Level == slog.LevelWarn {
		s.once.Do(func() { close(s.tried) })
	}
	return nil
}
