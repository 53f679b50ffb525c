package pgtest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"

	"github.com/sametick/sametick/pkg/devstack"
)

// ownServer gives the URL of this process' own server, used when DATABASE_URL is not set (`make test`
// sets it, an editor does not). The server ends with the process. Its data lies in the first of a few
// numbered directories that no other process holds, so that the next run finds it made.
var ownServer = sync.OnceValues(func() (string, error) { //nolint:gochecknoglobals // once per process, by nature
	for slot := range 64 {
		dir := filepath.Join(os.TempDir(), "sametick-pgtest-"+strconv.Itoa(os.Getuid()), strconv.Itoa(slot))
		free, err := hold(dir)
		if err != nil {
			return "", err
		}
		if !free {
			continue
		}
		p, err := devstack.StartPostgres(context.Background(), devstack.PostgresOptions{
			Dir: filepath.Join(dir, "postgres"), Settings: FastSettings(),
		})
		if err != nil {
			return "", fmt.Errorf("start a Postgres for tests: %w", err)
		}
		return p.URL, nil
	}
	return "", errors.New("64 test servers run already: set DATABASE_URL")
})

// FastSettings are for data that need not survive the machine.
func FastSettings() map[string]string {
	return map[string]string{"fsync": "off", "synchronous_commit": "on", "full_page_writes": "off"}
}

// hold takes a directory for as long as this process lives; false when another one has it.
func hold(dir string) (bool, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil { //nolint:gosec // the server's account must enter it
		return false, fmt.Errorf("directory for a test server: %w", err)
	}
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600) //nolint:gosec // a path of ours
	if err != nil {
		return false, fmt.Errorf("directory for a test server: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return false, f.Close() //nolint:wrapcheck // a file that was only opened
	}
	held.Store(dir, f) // the lock lasts as long as the file is reachable
	return true, nil
}

var held sync.Map //nolint:gochecknoglobals // keeps the lock's file from the garbage collector
