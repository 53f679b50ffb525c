package devstack

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
)

// account is who a server runs as. Postgres refuses root, so root lends it an unprivileged account.
type account struct {
	uid, gid int
	attr     *syscall.SysProcAttr // nil: the caller's own
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
		uid, err1 := strconv.Atoi(u.Uid)
		gid, err2 := strconv.Atoi(u.Gid)
		if errors.Join(err1, err2) != nil {
			continue
		}
		cred := &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)} //nolint:gosec // ids of /etc/passwd fit
		return account{uid: uid, gid: gid, attr: &syscall.SysProcAttr{Credential: cred}}, nil
	}
	return account{}, errors.New("running as root, and there is no account `postgres` or `nobody` to run Postgres as: run as another user")
}

// attributes is a fresh copy, for a command that adds to it.
func (a account) attributes() *syscall.SysProcAttr {
	if a.attr == nil {
		return &syscall.SysProcAttr{}
	}
	c := *a.attr
	return &c
}

// prepare makes dir, owned by the account and reachable by it, and answers the directory to use: dir
// itself, or, where a parent is closed to the account (a checkout under /root), one beside the
// system's temporary files that stands for dir.
func (a account) prepare(dir string) (string, error) {
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
	other := filepath.Join("/var/tmp", "sametick-"+strconv.FormatUint(fnv64(dir), 36))
	if err := a.own(other); err != nil {
		return "", err
	}
	if !a.reaches(other) {
		return "", fmt.Errorf("account %d cannot reach %s or %s: move the checkout to a directory that other users can enter", a.uid, dir, other)
	}
	return other, nil
}

func (a account) own(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("cannot make the data directory: %w: make its parent writable, or free space", err)
	}
	if a.attr != nil {
		if err := os.Chown(dir, a.uid, a.gid); err != nil {
			return fmt.Errorf("cannot give %s to account %d: %w", dir, a.uid, err)
		}
	}
	return nil
}

// reaches asks the kernel rather than reading modes: there are ACLs and mounts, too.
func (a account) reaches(dir string) bool {
	cmd := exec.Command("test", "-w", filepath.Join(dir, "."))
	cmd.SysProcAttr = a.attributes()
	cmd.Dir = "/"
	return cmd.Run() == nil
}

func fnv64(s string) uint64 {
	h := uint64(14695981039346656037)
	for i := range len(s) {
		h = (h ^ uint64(s[i])) * 1099511628211
	}
	return h
}
