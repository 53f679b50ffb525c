package devstack

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
)

// findBinary looks in PATH, then where distributions put servers; newest version first.
func findBinary(name string) (string, bool) {
	if path, err := exec.LookPath(name); err == nil {
		return path, true
	}
	var found []string
	for _, pattern := range []string{
		"/usr/lib/postgresql/*/bin/", "/usr/pgsql-*/bin/", "/usr/libexec/postgresql*/", "/usr/local/pgsql/bin/",
		"/opt/homebrew/opt/postgresql*/bin/", "/usr/local/opt/postgresql*/bin/", "/usr/local/bin/", "/usr/sbin/", "/opt/homebrew/bin/",
	} {
		matches, err := filepath.Glob(pattern + name)
		if err == nil {
			found = append(found, matches...)
		}
	}
	if len(found) == 0 {
		return "", false
	}
	slices.SortFunc(found, func(a, b string) int { // "…/9/…" before "…/15/…"
		if len(a) != len(b) {
			return len(a) - len(b)
		}
		return slices.Compare([]byte(a), []byte(b))
	})
	return found[len(found)-1], true
}

// packages says how each package manager brings a server.
type packages struct {
	manager  string
	prepare  []string
	install  []string
	postgres string
	redis    string
}

func managers() []packages {
	return []packages{
		{"apt-get", []string{"apt-get", "update", "-qq"}, []string{"apt-get", "install", "-y", "-qq", "--no-install-recommends"}, "postgresql", "redis-server"},
		{"dnf", nil, []string{"dnf", "install", "-y"}, "postgresql-server", "redis"},
		{"apk", nil, []string{"apk", "add"}, "postgresql", "redis"},
		{"pacman", nil, []string{"pacman", "-S", "--noconfirm"}, "postgresql", "redis"},
		{"brew", nil, []string{"brew", "install"}, "postgresql@17", "redis"},
	}
}

// needBinary finds a server's binary, installing it when that can be done without asking.
func needBinary(ctx context.Context, log io.Writer, name string, pick func(packages) string) (string, error) {
	if path, ok := findBinary(name); ok {
		return path, nil
	}
	for _, m := range managers() {
		if _, err := exec.LookPath(m.manager); err != nil {
			continue
		}
		command := append(slices.Clone(m.install), pick(m))
		if os.Getuid() != 0 && m.manager != "brew" {
			if exec.CommandContext(ctx, "sudo", "-n", "true").Run() != nil {
				return "", fmt.Errorf("%s is not installed; run: sudo %s %s", name, m.install[0]+" install", pick(m))
			}
			command = append([]string{"sudo", "-n"}, command...)
		}
		if err := install(ctx, log, m, command); err != nil {
			return "", fmt.Errorf("%s is not installed, and installing it failed: %w", name, err)
		}
		if path, ok := findBinary(name); ok {
			return path, nil
		}
	}
	return "", fmt.Errorf("%s is not installed and no known package manager is here: install PostgreSQL 14 or newer and Redis 6.2 or newer, or set DATABASE_URL and REDIS_URL", name)
}

// install keeps Debian from making and starting a system cluster and service of its own.
func install(ctx context.Context, log io.Writer, m packages, command []string) error {
	_, _ = fmt.Fprintf(log, "installing: %v\n", command)
	env := []string{"DEBIAN_FRONTEND=noninteractive"}
	if m.manager == "apt-get" && os.Getuid() == 0 {
		keepClusterAway()
	}
	if m.prepare != nil {
		prepare := m.prepare
		if command[0] == "sudo" {
			prepare = append([]string{"sudo", "-n"}, prepare...)
		}
		if err := run(ctx, io.Discard, env, nil, prepare[0], prepare[1:]...); err != nil {
			return err
		}
	}
	return run(ctx, io.Discard, append(env, "RUNLEVEL=1"), nil, command[0], command[1:]...)
}

// keepClusterAway is best effort: with it Debian's package makes no cluster `main` on port 5432.
func keepClusterAway() {
	const dir = "/etc/postgresql-common/createcluster.d"
	if os.MkdirAll(dir, 0o755) == nil { //nolint:gosec // a directory of /etc that others read
		_ = os.WriteFile(filepath.Join(dir, "sametick.conf"), []byte("create_main_cluster = false\n"), 0o644) //nolint:gosec // as above
	}
}
