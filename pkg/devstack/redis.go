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
	"time"
)

// startTimeout bounds Redis' start, the loading of persisted data included.
const startTimeout = 60 * time.Second

// RedisOptions configures a private Redis.
type RedisOptions struct {
	// Dir holds the port, the password and the log; data only if Args turn persistence on.
	Dir string
	// Args are further arguments of redis-server ("--maxmemory", "64mb", "--appendonly", "yes").
	Args []string
	// Log gets a line for what takes time; nil discards it.
	Log io.Writer
}

// Redis is a private server, without persistence unless told. Its methods are for one goroutine.
type Redis struct {
	// URL is redis://default:password@127.0.0.1:port/0. It stays the same over Stop, Kill and Start.
	URL string
	// Addr is host:port, Password what AUTH takes.
	Addr, Password string

	binary string
	docker docker // instead of a binary
	dir    string
	port   string
	args   []string
	proc   *Process // nil while the server is down by Stop or Kill
}

// StartRedis starts a server on a free port of loopback, the same as last time when that is free, behind
// a password, since loopback is every local user's. It ends when this process does (on Linux; elsewhere
// a SIGKILL of this process leaves it, and the next start in Dir names it). A directory in use gives
// ErrInUse.
func StartRedis(ctx context.Context, o RedisOptions) (*Redis, error) {
	if o.Log == nil {
		o.Log = io.Discard
	}
	dir, err := filepath.Abs(o.Dir)
	if err != nil {
		return nil, fmt.Errorf("data directory: %w", err)
	}
	r := &Redis{dir: dir, args: o.Args}
	if err := r.find(ctx, o.Log); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, unwritable(dir, err)
	}
	lock, err := lockDir(ctx, dir, "the Redis")
	if err != nil {
		return nil, err
	}
	defer func() { _ = lock.Close() }()
	if r.Password, err = rememberPassword(filepath.Join(dir, "password")); err != nil {
		return nil, err
	}
	for attempt := 1; ; attempt++ { // a port can be taken between the look and the bind
		port, err := choosePort(o.Log, filepath.Join(dir, "port"), "Redis")
		if err != nil {
			return nil, err
		}
		r.port = strconv.Itoa(port)
		r.Addr = net.JoinHostPort("127.0.0.1", r.port)
		r.URL = "redis://default:" + r.Password + "@" + r.Addr + "/0"
		if err = r.attempt(ctx, lock); err == nil || attempt == 3 || ctx.Err() != nil || portFree(port) {
			return r.orError(err)
		}
	}
}

func (r *Redis) orError(err error) (*Redis, error) {
	if err != nil {
		return nil, err
	}
	return r, nil
}

func (r *Redis) find(ctx context.Context, log io.Writer) error {
	var ok bool
	if r.binary, ok = installedRedis(); ok {
		return nil
	}
	if r.docker, ok = findDocker(ctx); ok {
		return r.docker.pull(ctx, log, redisImage)
	}
	if err := install(ctx, log, "Redis", func(m manager) string { return m.redis }); err != nil {
		return err
	}
	if r.binary, ok = installedRedis(); !ok {
		return errors.New("Redis was installed, but redis-server is not where it is looked for: put its directory into PATH")
	}
	return nil
}

func rememberPassword(file string) (string, error) {
	if b, err := os.ReadFile(file); err == nil {
		if password := strings.TrimSpace(string(b)); password != "" {
			return password, nil
		}
	}
	password := rand.Text()
	if err := os.WriteFile(file, []byte(password+"\n"), 0o600); err != nil {
		return "", unwritable(filepath.Dir(file), err)
	}
	return password, nil
}

// command keeps the password off the command line, which every user of the machine can read.
func (r *Redis) command(log *os.File, lock *os.File) (*exec.Cmd, error) {
	bind, port, dir := "127.0.0.1", r.port, "dir \""+r.dir+"\"\n"
	if r.docker != "" {
		bind, port, dir = "*", "6379", ""
	}
	conf := fmt.Appendf(nil, "bind %s\nport %s\nrequirepass %s\n%ssave \"\"\nappendonly no\ndaemonize no\nloglevel warning\n", bind, port, r.Password, dir)
	var cmd *exec.Cmd
	if r.docker != "" {
		cmd = r.docker.redisContainer(r.dir, r.port, conf, r.args)
	} else {
		file := filepath.Join(r.dir, "redis.conf")
		if err := os.WriteFile(file, conf, 0o600); err != nil {
			return nil, unwritable(r.dir, err)
		}
		cmd = exec.Command(r.binary, append([]string{file}, r.args...)...) //nolint:noctx // a server's binary; it outlives any context
	}
	cmd.Dir, cmd.Stdout, cmd.Stderr = r.dir, log, log
	cmd.ExtraFiles = []*os.File{lock}
	return cmd, nil
}

