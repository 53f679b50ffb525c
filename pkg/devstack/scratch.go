package devstack

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
)

// scratchSlots bounds how many scratch servers of a kind one user runs at once.
const scratchSlots = 64

// InScratch calls start with directories for servers whose data nobody needs, until one is not
// ErrInUse. They are numbered and used again: what a killed process leaves is the next one's to clear
// away, so leftovers are bounded by what ran at once. They lie where every account can reach them.
func InScratch(kind string, start func(dir string) error) error {
	base := filepath.Join(os.TempDir(), "sametick-"+strconv.Itoa(os.Getuid()))
	if err := ownDir(base); err != nil {
		return err
	}
	if err := ownDir(filepath.Join(base, kind)); err != nil {
		return err
	}
	for slot := range scratchSlots {
		if err := start(filepath.Join(base, kind, strconv.Itoa(slot))); !errors.Is(err, ErrInUse) {
			return err
		}
	}
	return fmt.Errorf("%d servers for %s run already under %s: end some, or set DATABASE_URL and REDIS_URL", scratchSlots, kind, base)
}

// ownDir makes a directory in a place where others can write, and trusts none that they made.
func ownDir(dir string) error {
	if err := os.Mkdir(dir, 0o711); err != nil && !errors.Is(err, os.ErrExist) {
		return unwritable(dir, err)
	}
	info, err := os.Lstat(dir)
	if err != nil {
		return unwritable(dir, err)
	}
	if st, ok := info.Sys().(*syscall.Stat_t); !ok || !info.IsDir() || int(st.Uid) != os.Getuid() {
		return fmt.Errorf("%s is another user's: remove it, or set TMPDIR to a directory of yours", dir)
	}
	if err := os.Chmod(dir, 0o711); err != nil {
		return unwritable(dir, err)
	}
	return nil
}
