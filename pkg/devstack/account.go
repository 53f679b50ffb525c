package devstack

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// lent is where root's data lies when the directory asked for is closed to the account: only root
// can write to its parent, so nobody can lay a trap there.
const lent = "/var/lib/sametick-dev"

// account is who a server runs as. Postgres refuses root, so root lends it an unprivileged account.
type account struct {
	uid, gid int
	cred     *syscall.Credential // nil: the caller's own
}

func serverAccount() (account, error) {
	if os.Getuid() != 0 {
		return account{uid: os.Getuid(), gid: os.Getgid()}, nil
	}
	for _, name := range []string{"postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, err1 := strconv.ParseUint(u.Uid, 10, 32)
		gid, err2 := strconv.ParseUint(u.Gid, 10, 32)
		if errors.Join(err1, err2) != nil {
			continue
		}
		cred := &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
		return account{uid: int(uid), gid: int(gid), cred: cred}, nil
	}
	return account{}, errors.New("Postgres refuses to run as root, and there is no account `postgres` or `nobody` to lend it: run this as another user, or `useradd --system postgres`")
}

// attributes is a fresh copy for each command.
func (a account) attributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Credential: a.cred}
}

// prepare makes dir, owned by the account and reachable by it, and answers the directory to use: dir
// itself or, where a parent is closed to the account (a checkout under /root), one that stands for it.
func (a account) prepare(log io.Writer, dir string) (string, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", fmt.Errorf("data directory: %w", err)
	}
	if err := a.own(dir); err != nil {
		return "", err
	}
	if a.reaches(dir) {
		return dir, nil
	}
	other, err := a.elsewhere(dir)
	if err != nil {
		return "", err
	}
	_, _ = fmt.Fprintf(log, "%s cannot be entered by the account that Postgres runs as: its data is in %s\n", dir, other)
	return other, nil
}

// elsewhere answers the directory that stands for dir. dir remembers it: who removes dir begins anew.
func (a account) elsewhere(dir string) (string, error) {
	note := filepath.Join(dir, "elsewhere")
	if b, err := os.ReadFile(note); err == nil {
		if other := strings.TrimSpace(string(b)); strings.HasPrefix(other, lent+"/") && a.reaches(other) {
			return other, nil
		}
	}
	other := filepath.Join(lent, rand.Text()[:12])
	if err := a.own(other); err != nil {
		return "", err
	}
	if !a.reaches(other) {
		return "", fmt.Errorf("the account that Postgres runs as (uid %d) can enter neither %s nor %s: move this directory to where other users can enter", a.uid, dir, other)
	}
	if err := os.WriteFile(note, []byte(other+"\n"), 0o600); err != nil {
		return "", unwritable(dir, err)
	}
	return other, nil
}

func (a account) own(dir string) error {
	parents := os.FileMode(0o700)
	if a.cred != nil {
		parents = 0o755 // the account must pass through
	}
	if err := os.MkdirAll(filepath.Dir(dir), parents); err != nil {
		return unwritable(dir, err)
	}
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return unwritable(dir, err)
	}
	return a.give(dir)
}

func (a account) give(path string) error {
	if a.cred == nil {
		return nil
	}
	if err := os.Lchown(path, a.uid, a.gid); err != nil {
		return fmt.Errorf("cannot give %s to the account that Postgres runs as (uid %d): %w", path, a.uid, err)
	}
	return nil
}

// reaches asks the kernel rather than reading modes: there are ACLs and mounts, too.
func (a account) reaches(dir string) bool {
	cmd := exec.Command("/bin/sh", "-c", `test -w "$1/."`, "devstack", dir) //nolint:noctx // a path of ours; instant
	cmd.SysProcAttr = a.attributes()
	cmd.Dir = "/"
	return cmd.Run() == nil
}

// unwritable says what to do about a directory that cannot be written to.
func unwritable(dir string, err error) error {
	switch {
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return fmt.Errorf("no space is left for %s (%w): free some, about 200 MB are needed", dir, err)
	case errors.Is(err, syscall.EROFS), errors.Is(err, os.ErrPermission):
		return fmt.Errorf("%s cannot be written to (%w): make it writable, or set DATABASE_URL and REDIS_URL to servers of yours", dir, err)
	default:
		return fmt.Errorf("%s cannot be used (%w)", dir, err)
	}
}
