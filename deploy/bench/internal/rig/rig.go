// Package rig is the ground that the benches stand on: a private Postgres that syncs and a private
// Redis, the suite's binaries built from this checkout and started as processes, and the facts about
// the machine. What is measured lies in the benches.
package rig

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/redis/rueidis"
)

// Rig is the running ground. Close it.
type Rig struct {
	// Redis is the bench's own connection.
	Redis rueidis.Client
	// RedisURL and AdminURL (a superuser, database "sametick") are for the processes.
	RedisURL string
	AdminURL string
	// InternalToken is the INTERNAL_TOKEN of the started services.
	InternalToken string

	dir     string
	bin     string
	log     io.Writer
	servers *servers
	admin   *pgxpool.Pool
}

// Start builds the named services and starts the servers in a directory of its own. Progress and the
// services' logs go to log and to files beside the data.
func Start(ctx context.Context, log io.Writer, services ...string) (_ *Rig, err error) {
	root, err := workspace(ctx)
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "sametick-bench-")
	if err != nil {
		return nil, fmt.Errorf("make a directory for the bench: %w", err)
	}
	// Postgres refuses to run as root and runs as another account then, which must reach its data.
	if err := os.Chmod(dir, 0o755); err != nil {
		return nil, fmt.Errorf("open the bench's directory: %w", err)
	}
	r := &Rig{dir: dir, bin: filepath.Join(dir, "bin"), log: log, InternalToken: secret()}
	defer func() {
		if err != nil {
			err = errors.Join(err, r.Close())
		}
	}()
	for _, name := range services {
		_, _ = fmt.Fprintf(log, "building %s\n", name)
		build := exec.CommandContext(ctx, "go", "build", "-o", filepath.Join(r.bin, name), "./services/"+name+"/cmd/"+name)
		build.Dir = root
		if out, err := build.CombinedOutput(); err != nil {
			return nil, fmt.Errorf("build %s: %w\n%s", name, err, out)
		}
	}
	if r.servers, err = startServers(ctx, dir, log); err != nil {
		return nil, err
	}
	r.AdminURL, r.RedisURL = r.servers.postgres.URL, r.servers.redis.URL
	if r.admin, err = pgxpool.New(ctx, r.AdminURL); err != nil {
		return nil, fmt.Errorf("connect to Postgres: %w", err)
	}
	opts, err := rueidis.ParseURL(r.RedisURL)
	if err != nil {
		return nil, fmt.Errorf("read the Redis URL: %w", err)
	}
	opts.DisableCache = true
	if r.Redis, err = rueidis.NewClient(opts); err != nil {
		return nil, fmt.Errorf("connect to Redis: %w", err)
	}
	return r, nil
}

// Close stops the servers and removes their data. Processes that were started must be stopped before.
func (r *Rig) Close() error {
	if r.Redis != nil {
		r.Redis.Close()
	}
	if r.admin != nil {
		r.admin.Close()
	}
	var err error
	if r.servers != nil {
		err = r.servers.stop()
	}
	return errors.Join(err, os.RemoveAll(r.dir))
}

// Dir is a directory that lasts as long as the rig.
func (r *Rig) Dir() string { return r.dir }

// Database makes an empty database and lets a service migrate it; it answers its URL as superuser.
func (r *Rig) Database(ctx context.Context, name string, migrators ...string) (string, error) {
	if _, err := r.admin.Exec(ctx, `CREATE DATABASE `+name); err != nil {
		return "", fmt.Errorf("create database %s: %w", name, err)
	}
	u, err := url.Parse(r.AdminURL)
	if err != nil {
		return "", fmt.Errorf("read the Postgres URL: %w", err)
	}
	u.Path = "/" + name
	for _, m := range migrators {
		migrate := exec.CommandContext(ctx, filepath.Join(r.bin, m), "migrate")
		migrate.Env = append(os.Environ(), "DATABASE_URL="+u.String(), "REDIS_URL="+r.RedisURL)
		if out, err := migrate.CombinedOutput(); err != nil {
			return "", fmt.Errorf("%s migrate: %w\n%s", m, err, out)
		}
	}
	return u.String(), nil
}

// As gives a database's URL for a service's login role, which gets a password of this run.
func (r *Rig) As(ctx context.Context, databaseURL, role string) (string, error) {
	u, err := url.Parse(databaseURL)
	if err != nil {
		return "", fmt.Errorf("read the Postgres URL: %w", err)
	}
	// A statement takes no parameter there; the token is hexadecimal and the role one of ours.
	if _, err := r.admin.Exec(ctx, fmt.Sprintf(`ALTER ROLE %s LOGIN PASSWORD '%s'`, role, r.InternalToken)); err != nil {
		return "", fmt.Errorf("give %s a password: %w", role, err)
	}
	u.User = url.UserPassword(role, r.InternalToken)
	return u.String(), nil
}

// Settle makes what came before not count: dirty pages are written, Redis is emptied.
func (r *Rig) Settle(ctx context.Context) error {
	if _, err := r.admin.Exec(ctx, `CHECKPOINT`); err != nil {
		return fmt.Errorf("checkpoint: %w", err)
	}
	if err := r.Redis.Do(ctx, r.Redis.B().Flushall().Sync().Build()).Error(); err != nil {
		return fmt.Errorf("empty Redis: %w", err)
	}
	return nil
}

// workspace finds the checkout that the bench is run from.
func workspace(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, "go", "env", "GOWORK").Output()
	if err != nil {
		return "", fmt.Errorf("go env GOWORK: %w", err)
	}
	file := strings.TrimSpace(string(out))
	if file == "" || file == "off" {
		return "", errors.New("run the bench inside a checkout: there is no go.work here or above")
	}
	return filepath.Dir(file), nil
}

func secret() string {
	b := make([]byte, 24)
	_, _ = rand.Read(b) // never fails, see crypto/rand
	return hex.EncodeToString(b)
}
