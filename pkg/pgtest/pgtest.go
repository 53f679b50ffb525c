// Package pgtest gives a test a Postgres database of its own, on one server for all tests of a
// run: the one of DATABASE_URL, which `make test` sets, else one of the test process' own.
package pgtest

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/url"
	"os"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/sametick/sametick/pkg/devstack"
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
	server := serverURL(t)
	template := "template_" + Fingerprint([]byte(name))
	if err := ensureTemplate(t.Context(), server, template, migrate); err != nil {
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
	// Roles are the cluster's: parallel tests change the same row, hence the lock.
	err := withLock(t.Context(), serverURL(t), "sametick.pgtest.roles", func(conn *pgx.Conn) error {
		_, err := conn.Exec(t.Context(), fmt.Sprintf("ALTER ROLE %s PASSWORD '%s'", pgx.Identifier{role}.Sanitize(), rolePassword))
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

// Private gives a whole server, for a test that crashes it.
func Private(t testing.TB, settings map[string]string) *devstack.Postgres {
	t.Helper()
	p, err := devstack.StartPostgres(t.Context(), devstack.PostgresOptions{Dir: t.TempDir(), Settings: settings})
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

func serverURL(t testing.TB) string {
	t.Helper()
	if u := os.Getenv("DATABASE_URL"); u != "" {
		return u
	}
	u, err := ownServer()
	if err != nil {
		t.Fatalf("pgtest: %v", err)
	}
	return u
}

// ensureTemplate makes the template under another name and renames it when it is whole.
func ensureTemplate(ctx context.Context, server, template string, migrate func(context.Context, string) error) error {
	return withLock(ctx, server, template, func(conn *pgx.Conn) error {
		var exists bool
		if err := conn.QueryRow(ctx, "SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)", template).Scan(&exists); err != nil || exists {
			return err
		}
		half := template + "_half"
		for _, sql := range []string{"DROP DATABASE IF EXISTS " + half + " WITH (FORCE)", "CREATE DATABASE " + half} {
			if _, err := conn.Exec(ctx, sql); err != nil {
				return err
			}
		}
		if err := migrate(ctx, withDatabase(server, half)); err != nil {
			return err
		}
		_, err := conn.Exec(ctx, "ALTER DATABASE "+half+" RENAME TO "+template)
		return err
	})
}

func clone(t testing.TB, template string) *DB {
	t.Helper()
	server := serverURL(t)
	name := "test_" + strings.ToLower(rand.Text())
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

// withLock runs f while it holds an advisory lock by that name, across processes.
func withLock(ctx context.Context, url, name string, f func(*pgx.Conn) error) error {
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	defer func() { _ = conn.Close(ctx) }()
	if _, err := conn.Exec(ctx, "SELECT pg_advisory_lock(hashtextextended($1, 0))", name); err != nil {
		return fmt.Errorf("lock %s: %w", name, err)
	}
	return f(conn)
}
