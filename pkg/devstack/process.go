package devstack

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"time"
)

// stopGrace is how long a server may take to end before it is killed.
const stopGrace = 20 * time.Second

// Process is a child that ends with this process.
type Process struct {
	cmd  *exec.Cmd
	done chan struct{} // closed when the process has been reaped
	err  error         // how it ended, valid after done
}

// StartProcess starts a command that the kernel signals when this process dies (Linux). The signal is
// tied to the thread that forked, so that thread is kept until the child has ended.
func StartProcess(cmd *exec.Cmd, onDeath syscall.Signal) (*Process, error) {
	p := &Process{cmd: cmd, done: make(chan struct{})}
	// A Ctrl-C in the terminal goes to the whole foreground group: the servers must outlive their
	// clients, so they have a group of their own and are stopped in order.
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Setpgid = true
	dieWithParent(cmd.SysProcAttr, onDeath)
	started := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with this goroutine, after the child
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

// Stop signals the process and waits for its end, at most 20 s before it kills; a process that is
// stopped (SIGSTOP) is continued.
func (p *Process) Stop(sig syscall.Signal) error {
	for _, s := range []syscall.Signal{sig, syscall.SIGCONT} {
		if err := p.Signal(s); err != nil {
			return err
		}
	}
	grace := time.NewTimer(stopGrace)
	defer grace.Stop()
	select {
	case <-p.done:
		return nil
	case <-grace.C:
		err := p.Signal(syscall.SIGKILL)
		<-p.done
		return errors.Join(fmt.Errorf("%s did not end within %s and was killed", p.cmd.Path, stopGrace), err)
	}
}

// Signal sends a signal; an ended process is no error.
func (p *Process) Signal(sig syscall.Signal) error {
	if err := p.cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("signal %s: %w", p.cmd.Path, err)
	}
	return nil
}

// errEnded is a process' that ended before it was ready.
var errEnded = errors.New("it ended at once")

// await polls ready until it succeeds, the process ends or ctx is done.
func (p *Process) await(ctx context.Context, ready func(context.Context) error) error {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		err := ready(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-p.done:
			return errEnded
		case <-ctx.Done():
			return fmt.Errorf("it does not answer: %w (%w)", err, ctx.Err())
		case <-tick.C:
		}
	}
}