func (r *Redis) attempt(ctx context.Context, lock *os.File) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	name := filepath.Join(r.dir, "log")
	log, err := os.OpenFile(name, os.O_CREATE|os.O_TRUNC|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return unwritable(r.dir, err)
	}
	defer func() { _ = log.Close() }()
	onDeath := syscall.SIGKILL // a paused server heeds nothing less
	if r.docker != "" {
		onDeath = syscall.SIGTERM // which the client passes on
		_ = r.docker.run(ctx, "rm", "--force", container("redis", r.dir))
	}
	cmd, err := r.command(log, lock)
	if err != nil {
		return err
	}
	proc, err := StartProcess(cmd, onDeath)
	if err != nil {
		return err
	}
	if err := proc.await(ctx, r.ping); err != nil {
		return errors.Join(fmt.Errorf("start Redis: %w: %s (all of it is in %s)", err, lastLines(name), name), proc.Stop(syscall.SIGTERM))
	}
	r.proc = proc
	return nil
}

// Start starts the server again after Stop, Kill or a death of its own, on the same port.
func (r *Redis) Start(ctx context.Context) error {
	if err := r.Stop(); err != nil {
		return err
	}
	lock, err := lockDir(ctx, r.dir, "the Redis")
	if err != nil {
		return err
	}
	defer func() { _ = lock.Close() }()
	return r.attempt(ctx, lock)
}

// Restart stops the server and starts it again, empty unless Args turned persistence on.
func (r *Redis) Restart(ctx context.Context) error { return r.Start(ctx) }

// ping speaks the protocol itself: a client library here would be the package's only use of one.
func (r *Redis) ping(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", r.Addr)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	deadline, _ := ctx.Deadline()
	if err := conn.SetDeadline(deadline); err != nil {
		return err
	}
	if _, err := fmt.Fprintf(conn, "AUTH %s\r\nPING\r\n", r.Password); err != nil {
		return err
	}
	in := bufio.NewReader(conn)
	for _, want := range []string{"+OK", "+PONG"} {
		line, err := in.ReadString('\n')
		if err != nil {
			return err
		}
		if !strings.HasPrefix(line, want) {
			return fmt.Errorf("answered %q", strings.TrimSpace(line))
		}
	}
	return nil
}

// Stop ends the server and waits for its end; without persistence its data is gone. It does nothing
// when the server is down.
func (r *Redis) Stop() error { return r.end(syscall.SIGTERM) }

// Kill ends it at once, as a crash does.
func (r *Redis) Kill() error {
	if r.docker != "" && r.proc != nil {
		if err := r.docker.run(context.Background(), "kill", container("redis", r.dir)); err != nil {
			return err
		}
	}
	return r.end(syscall.SIGKILL)
}

func (r *Redis) end(sig syscall.Signal) error {
	if r.proc == nil {
		return nil
	}
	err := r.proc.Stop(sig)
	r.proc = nil
	return errors.Join(err, awaitFree(r.dir))
}

// Pause freezes the server: it is there and does not answer.
func (r *Redis) Pause() error { return r.freeze(syscall.SIGSTOP, "pause") }

// Continue lets a paused server go on.
func (r *Redis) Continue() error { return r.freeze(syscall.SIGCONT, "unpause") }

func (r *Redis) freeze(sig syscall.Signal, verb string) error {
	switch {
	case r.proc == nil:
		return errors.New("the Redis is down")
	case r.docker != "":
		return r.docker.run(context.Background(), verb, container("redis", r.dir))
	default:
		return r.proc.Signal(sig)
	}
}

// PID is the server's (under Docker its client's), 0 when it is down.
func (r *Redis) PID() int {
	if r.proc == nil {
		return 0
	}
	return r.proc.cmd.Process.Pid
}
