package devstack

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
)

// startTimeout bounds a server's start, crash recovery included.
const startTimeout = 60 * time.Second

// PostgresOptions configures a private Postgres.
type PostgresOptions struct {
	// Dir holds the data and survives the server.
	Dir string
	// Settings are added to postgresql.conf's; fsync stays on unless they say otherwise.
	Settings map[string]string
	// Log gets a line for what takes time; nil discards it.
	Log io.Writer
}

// Postgres is a private server. Its methods are for one goroutine.
type Postgres struct {
	// URL connects as the superuser `sametick` to the database `sametick`, over loopback.
	URL string

	dir     string
	binary  string
	account account
	args    []string
	proc    *Process
}

// StartPostgres makes the data directory when there is none and starts a server in it on a free port
// of loopback, the same as last time when that is free. TCP only, so that no stale socket is in the
// way, and by password, since loopback is every local user's.
func StartPostgres(ctx context.Context, o PostgresOptions) (*Postgres, error) {
	if o.Log == nil {
		o.Log = io.Discard
	}
	binary, err := needBinary(ctx, o.Log, "postgres", func(m packages) string { return m.postgres })
	if err != nil {
		return nil, err
	}
	acc, err := serverAccount()
	if err != nil {
		return nil, err
	}
	dir, err := acc.prepare(o.Dir)
	if err != nil {
		return nil, err
	}
	if dir != o.Dir {
		_, _ = fmt.Fprintf(o.Log, "Postgres keeps its data in %s\n", dir)
	}
	password, err := initData(ctx, o.Log, acc, filepath.Dir(binary), dir)
	if err != nil {
		return nil, err
	}
	if err := refuseSecond(filepath.Join(dir, "data", "postmaster.pid"), "Postgres"); err != nil {
		return nil, err
	}
	port, err := choosePort(filepath.Join(dir, "port"))
	if err != nil {
		return nil, err
	}
	p := &Postgres{dir: dir, binary: binary, account: acc, args: postgresArgs(dir, port, o.Settings)}
	p.URL = (&url.URL{
		Scheme: "postgres", User: url.UserPassword("sametick", password),
		Host: net.JoinHostPort("127.0.0.1", strconv.Itoa(port)), Path: "/sametick", RawQuery: "sslmode=disable",
	}).String()
	if err := p.Start(ctx); err != nil {
		return nil, err
	}
	if err := p.createDatabase(ctx); err != nil {
		return nil, errors.Join(err, p.Stop())
	}
	return p, nil
}

func postgresArgs(dir string, port int, settings map[string]string) []string {
	all := map[string]string{
		"listen_addresses": "127.0.0.1", "port": strconv.Itoa(port), "unix_socket_directories": "",
		"max_connections": "300", "shared_buffers": "256MB", "timezone": "UTC", "log_timezone": "UTC",
		"max_wal_size": "4GB", "log_min_messages": "fatal",
	}
	maps.Copy(all, settings)
	args := []string{"-D", filepath.Join(dir, "data")}
	for _, name := range slices.Sorted(maps.Keys(all)) {
		args = append(args, "-c", name+"="+all[name])
	}
	return args
}

// initData runs initdb into a directory beside the data and renames it when it is whole, so that an
// interrupted first start leaves nothing that looks like data. It answers the superuser's password.
func initData(ctx context.Context, log io.Writer, acc account, bin, dir string) (string, error) {
	secret := filepath.Join(dir, "password")
	data := filepath.Join(dir, "data")
	if _, err := os.Stat(filepath.Join(data, "PG_VERSION")); err == nil {
		password, err := os.ReadFile(secret) //nolint:gosec // a path of ours
		if err != nil {
			return "", fmt.Errorf("the data in %s has no readable password file (%w): remove %s to begin anew", data, err, dir)
		}
		return strings.TrimSpace(string(password)), nil
	}
	_, _ = fmt.Fprintf(log, "initialising Postgres in %s\n", data)
	password := rand.Text()
	if err := os.WriteFile(secret, []byte(password+"\n"), 0o600); err != nil {
		return "", fmt.Errorf("cannot write to %s: %w: free space, or make it writable", dir, err)
	}
	if err := acc.own(dir); err != nil {
		return "", err
	}
	if acc.attr != nil {
		if err := os.Chown(secret, acc.uid, acc.gid); err != nil {
			return "", fmt.Errorf("password file: %w", err)
		}
	}
	half := filepath.Join(dir, "data.new")
	if err := os.RemoveAll(half); err != nil {
		return "", fmt.Errorf("remove what an interrupted start left: %w", err)
	}
	if err := run(ctx, io.Discard, []string{"LC_ALL=C"}, acc.attributes(), filepath.Join(bin, "initdb"), "-D", half, "-U", "sametick",
		"--pwfile", secret, "-A", "scram-sha-256", "-E", "UTF8", "--locale=C", "--no-sync"); err != nil {
		return "", fmt.Errorf("initialise Postgres (is there space in %s?): %w", dir, err)
	}
	if err := os.Rename(half, data); err != nil {
		return "", fmt.Errorf("data directory: %w", err)
	}
	return password, nil
}

