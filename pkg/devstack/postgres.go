package devstack

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/jackc/pgx/v5"
)

// PostgresOptions configures a private Postgres.
type PostgresOptions struct {
	// Dir holds the data and survives the server.
	Dir string
	// Settings are added to postgresql.conf's; fsync stays on unless they say otherwise. With fsync off,
	// data whose server did not shut down in order is made anew: nothing says that it is whole.
	Settings map[string]string
	// Fresh begins with new data in any case.
	Fresh bool
	// Log gets a line for what takes time; nil discards it.
	Log io.Writer
}

// Postgres is a private server. Its methods are for one goroutine.
type Postgres struct {
	// URL connects as the superuser `sametick` to the database `sametick`, over loopback. It stays the
	// same over Stop, Kill and Start.
	URL string

	engine   postgresEngine
	dir      string
	port     int
	password string
	settings map[string]string
	leash    *leash // nil while the server is down by Stop or Kill
}

// postgresEngine is how a server is made and run: by binaries of this machine, or by Docker.
type postgresEngine interface {
	// prepare makes dir (of which it may answer another that stands for it).
	prepare(log io.Writer, dir string) (string, error)
	// initialise makes the data unless it is there; lock is handed to what it runs.
	initialise(ctx context.Context, p *Postgres, o PostgresOptions, lock *os.File) error
	// run starts the server and waits until it accepts connections.
	run(ctx context.Context, p *Postgres, lock, log *os.File) (*leash, error)
	// signal sends SIGQUIT or SIGKILL to the server's first process.
	signal(p *Postgres, sig syscall.Signal) error
}

// StartPostgres makes the data directory when there is none and starts a server in it on a free port
// of loopback, the same as last time when that is free. TCP only, so that no stale or overlong socket
// path is in the way, and by password (scram), since loopback is every local user's. The server ends
// when this process does. A directory in use gives ErrInUse.
func StartPostgres(ctx context.Context, o PostgresOptions) (*Postgres, error) {
	if o.Log == nil {
		o.Log = io.Discard
	}
	engine, err := findPostgres(ctx, o.Log, o.Dir)
	if err != nil {
		return nil, err
	}
	dir, err := engine.prepare(o.Log, o.Dir)
	if err != nil {
		return nil, err
	}
	lock, err := lockDir(ctx, dir, "the Postgres")
	if err != nil {
		return nil, err
	}
	defer func() { _ = lock.Close() }()
	p := &Postgres{engine: engine, dir: dir, settings: o.Settings}
	if err := engine.initialise(ctx, p, o, lock); err != nil {
		return nil, err
	}
	if err := p.up(ctx, o.Log, lock); err != nil {
		return nil, err
	}
	if err := p.createDatabase(ctx); err != nil {
		return nil, errors.Join(err, p.Stop())
	}
	return p, nil
}

// up starts the server, on another port when the one chosen is taken between the look and the bind.
func (p *Postgres) up(ctx context.Context, log io.Writer, lock *os.File) error {
	for attempt := 1; ; attempt++ {
		if err := p.choosePort(log); err != nil {
			return err
		}
		err := p.attempt(ctx, lock)
		if err == nil || attempt == 3 || ctx.Err() != nil || portFree(p.port) {
			return err
		}
	}
}

// choosePort keeps the port once the URL is known to others.
func (p *Postgres) choosePort(log io.Writer) error {
	if p.URL != "" && p.leash == nil && p.port > 0 && portFree(p.port) {
		return nil
	}
	port, err := choosePort(log, filepath.Join(p.dir, "port"), "Postgres")
	if err != nil {
		return err
	}
	p.port = port
	p.URL = (&url.URL{
		Scheme: "postgres", User: url.UserPassword("sametick", p.password),
		Host: net.JoinHostPort("127.0.0.1", strconv.Itoa(port)), Path: "/sametick", RawQuery: "sslmode=disable",
	}).String()
	return nil
}

