package devstack

import (
	"bufio"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// RedisOptions configures a private Redis.
type RedisOptions struct {
	// Dir holds the port and the password, nothing else: a private Redis keeps no data.
	Dir string
	// Args are further arguments of redis-server ("--maxmemory", "64mb").
	Args []string
	// Log gets a line for what takes time; nil discards it.
	Log io.Writer
}

// Redis is a private server without persistence. Its methods are for one goroutine.
type Redis struct {
	// URL is redis://:password@127.0.0.1:port/0.
	URL string

	addr, password string
	binary         string
	dir            string
	args           []string
	proc           *Process
}

// StartRedis starts a server on a free port of loopback, the same as last time when that is free.
func StartRedis(ctx context.Context, o RedisOptions) (*Redis, error) {
	if o.Log == nil {
		o.Log = io.Discard
	}
	binary, err := needBinary(ctx, o.Log, "redis-server", func(m packages) string { return m.redis })
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("cannot make the data directory: %w: make its parent writable, or free space", err)
	}
	if err := refuseSecond(filepath.Join(o.Dir, "redis.pid"), "Redis"); err != nil {
		return nil, err
	}
	port, err := choosePort(filepath.Join(o.Dir, "port"))
	if err != nil {
		return nil, err
	}
	password, err := rememberPassword(filepath.Join(o.Dir, "password"))
	if err != nil {
		return nil, err
	}
	r := &Redis{binary: binary, dir: o.Dir, password: password, addr: net.JoinHostPort("127.0.0.1", strconv.Itoa(port)), args: append([]string{
		"--bind", "127.0.0.1", "--port", strconv.Itoa(port), "--save", "", "--appendonly", "no", "--daemonize", "no",
		"--dir", o.Dir, "--pidfile", filepath.Join(o.Dir, "redis.pid"), "--requirepass", password, "--loglevel", "warning",
	}, o.Args...)}
	r.URL = "redis://:" + password + "@" + r.addr + "/0"
	return r, r.Start(ctx)
}

func rememberPassword(file string) (string, error) {
	if b, err := os.ReadFile(file); err == nil { //nolint:gosec // a path of ours
		if password := strings.TrimSpace(string(b)); password != "" {
			return password, nil
		}
	}
	password := rand.Text()
	if err := os.WriteFile(file, []byte(password+"\n"), 0o600); err != nil {
		return "", fmt.Errorf("cannot write to the data directory: %w: free space, or make it writable", err)
	}
	return password, nil
}

// Start starts the server again after Stop or Kill, empty, on the same port.
func (r *Redis) Start(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	cmd := exec.Command(r.binary, r.args...) //nolint:gosec,noctx // the server outlives this context
	cmd.Dir = r.dir
	proc, err := StartProcess(cmd, syscall.SIGTERM)
	if err != nil {
		return err
	}
	r.proc = proc
	if err := proc.await(ctx, "Redis", r.ping); err != nil {
		return errors.Join(err, proc.Stop(syscall.SIGKILL))
	}
	return nil
}

// ping speaks the protocol itself: a client library here would be the package's only use of one.
func (r *Redis) ping(ctx context.Context) error {
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", r.addr)
	if err != nil {
		return err //nolint:wrapcheck // await adds what was waited for
	}
	defer func() { _ = conn.Close() }()
	if _, err := fmt.Fprintf(conn, "AUTH %s\r\nPING\r\n", r.password); err != nil {
		return err //nolint:wrapcheck // as above
	}
	in := bufio.NewReader(conn)
	for _, want := range []string{"+OK", "+PONG"} {
		line, err := in.ReadString('\n')
		if err != nil {
			return err //nolint:wrapcheck // as above
		}
		if !strings.HasPrefix(line, want) {
			return fmt.Errorf("answered %q", strings.TrimSpace(line))
		}
	}
	return nil
}

// Stop ends the server; its data is gone.
func (r *Redis) Stop() error { return r.proc.Stop(syscall.SIGTERM) }

// Kill ends it at once, as a crash does.
func (r *Redis) Kill() error { return r.proc.Stop(syscall.SIGKILL) }

// Pause and Continue freeze the process and let it go on: a server that is there and does not answer.
func (r *Redis) Pause() error { return r.proc.cmd.Process.Signal(syscall.SIGSTOP) } //nolint:wrapcheck // names itself

// Continue lets a paused server go on.
func (r *Redis) Continue() error { return r.proc.cmd.Process.Signal(syscall.SIGCONT) } //nolint:wrapcheck // names itself

// PID is the server's.
func (r *Redis) PID() int { return r.proc.cmd.Process.Pid }