// Start starts the server again after Stop or Kill, on the same port, and waits until it answers.
func (p *Postgres) Start(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	cmd := exec.Command(p.binary, p.args...) //nolint:gosec,noctx // the server outlives this context
	cmd.SysProcAttr = p.account.attributes()
	cmd.Dir = p.dir
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	proc, err := StartProcess(cmd, syscall.SIGINT)
	if err != nil {
		return err
	}
	p.proc = proc
	if err := proc.await(ctx, "Postgres", p.ping); err != nil {
		return errors.Join(err, proc.Stop(syscall.SIGQUIT))
	}
	return nil
}

// ping connects to the database that always exists.
func (p *Postgres) ping(ctx context.Context) error {
	conn, err := pgx.Connect(ctx, p.database("postgres"))
	if err != nil {
		return err //nolint:wrapcheck // await adds what was waited for
	}
	return conn.Close(ctx) //nolint:wrapcheck // as above
}

func (p *Postgres) database(name string) string {
	return strings.Replace(p.URL, "/sametick?", "/"+name+"?", 1)
}

func (p *Postgres) createDatabase(ctx context.Context) error {
	conn, err := pgx.Connect(ctx, p.database("postgres"))
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	defer func() { _ = conn.Close(ctx) }()
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

// Stop shuts down fast: sessions are ended, data is whole.
func (p *Postgres) Stop() error { return p.proc.Stop(syscall.SIGINT) }

// Kill shuts down as a crash does (immediate): the next Start recovers.
func (p *Postgres) Kill() error { return p.proc.Stop(syscall.SIGQUIT) }

// PID is the postmaster's.
func (p *Postgres) PID() int { return p.proc.cmd.Process.Pid }

// refuseSecond reports a server that still runs on the same data.
func refuseSecond(pidFile, what string) error {
	b, err := os.ReadFile(pidFile) //nolint:gosec // a path of ours
	if err != nil {
		return nil //nolint:nilerr // no file, no server
	}
	first, _, _ := strings.Cut(string(b), "\n")
	pid, err := strconv.Atoi(strings.TrimSpace(first))
	if err != nil || pid <= 0 || syscall.Kill(pid, 0) != nil {
		return nil //nolint:nilerr // stale: the server cleans it up
	}
	return fmt.Errorf("%s already runs on this data, as process %d: stop what started it, or `kill %d`", what, pid, pid)
}

// choosePort gives the port that the file remembers if it is free, else a free one, which it then
// remembers.
func choosePort(file string) (int, error) {
	if b, err := os.ReadFile(file); err == nil { //nolint:gosec // a path of ours
		if port, err := strconv.Atoi(strings.TrimSpace(string(b))); err == nil && portFree(port) {
			return port, nil
		}
	}
	l, err := net.Listen("tcp4", "127.0.0.1:0") //nolint:noctx // no name to resolve
	if err != nil {
		return 0, fmt.Errorf("no free port on 127.0.0.1: %w", err)
	}
	port := l.Addr().(*net.TCPAddr).Port //nolint:forcetypeassert // a TCP listener's
	if err := l.Close(); err != nil {
		return 0, fmt.Errorf("port %d: %w", port, err)
	}
	if err := os.WriteFile(file, []byte(strconv.Itoa(port)+"\n"), 0o600); err != nil {
		return 0, fmt.Errorf("cannot write to the data directory: %w: free space, or make it writable", err)
	}
	return port, nil
}

func portFree(port int) bool {
	l, err := net.Listen("tcp4", net.JoinHostPort("127.0.0.1", strconv.Itoa(port))) //nolint:noctx // no name to resolve
	if err != nil {
		return false
	}
	return l.Close() == nil
}
