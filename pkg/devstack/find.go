package devstack

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// oldestPostgres is the first major version with all that the suite needs.
const oldestPostgres = 14

// postgresDirs are where distributions put the server, which few have in PATH.
func postgresDirs() []string {
	dirs := filepath.SplitList(os.Getenv("PATH"))
	for _, pattern := range []string{
		"/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin", "/usr/libexec/postgresql*", "/usr/lib/postgresql*/bin", "/usr/local/pgsql/bin",
		"/usr/bin", "/usr/local/bin", "/opt/homebrew/opt/postgresql*/bin", "/usr/local/opt/postgresql*/bin", "/home/linuxbrew/.linuxbrew/opt/postgresql*/bin",
	} {
		found, err := filepath.Glob(pattern)
		if err == nil { // a pattern above is malformed: a test would show
			dirs = append(dirs, found...)
		}
	}
	return dirs
}

// binaries is a directory with a whole server.
type binaries struct {
	dir   string
	major int
}

var majorOf = regexp.MustCompile(`\(PostgreSQL\) (\d+)`)

// installedPostgres lists the servers of this machine, newest first.
func installedPostgres(ctx context.Context) []binaries {
	var all []binaries
	for _, dir := range postgresDirs() {
		if slices.ContainsFunc(all, func(b binaries) bool { return b.dir == dir }) || !hasServer(dir) {
			continue
		}
		out, err := exec.CommandContext(ctx, filepath.Join(dir, "postgres"), "--version").Output()
		if err != nil {
			continue
		}
		if m := majorOf.FindSubmatch(out); m != nil {
			major, _ := strconv.Atoi(string(m[1])) // digits, by the pattern
			all = append(all, binaries{dir, major})
		}
	}
	slices.SortStableFunc(all, func(a, b binaries) int { return cmp.Compare(b.major, a.major) })
	return all
}

func hasServer(dir string) bool {
	for _, name := range []string{"postgres", "initdb", "pg_ctl"} {
		if info, err := os.Stat(filepath.Join(dir, name)); err != nil || info.IsDir() || info.Mode()&0o111 == 0 {
			return false
		}
	}
	return true
}

// pickPostgres takes the version that made the data, else the newest.
func pickPostgres(all []binaries, made int, dir string) (binaries, error) {
	for _, b := range all {
		if b.major == made || (made == 0 && b.major >= oldestPostgres) {
			return b, nil
		}
	}
	switch {
	case len(all) == 0:
		return binaries{}, errMissing
	case made != 0:
		return binaries{}, fmt.Errorf("the data in %s was made by PostgreSQL %d, and only %d is installed: install %d, or remove that directory to begin anew", dir, made, all[0].major, made)
	default:
		return binaries{}, fmt.Errorf("PostgreSQL %d or newer is needed, and %s has %d: install a newer one, or set DATABASE_URL to one", oldestPostgres, all[0].dir, all[0].major)
	}
}

// errMissing is an absent server's, which Docker or a package manager may still bring.
var errMissing = errors.New("not installed")

// findPostgres looks for binaries, then for Docker, then installs.
func findPostgres(ctx context.Context, log io.Writer, dir string) (postgresEngine, error) {
	made := dataMajor(dir)
	all := installedPostgres(ctx)
	if ctx.Err() != nil { // which also keeps a version from being asked
		return nil, fmt.Errorf("interrupted while looking for PostgreSQL: %w", ctx.Err())
	}
	b, err := pickPostgres(all, made, dir)
	if errors.Is(err, errMissing) {
		if docker, ok := findDocker(ctx); ok {
			return dockerPostgres{docker}, nil
		}
		if err := install(ctx, log, "PostgreSQL", func(m manager) string { return m.postgres }); err != nil {
			return nil, err
		}
		b, err = pickPostgres(installedPostgres(ctx), made, dir)
		if errors.Is(err, errMissing) {
			return nil, errors.New("PostgreSQL was installed, but its programs initdb, pg_ctl and postgres are not where they are looked for: put their directory into PATH")
		}
	}
	if err != nil {
		return nil, err
	}
	acc, err := serverAccount()
	if err != nil {
		return nil, err
	}
	return nativePostgres{b.dir, acc}, nil
}

// dataMajor is the version that made the data in dir, 0 when there is none.
func dataMajor(dir string) int {
	if major := readPID(filepath.Join(dir, "data", "PG_VERSION")); major > 0 {
		return major
	}
	other, err := os.ReadFile(filepath.Join(dir, "elsewhere"))
	if err != nil {
		return 0
	}
	return readPID(filepath.Join(strings.TrimSpace(string(other)), "data", "PG_VERSION"))
}

// installedRedis finds the server, or its drop-in successor that newer distributions bring.
func installedRedis() (string, bool) {
	for _, name := range []string{"redis-server", "valkey-server"} {
		for _, dir := range append(filepath.SplitList(os.Getenv("PATH")), "/usr/bin", "/usr/sbin", "/usr/local/bin", "/opt/homebrew/bin", "/home/linuxbrew/.linuxbrew/bin") {
			if path, err := exec.LookPath(filepath.Join(dir, name)); err == nil && dir != "" {
				return path, true
			}
		}
	}
	return "", false
}
