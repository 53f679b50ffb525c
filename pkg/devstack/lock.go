package devstack

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// ErrInUse is in the error of a start in a directory whose server runs for another process.
var ErrInUse = errors.New("in use")

// orphanGrace is how long a server whose owner has died may take to end.
const orphanGrace = 30 * time.Second

// lockDir takes the directory for a server. The lock is the kernel's (flock), handed down to the
// server and all its children, and the caller closes its own copy once they have it: so it is free
// exactly when nothing of the server is left, and no pid file can be stale or name a stranger.
func lockDir(ctx context.Context, dir, what string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, unwritable(dir, err)
	}
	if err := waitLock(ctx, f, dir, what); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	// For the message above, and for a person who looks.
	owner := strconv.Itoa(os.Getpid()) + "\n"
	if err := errors.Join(f.Truncate(0), writeAt(f, owner)); err != nil {
		return nil, errors.Join(unwritable(dir, err), f.Close())
	}
	return f, nil
}

// waitLock fails at once while the owner lives; the servers of an owner that is gone are on their way out.
func waitLock(ctx context.Context, f *os.File, dir, what string) error {
	return poll(ctx, func() (bool, error) {
		free, err := tryLock(f)
		if free || err != nil {
			return free, err
		}
		if owner := readPID(f.Name()); owner > 0 && alive(owner) {
			return false, fmt.Errorf("%s of %s is %w: process %d started it; stop that one first (kill %d), or use another directory", what, dir, ErrInUse, owner, owner)
		}
		return false, nil
	}, func(err error) error {
		return fmt.Errorf("%s of %s is %w: its starter is gone, and it still runs%s (%w)", what, dir, ErrInUse, serverHint(dir), err)
	})
}

// awaitFree returns when nothing of this process' server of dir is left.
func awaitFree(dir string) error {
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR, 0)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("lock: %w", err)
	}
	defer func() { _ = f.Close() }()
	return poll(context.Background(), func() (bool, error) {
		free, err := tryLock(f)
		return free || readPID(f.Name()) != os.Getpid(), err // another process may have it by now
	}, func(err error) error {
		return fmt.Errorf("the server of %s does not end%s (%w)", dir, serverHint(dir), err)
	})
}

func tryLock(f *os.File) (bool, error) {
	switch err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); {
	case err == nil:
		return true, nil
	case errors.Is(err, syscall.EWOULDBLOCK), errors.Is(err, syscall.EINTR):
		return false, nil
	default:
		return false, fmt.Errorf("lock %s: %w", f.Name(), err)
	}
}

// poll asks until the answer is yes or an error, for orphanGrace at most.
func poll(ctx context.Context, ask func() (bool, error), late func(error) error) error {
	ctx, cancel := context.WithTimeout(ctx, orphanGrace)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		if done, err := ask(); done || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return late(ctx.Err())
		case <-tick.C:
		}
	}
}

func serverHint(dir string) string {
	for _, file := range []string{"data/postmaster.pid", "redis.pid"} {
		if pid := readPID(filepath.Join(dir, file)); pid > 0 && alive(pid) {
			return fmt.Sprintf(" as process %d: kill %d", pid, pid)
		}
	}
	return ""
}

// readPID gives the number in a file's first line, else 0.
func readPID(file string) int {
	b, err := os.ReadFile(file)
	if err != nil {
		return 0
	}
	first, _, _ := strings.Cut(string(b), "\n")
	pid, err := strconv.Atoi(strings.TrimSpace(first))
	if err != nil {
		return 0
	}
	return pid
}

// alive takes a zombie for dead: where process 1 is slow to reap, a server can be one for a while.
func alive(pid int) bool {
	if err := syscall.Kill(pid, 0); err != nil && !errors.Is(err, syscall.EPERM) {
		return false
	}
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err != nil || !strings.Contains(string(stat), ") Z ")
}

func writeAt(f *os.File, s string) error {
	_, err := f.WriteAt([]byte(s), 0)
	return err
}
