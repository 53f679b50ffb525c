package pg

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/lock"

	"github.com/sametick/sametick/pkg/backoff"
	"github.com/sametick/sametick/pkg/errs"
)

const (
	// migrationLock serialises the migrations of all services in one database: "sametick" in ASCII.
	migrationLock = 0x73616d657469636b
	// A migration that waits for a table lock makes everyone behind it wait too, so it gives up early
	// and comes again.
	migrationLockTimeout = 3 * time.Second
	migrationAttempts    = 20
	// Another process may migrate for minutes (an index on a big table): 600 polls of one second.
	lockPollSeconds, lockPolls = 1, 600
)

var blocked = backoff.Policy{Base: 500 * time.Millisecond, Cap: 5 * time.Second}

// Migrate brings the schema to the newest version in fsys (goose, NNNNN_name.sql in its root). Many
// processes may run it at once: a polled session lock lets one do the work (a blocking lock would
// deadlock with CREATE INDEX CONCURRENTLY). table, "schema.name", keeps the versions; the schema is
// made if it is missing. url must reach the server itself, not a transaction-pooling proxy.
func Migrate(ctx context.Context, url string, fsys fs.FS, table string, log *slog.Logger) error {
	c, err := pgx.ParseConfig(url)
	if err != nil {
		return errors.New("pg: the database URL does not parse")
	}
	setTimeout(c.RuntimeParams, "lock_timeout", migrationLockTimeout)
	c.RuntimeParams["statement_timeout"] = "0"
	for attempt := 1; ; attempt++ {
		err = migrate(ctx, c, fsys, table, log)
		if code(err) != lockNotAvailable || attempt == migrationAttempts {
			return Translate(err)
		}
		log.WarnContext(ctx, "migration waits for a lock, trying again", "attempt", attempt, "error", err)
		t := time.NewTimer(blocked.Next(attempt))
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return Translate(ctx.Err())
		}
	}
}

func migrate(ctx context.Context, c *pgx.ConnConfig, fsys fs.FS, table string, log *slog.Logger) error {
	db := stdlib.OpenDB(*c)
	defer func() { _ = db.Close() }()
	if err := makeSchema(ctx, c, table); err != nil {
		return err
	}
	locker, err := lock.NewPostgresSessionLocker(lock.WithLockID(migrationLock), lock.WithLockTimeout(lockPollSeconds, lockPolls))
	if err != nil {
		return err
	}
	p, err := goose.NewProvider(goose.DialectPostgres, db, fsys, goose.WithTableName(table),
		goose.WithSessionLocker(locker), goose.WithDisableGlobalRegistry(true))
	if err != nil {
		return err
	}
	done, err := p.Up(ctx)
	for _, r := range done {
		log.InfoContext(ctx, "migrated", "version", r.Source.Version, "file", r.Source.Path, "took", r.Duration)
	}
	return err
}

// makeSchema looks before it creates: CREATE SCHEMA IF NOT EXISTS asks for the right to create
// even when there is nothing to do, and two of them at once collide.
func makeSchema(ctx context.Context, c *pgx.ConnConfig, table string) error {
	schema, _, ok := strings.Cut(table, ".")
	if !ok {
		return nil
	}
	conn, err := pgx.ConnectConfig(ctx, c)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	var there bool
	if err := conn.QueryRow(ctx, "SELECT to_regnamespace($1) IS NOT NULL", schema).Scan(&there); err != nil || there {
		return err
	}
	_, err = conn.Exec(ctx, "CREATE SCHEMA IF NOT EXISTS "+pgx.Identifier{schema}.Sanitize())
	if k := code(err); k == uniqueViolation || k == duplicateSchema {
		return nil // another process was first
	}
	return err
}

// RowQuerier reads one row: a pool, a connection or a transaction.
type RowQuerier interface {
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

// SchemaVersion is the newest applied version in Migrate's table; 0 before the first migration. The
// caller's role needs SELECT on the table.
func SchemaVersion(ctx context.Context, db RowQuerier, table string) (int64, error) {
	var v int64
	name := pgx.Identifier(strings.Split(table, ".")).Sanitize()
	err := db.QueryRow(ctx, "SELECT coalesce(max(version_id), 0) FROM "+name+" WHERE is_applied").Scan(&v)
	if k := code(err); k == undefinedTable || k == invalidSchema {
		return 0, nil
	}
	return v, Translate(err)
}

// NewestVersion is the newest version among the migrations in fsys.
func NewestVersion(fsys fs.FS) (int64, error) {
	names, err := fs.Glob(fsys, "*.sql")
	if err != nil {
		return 0, err
	}
	var newest int64
	for _, n := range names {
		v, err := goose.NumericComponent(n)
		if err != nil {
			return 0, fmt.Errorf("pg: migration %s: %w", n, err)
		}
		newest = max(newest, v)
	}
	return newest, nil
}

// CheckSchema errs while the schema is older than need: a service is unready until then. A newer
// schema is fine, since migrations stay compatible one version back.
func CheckSchema(ctx context.Context, db RowQuerier, table string, need int64) error {
	have, err := SchemaVersion(ctx, db, table)
	if err != nil {
		return err
	}
	if have < need {
		return errs.New(errs.FailedPrecondition, "SCHEMA_TOO_OLD",
			fmt.Sprintf("schema %s is at version %d, this program needs %d: run its migrate subcommand", table, have, need))
	}
	return nil
}