func (p *Postgres) attempt(ctx context.Context, lock *os.File) error {
	name := filepath.Join(p.dir, "log")
	log, err := os.OpenFile(name, os.O_CREATE|os.O_TRUNC|os.O_APPEND|os.O_RDWR, 0o600)
	if err != nil {
		return unwritable(p.dir, err)
	}
	defer func() { _ = log.Close() }()
	if p.leash, err = p.engine.run(ctx, p, lock, log); err != nil {
		return fmt.Errorf("start Postgres: %w: %s (all of it is in %s)", err, lastLines(name), name)
	}
	return nil
}

// setting is one of postgresql.conf.
type setting struct{ name, value string }

// settingList has the defaults of a private server and the caller's settings over them.
func (p *Postgres) settingList(listen string, port int) []setting {
	all := map[string]string{
		"listen_addresses": listen, "port": strconv.Itoa(port), "unix_socket_directories": "",
		"password_encryption": "scram-sha-256", "wal_level": "replica",
		"max_connections": "300", "shared_buffers": "256MB", "timezone": "UTC", "log_timezone": "UTC",
		"max_wal_size": "4GB", "log_min_messages": "warning", "log_min_error_statement": "panic",
	}
	maps.Copy(all, p.settings)
	var list []setting
	for _, name := range slices.Sorted(maps.Keys(all)) {
		list = append(list, setting{name, all[name]})
	}
	return list
}

// Start starts the server again after Stop, Kill or a death of its own, and waits until it answers.
func (p *Postgres) Start(ctx context.Context) error {
	if err := p.Stop(); err != nil {
		return err
	}
	lock, err := lockDir(ctx, p.dir, "the Postgres")
	if err != nil {
		return err
	}
	defer func() { _ = lock.Close() }()
	if !portFree(p.port) {
		return fmt.Errorf("port %d, which Postgres had, is taken by another program: end that one", p.port)
	}
	return p.attempt(ctx, lock)
}

// Restart stops the server fast and starts it again.
func (p *Postgres) Restart(ctx context.Context) error { return p.Start(ctx) }

// Stop shuts down fast: sessions are ended, data is whole. It returns when no process of the server is
// left, and does nothing when there is none.
func (p *Postgres) Stop() error {
	if p.leash == nil {
		return nil
	}
	err := p.leash.release()
	p.leash = nil
	return errors.Join(err, awaitFree(p.dir))
}

// Kill shuts down as a crash does (immediate, nothing is written any more): the next Start recovers.
func (p *Postgres) Kill() error {
	if p.leash == nil {
		return nil
	}
	if err := p.engine.signal(p, syscall.SIGQUIT); err != nil {
		return err
	}
	return p.Stop()
}

// PID is the postmaster's, 0 when the server is down. Send it SIGKILL for a crash harder than Kill.
func (p *Postgres) PID() int { return readPID(filepath.Join(p.dir, "data", "postmaster.pid")) }

// Dir is where the data and the server's log are: PostgresOptions.Dir, unless the server's account
// cannot enter that.
func (p *Postgres) Dir() string { return p.dir }

func (p *Postgres) createDatabase(ctx context.Context) error {
	conn, err := pgx.Connect(ctx, strings.Replace(p.URL, "/sametick?", "/postgres?", 1))
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	var exists bool
	if err := conn.QueryRow(ctx, "SELECT EXISTS (SELECT FROM pg_database WHERE datname = 'sametick')").Scan(&exists); err != nil {
		return fmt.Errorf("look for the database: %w", err)
	}
	if exists {
		return nil
	}
	if _, err := conn.Exec(ctx, "CREATE DATABASE sametick"); err != nil {
		return fmt.Errorf("create the database: %w", err)
	}
	return nil
}

// lastLines gives the end of a server's log, for the error that says why it did not start.
func lastLines(file string) string {
	f, err := os.Open(file)
	if err != nil {
		return "its log cannot be read: " + err.Error()
	}
	defer func() { _ = f.Close() }()
	var lines []string
	for in := bufio.NewScanner(f); in.Scan(); {
		if line := strings.TrimSpace(in.Text()); line != "" {
			lines = append(lines, line)
		}
	}
	if len(lines) == 0 {
		return "it said nothing"
	}
	return strings.Join(lines[max(0, len(lines)-6):], "; ")
}
