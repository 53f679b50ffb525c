package devstack

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"
)

// stopGrace is how long a server may take to end before it is killed.
const stopGrace = 20 * time.Second

// Process is a child that ends with this process.
type Process struct {
	cmd  *exec.Cmd
	tail *tail
	done chan struct{} // closed when the process has been reaped
	err  error         // its exit, valid after done
}

// StartProcess starts a command that the kernel (Linux) stops by stopSignal when this process dies. The
// signal is tied to the thread that forked, so that thread is kept until the child has ended. Output
// goes where the command says, else the last lines are kept for Tail.
func StartProcess(cmd *exec.Cmd, stopSignal syscall.Signal) (*Process, error) {
	p := &Process{cmd: cmd, tail: &tail{}, done: make(chan struct{})}
	if cmd.Stdout == nil {
		cmd.Stdout, cmd.Stderr = p.tail, p.tail
	}
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	// A Ctrl-C in the terminal goes to the whole foreground group: the servers must outlive their
	// clients, so they have a group of their own and are stopped in order.
	cmd.SysProcAttr.Setpgid = true
	dieWithParent(cmd.SysProcAttr, stopSignal)
	started := make(chan error)
	go func() {
		runtime.LockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			p.err = cmd.Wait()
			close(p.done)
		}
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start %s: %w", cmd.Path, err)
	}
	return p, nil
}

// Done is closed when the process has ended and Err can be asked.
func (p *Process) Done() <-chan struct{} { return p.done }

// Err is how the process ended: nil for exit code 0, else an *exec.ExitError. Only after Done.
func (p *Process) Err() error { return p.err }

// PID is the process'.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Signal sends a signal; an ended process is no error.
func (p *Process) Signal(sig syscall.Signal) error {
	if err := p.cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("signal %s: %w", p.cmd.Path, err)
	}
	return nil
}

// Stop signals the process and waits for its end, at most 20 s before it kills; a process that is
// stopped (SIGSTOP) is continued.
func (p *Process) Stop(sig syscall.Signal) error {
	if p.ended() {
		return nil
	}
	for _, s := range []syscall.Signal{sig, syscall.SIGCONT} {
		if err := p.Signal(s); err != nil {
			return err
		}
	}
	select {
	case <-p.done:
		return nil
	case <-time.After(stopGrace):
		_ = p.cmd.Process.Kill()
		<-p.done
		return fmt.Errorf("%s did not end within %s and was killed", p.cmd.Path, stopGrace)
	}
}

func (p *Process) ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// await polls ready until it succeeds, the process ends or ctx is done.
func (p *Process) await(ctx context.Context, what string, ready func(context.Context) error) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := ready(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-p.done:
			return fmt.Errorf("%s ended while starting: %s", what, p.tail.lines())
		case <-ctx.Done():
			return fmt.Errorf("%s is not ready: %w (%w)", what, err, ctx.Err())
		case <-tick.C:
		}
	}
}

// tail keeps the last bytes of a server's output, for the error that says why it did not start.
type tail struct {
	mu sync.Mutex
	b  []byte
}

func (t *tail) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.b = append(t.b, b...)
	if len(t.b) > 8<<10 {
		t.b = append(t.b[:0], t.b[len(t.b)-4<<10:]...)
	}
	return len(b), nil
}

func (t *tail) lines() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	lines := strings.Split(strings.TrimSpace(string(t.b)), "\n")
	return strings.Join(lines[max(0, len(lines)-6):], "; ")
}

// run runs a command to its end; its output is in the error.
func run(ctx context.Context, log io.Writer, env []string, cred *syscall.SysProcAttr, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = append(os.Environ(), env...)
	cmd.SysProcAttr = cred
	cmd.Dir = "/"
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = io.MultiWriter(&out, log), io.MultiWriter(&out, log)
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s: %w: %s", name, err, strings.TrimSpace(out.String()))
	}
	return nil
}
