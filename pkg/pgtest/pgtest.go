// Package pgtest gives a test a Postgres database of its own, on one server for all tests of a
// run: the one of DATABASE_URL, which `make test` sets, else one of the test process' own.
package pgtest

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// rolePassword is what URLAs gives the services' roles, which migrations make without one.
const rolePassword = "sametick-test"

// DB is one test's database. It is dropped when the test ends.
type DB struct {
	// URL connects as the superuser.
	URL string
}

// New gives an empty database.
func New(t testing.TB) *DB {
	t.Helper()
	return clone(t, "template0")
}

// Migrated gives a database that migrate has prepared. The work is done once per name and server and
// cloned for each test: name must change with what migrate does (use Fingerprint).
func Migrated(t testing.TB, name string, migrate func(ctx context.Context, url string) error) *DB {
	t.Helper()
	template, err := ensureTemplate(t.Context(), serverURL(t), Fingerprint([]byte(name)), migrate)
	if err != nil {
		t.Fatalf("pgtest: template %s: %v", name, err)
	}
	return clone(t, template)
}

// Fingerprint names a template by what it is made of.
func Fingerprint(parts ...[]byte) string {
	h := sha256.New()
	for _, p := range parts {
		_, _ = h.Write(p)
		_, _ = h.Write([]byte{0})
	}
	return hex.EncodeToString(h.Sum(nil))[:24]
}

// Pool connects as the superuser, until the test ends.
func (db *DB) Pool(t testing.TB) *pgxpool.Pool { return Pool(t, db.URL) }

// Pool connects to url until the test ends.
func Pool(t testing.TB, url string) *pgxpool.Pool {
	t.Helper()
	pool, err := pgxpool.New(t.Context(), url)
	if err != nil {
		t.Fatalf("pgtest: %v", err)
	}
	t.Cleanup(pool.Close)
	return pool
}

// URLAs connects as one of the services' roles.
func (db *DB) URLAs(t testing.TB, role string) string {
	t.Helper()
	ctx := t.Context()
	err := withLock(ctx, serverURL(t), func(conn *pgx.Conn) error {
		_, err := conn.Exec(ctx, fmt.Sprintf("ALTER ROLE %s LOGIN PASSWORD '%s'", pgx.Identifier{role}.Sanitize(), rolePassword))
		return err
	})
	if err != nil {
		t.Fatalf("pgtest: password of %s: %v", role, err)
	}
	u, err := url.Parse(db.URL)
	if err != nil {
		t.Fatalf("pgtest: %v", err)
	}
	u.User = url.UserPassword(role, rolePassword)
	return u.String()
}

// ensureTemplate makes the template under another name and renames it when it is whole.
func ensureTemplate(ctx context.Context, server, id string, migrate func(context.Context, string) error) (template string, err error) {
	err = withLock(ctx, server, func(conn *pgx.Conn) error {
		err := conn.QueryRow(ctx, `SELECT datname FROM pg_database WHERE datname LIKE 'sametick\_template\_%\_' || $1 LIMIT 1`, id).Scan(&template)
		if !errors.Is(err, pgx.ErrNoRows) {
			return err
		}
		template = databaseName("template", id)
		half := databaseName("half", id)
		if _, err := conn.Exec(ctx, "CREATE DATABASE "+half); err != nil {
			return fmt.Errorf("create %s: %w", half, err)
		}
		if err := migrate(ctx, withDatabase(server, half)); err != nil {
			_, dropErr := conn.Exec(context.WithoutCancel(ctx), "DROP DATABASE "+half+" WITH (FORCE)")
			return errors.Join(err, dropErr)
		}
		for _, sql := range []string{ // a session that is still closing would stand in the way of the rename and of clones
			"ALTER DATABASE " + half + " ALLOW_CONNECTIONS false",
			"SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE datname = '" + half + "'",
			"ALTER DATABASE " + half + " RENAME TO " + template,
		} {
			if _, err := conn.Exec(ctx, sql); err != nil {
				return fmt.Errorf("%s: %w", sql, err)
			}
		}
		return nil
	})
	return template, err
}

// clone leaves the strategy to the server: WAL_LOG and FILE_COPY took the same time for 80 tables, and
// the second makes two checkpoints for all and is unknown to Postgres 14.
func clone(t testing.TB, template string) *DB {
	t.Helper()
	server := serverURL(t)
	name := databaseName("test", strings.ToLower(rand.Text()))
	ctx := t.Context()
	if err := exec(ctx, server, "CREATE DATABASE "+name+" TEMPLATE "+template); err != nil {
		t.Fatalf("pgtest: %v", err)
	}
	t.Cleanup(func() {
		if err := exec(context.WithoutCancel(ctx), server, "DROP DATABASE "+name+" WITH (FORCE)"); err != nil {
			t.Errorf("pgtest: %v", err)
		}
	})
	return &DB{URL: withDatabase(server, name)}
}

// leftoverAge is how old a database may be before another run takes it for a killed test's.
const leftoverAge = 6 * time.Hour

// databaseName says when the database was made, for sweep.
func databaseName(kind, id string) string {
	return fmt.Sprintf("sametick_%s_%x_%s", kind, time.Now().Unix(), id)
}

// sweep drops what earlier runs left: tests that were killed, templates of code that has changed.
func sweep(ctx context.Context, conn *pgx.Conn, age time.Duration) error {
	rows, err := conn.Query(ctx, `SELECT datname FROM pg_database WHERE datname ~ '^sametick_(test|half|template)_[0-9a-f]+_'`)
	if err != nil {
		return fmt.Errorf("list databases: %w", err)
	}
	names, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return fmt.Errorf("list databases: %w", err)
	}
	for _, name := range names {
		made, err := strconv.ParseInt(strings.Split(name, "_")[2], 16, 64)
		if err != nil || time.Since(time.Unix(made, 0)) < age {
			continue
		}
		if _, err := conn.Exec(ctx, "DROP DATABASE IF EXISTS "+name+" WITH (FORCE)"); err != nil {
			return fmt.Errorf("drop %s: %w", name, err)
		}
	}
	return nil
}

func withDatabase(server, name string) string {
	u, err := url.Parse(server)
	if err != nil {
		return server // the connection will say what is wrong with it
	}
	u.Path = "/" + name
	return u.String()
}

func exec(ctx context.Context, url, sql string) error {
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	defer func() { _ = conn.Close(ctx) }()
	if _, err := conn.Exec(ctx, sql); err != nil {
		return fmt.Errorf("%s: %w", sql, err)
	}
	return nil
}

// withLock runs f while it holds the one lock of all test processes of the server. url is always the
// server's own database, since advisory locks are a database's. What is the cluster's needs it: two
// sessions that change the same role at once fail with "tuple concurrently updated", and migrations do.
func withLock(ctx context.Context, url string, f func(*pgx.Conn) error) error {
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	if _, err := conn.Exec(ctx, "SELECT pg_advisory_lock(hashtextextended('sametick.pgtest', 0))"); err != nil {
		return fmt.Errorf("lock: %w", err)
	}
	return f(conn)
}
