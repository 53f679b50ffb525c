// Package rig is the machinery under torture: private servers, the suite's real binaries as child
// processes, and what stands in front of several replicas. All of it can be killed, stopped and
// started again.
package rig

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"syscall"
	"time"
)

// Process is one replica of a service, in the same slot (addresses, environment, log file) through
// all its deaths. Its methods are safe for concurrent use.
type Process struct {
	name, binary string
	environ      []string
	logPath      string
	// Youth is how long after its start a process may die of SIGTERM: it has not come to handle it, and has done nothing
	// yet. Not to be changed while it runs.
	Youth time.Duration

	mu      sync.Mutex
	cmd     *exec.Cmd
	done    chan struct{}
	started time.Time
	asked   bool // an end was asked for: dying is no failure
	stopped bool // SIGSTOP was sent
	deaths  []string
}

// youth is Youth's default, for a busy machine.
const youth = 10 * time.Second

// NewProcess prepares a replica. environ is all that it gets; its output is appended to logPath.
func NewProcess(name, binary string, environ []string, logPath string) *Process {
	return &Process{name: name, binary: binary, environ: environ, logPath: logPath, Youth: youth}
}

// Name is the replica's.
func (p *Process) Name() string { return p.name }

// Start starts it, unless it runs.
func (p *Process) Start(context.Context) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.running() {
		return nil
	}
	log, err := os.OpenFile(p.logPath, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("log of %s: %w", p.name, err)
	}
	cmd := exec.Command(p.binary) //nolint:noctx // a binary that the harness built; it outlives this call
	cmd.Env, cmd.Stdout, cmd.Stderr = p.environ, log, log
	cmd.SysProcAttr = dieWithParent()
	p.cmd, p.done, p.started, p.asked, p.stopped = cmd, make(chan struct{}), time.Now(), false, false
	started := make(chan error, 1)
	go p.wait(cmd, p.done, log, started)
	if err := <-started; err != nil {
		return fmt.Errorf("start %s: %w", p.name, err)
	}
	return nil
}

// wait owns the child. The thread is locked, because the kernel ends a child with the thread that
// made it.
func (p *Process) wait(cmd *exec.Cmd, done chan<- struct{}, log *os.File, started chan<- error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	defer close(done)
	defer func() { _ = log.Close() }() // the child writes it, not we
	err := cmd.Start()
	started <- err
	if err != nil {
		return
	}
	err = cmd.Wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.asked {
		p.deaths = append(p.deaths, fmt.Sprintf("%s ended by itself at %s: %v, see %s", p.name, time.Now().Format(time.TimeOnly), err, p.logPath))
	}
}

// running needs the mutex.
func (p *Process) running() bool {
	if p.cmd == nil {
		return false
	}
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// signal sends a signal to the running process; false when none runs. ending tells that its death is
// then asked for.
func (p *Process) signal(sig syscall.Signal, ending bool) (<-chan struct{}, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.running() {
		return nil, false
	}
	p.asked = p.asked || ending
	if ending && p.stopped && sig != syscall.SIGKILL {
		_ = p.cmd.Process.Signal(syscall.SIGCONT) // a stopped process would not hear it
	}
	p.stopped = sig == syscall.SIGSTOP
	return p.done, p.cmd.Process.Signal(sig) == nil
}

// Kill ends it with SIGKILL.
func (p *Process) Kill() {
	if done, ok := p.signal(syscall.SIGKILL, true); ok {
		<-done
	}
}

// Pause stops it with SIGSTOP, wherever it is; Continue lets it go on.
func (p *Process) Pause() { p.signal(syscall.SIGSTOP, false) }

// Continue lets a stopped process go on.
func (p *Process) Continue() { p.signal(syscall.SIGCONT, false) }

// Terminate asks it with SIGTERM and fails when it does not end with code 0 within grace.
func (p *Process) Terminate(grace time.Duration) error {
	p.mu.Lock()
	young := time.Since(p.started) < p.Youth
	p.mu.Unlock()
	done, ok := p.signal(syscall.SIGTERM, true)
	if !ok {
		return nil
	}
	timer := time.NewTimer(grace)
	defer timer.Stop()
	select {
	case <-done:
	case <-timer.C:
		p.Kill()
		return fmt.Errorf("%s did not end within %s of SIGTERM", p.name, grace)
	}
	if status, ok := p.cmd.ProcessState.Sys().(syscall.WaitStatus); ok && young && status.Signaled() && status.Signal() == syscall.SIGTERM {
		return nil
	}
	if code := p.cmd.ProcessState.ExitCode(); code != 0 {
		return fmt.Errorf("%s ended with code %d after SIGTERM, see %s", p.name, code, p.logPath)
	}
	return nil
}

// Deaths tells of each time it ended without being asked.
func (p *Process) Deaths() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.deaths
}

// Build compiles packages of the workspace into dir.
func Build(ctx context.Context, root, dir string, packages ...string) error {
	args := append([]string{"build", "-o", dir + string(os.PathSeparator)}, packages...)
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = root
	out, err := cmd.CombinedOutput()
	if err != nil {
		return errors.Join(fmt.Errorf("build %v: %w", packages, err), errors.New(string(out)))
	}
	return nil
}
