package rig

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// stopGrace is how long a process has to end after SIGTERM; the services promise 15 s.
const stopGrace = 20 * time.Second

// Process is a started program. Stop it.
type Process struct {
	// Addresses of a service; empty for other programs.
	HTTP, GRPC, Ops string

	name   string
	cmd    *exec.Cmd
	log    string
	exited chan struct{}
	err    error // of Wait; read after exited is closed
}

// Service starts a built service on free loopback ports, with env besides; it is not waited for.
func (r *Rig) Service(name string, env ...string) (*Process, error) {
	ports, err := freeAddresses(3)
	if err != nil {
		return nil, err
	}
	// Rate limits are counted, as always, and never met.
	env = append([]string{
		"HTTP_ADDR=" + ports[0], "GRPC_ADDR=" + ports[1], "OPS_ADDR=" + ports[2], "LOG_LEVEL=warn",
		"REDIS_URL=" + r.RedisURL, "INTERNAL_TOKEN=" + r.InternalToken, "DRAIN_DELAY=0s",
		"RATE_LIMIT_ORG=1000000", "RATE_LIMIT_CALLER=1000000",
	}, env...)
	p, err := r.Program(name, exec.Command(filepath.Join(r.bin, name)), env...) //nolint:noctx // Stop ends it, gently
	if err != nil {
		return nil, err
	}
	p.HTTP, p.GRPC, p.Ops = ports[0], ports[1], ports[2]
	return p, nil
}

// Program starts any command with its output in a file of the rig's directory.
func (r *Rig) Program(name string, cmd *exec.Cmd, env ...string) (*Process, error) {
	log, err := os.CreateTemp(r.dir, strings.ReplaceAll(name, " ", "-")+"-*.log")
	if err != nil {
		return nil, fmt.Errorf("open a log for %s: %w", name, err)
	}
	defer func() { _ = log.Close() }()
	cmd.Env = append(os.Environ(), env...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = dieWithParent()
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	p := &Process{name: name, cmd: cmd, log: log.Name(), exited: make(chan struct{})}
	go func() {
		p.err = cmd.Wait()
		close(p.exited)
	}()
	return p, nil
}

// Ready waits until the service answers /readyz with 200.
func (p *Process) Ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	poll := time.NewTicker(10 * time.Millisecond)
	defer poll.Stop()
	for {
		if ready(ctx, "http://"+p.Ops+"/readyz") {
			return nil
		}
		select {
		case <-poll.C:
		case <-p.exited:
			return p.Failure()
		case <-ctx.Done():
			return fmt.Errorf("%s is not ready: %w\n%s", p.name, ctx.Err(), p.tail())
		}
	}
}

func ready(ctx context.Context, url string) bool {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return false
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return false
	}
	_ = resp.Body.Close()
	return resp.StatusCode == http.StatusOK
}

// Failure tells why a process that should run does not; nil while it runs.
func (p *Process) Failure() error {
	select {
	case <-p.exited:
		return fmt.Errorf("%s ended by itself (%v); its last lines:\n%s", p.name, p.cmd.ProcessState, p.tail())
	default:
		return nil
	}
}

// Stop ends the process by SIGTERM, and by SIGKILL when that takes too long, which is an error.
func (p *Process) Stop() error {
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("stop %s: %w", p.name, err)
	}
	select {
	case <-p.exited:
		return nil
	case <-time.After(stopGrace):
		err := p.cmd.Process.Kill()
		<-p.exited
		return errors.Join(fmt.Errorf("%s did not end within %s of SIGTERM", p.name, stopGrace), err)
	}
}

// CPU is the processor time that the process has used, user and system.
func (p *Process) CPU() (time.Duration, error) {
	own, _, err := processorTime(p.cmd.Process.Pid)
	if err != nil {
		return 0, fmt.Errorf("read the processor time of %s: %w", p.name, err)
	}
	return own, nil
}

// Profile takes a CPU profile of a service for some seconds and writes it to a file.
func (p *Process) Profile(ctx context.Context, seconds int, path string) error {
	url := fmt.Sprintf("http://%s/debug/pprof/profile?seconds=%d", p.Ops, seconds)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return fmt.Errorf("profile %s: %w", p.name, err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return fmt.Errorf("profile %s: %w", p.name, err)
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("profile %s: %s answers %s", p.name, url, resp.Status)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("profile %s: %w", p.name, err)
	}
	f, err := os.Create(path)
	if err != nil {
		return fmt.Errorf("profile %s: %w", p.name, err)
	}
	if _, err := io.Copy(f, resp.Body); err != nil {
		return errors.Join(fmt.Errorf("profile %s: %w", p.name, err), f.Close())
	}
	return f.Close()
}

// Blame adds the last lines of the process' log to an error; nil stays nil.
func (p *Process) Blame(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%w\n%s's last lines:\n%s", err, p.name, p.tail())
}

// tail gives the last lines of the log.
func (p *Process) tail() string {
	text := strings.TrimSpace(read(p.log))
	lines := strings.Split(text, "\n")
	return strings.Join(lines[max(0, len(lines)-10):], "\n")
}

// freeAddresses finds loopback ports that are free now. Another program may take one before the
// service does; the service then says so and the bench ends.
func freeAddresses(n int) ([]string, error) {
	addresses := make([]string, n)
	for i := range addresses {
		l, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // waits for nothing
		if err != nil {
			return nil, fmt.Errorf("find a free port: %w", err)
		}
		defer func() { _ = l.Close() }()
		addresses[i] = l.Addr().String()
	}
	return addresses, nil
}
