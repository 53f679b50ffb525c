package devstack

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"
)

// leash holds a server that must end when this process does, however this process ends. A shell of
// its own process group starts the server, says "ready", waits for the end of its standard input and
// stops the server. The other end of that pipe is open in this process alone, so its death, SIGKILL
// included, lets go. Against PR_SET_PDEATHSIG this works on every Unix, shuts down in order, and needs
// no thread or goroutine here for as long as the server lives (which goleak would report).
type leash struct {
	cmd  *exec.Cmd
	hold *os.File
}

// held keeps every leash reachable: the garbage collector would close the pipe of a server whose owner
// kept the URL alone, and so stop it.
var held sync.Map

// startLeash runs the shell script with its arguments and waits for its "ready". The script inherits
// lock as descriptor 3, and so does all that it starts.
func startLeash(ctx context.Context, script string, args []string, attr *syscall.SysProcAttr, dir string, lock, log *os.File) (*leash, error) {
	stdin, hold, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("pipe: %w", err)
	}
	answer, stdout, err := os.Pipe()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("pipe: %w", err), stdin.Close(), hold.Close())
	}
	defer func() { _ = answer.Close() }()
	cmd := exec.Command("/bin/sh", append([]string{"-c", script, "devstack"}, args...)...) //nolint:noctx // scripts of this package; outlives ctx
	cmd.Stdin, cmd.Stdout, cmd.Stderr = stdin, stdout, log
	cmd.ExtraFiles = []*os.File{lock}
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "LC_ALL=C", "PWD="+dir)
	attr.Setpgid = true // a Ctrl-C in the terminal is for this process, which then stops the servers in order
	cmd.SysProcAttr = attr
	err = cmd.Start()
	_, _ = stdin.Close(), stdout.Close()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("start a shell: %w", err), hold.Close())
	}
	l := &leash{cmd: cmd, hold: hold}
	held.Store(l, nil)
	stop := context.AfterFunc(ctx, func() { _ = answer.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	line, _ := bufio.NewReader(answer).ReadString('\n')
	if strings.TrimSpace(line) != "ready" {
		_ = l.release()
		return nil, errors.Join(errNotReady, ctx.Err())
	}
	return l, nil
}

// errNotReady is a script's that ended before its server answered.
var errNotReady = errors.New("it did not come up")

// release lets the script stop the server and waits for the script's end, which is bounded by the
// script's own limits. Its code is of no interest: the server may be dead already.
func (l *leash) release() error {
	err := l.hold.Close()
	_ = l.cmd.Wait()
	held.Delete(l)
	if errors.Is(err, os.ErrClosed) {
		return nil
	}
	return err
}
