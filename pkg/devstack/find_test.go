package devstack

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
)

func TestPickPostgres(t *testing.T) {
	t.Parallel()
	all := []binaries{{"/17", 17}, {"/15", 15}, {"/13", 13}}
	for _, c := range []struct {
		all  []binaries
		made int
		want string
		err  string
	}{
		{all, 0, "/17", ""},
		{all, 15, "/15", ""},
		{all, 13, "/13", ""},
		{all, 16, "", "made by PostgreSQL 16, and only 17 is installed: install 16, or remove"},
		{all[2:], 0, "", "PostgreSQL 14 or newer is needed, and /13 has 13"},
		{nil, 0, "", "not installed"},
		{nil, 15, "", "not installed"},
	} {
		got, err := pickPostgres(c.all, c.made, "/data")
		if c.err != "" {
			require.ErrorContains(t, err, c.err)
			continue
		}
		require.NoError(t, err)
		require.Equal(t, c.want, got.dir)
	}
}

func TestMissingSaysTheOneCommand(t *testing.T) {
	bin := t.TempDir()
	t.Setenv("PATH", bin)
	pick := func(m manager) string { return m.postgres }
	err := install(t.Context(), io.Discard, "PostgreSQL", pick)
	require.ErrorContains(t, err, "none of the package managers")

	require.NoError(t, os.WriteFile(filepath.Join(bin, "apk"), []byte("#!/bin/sh\necho cannot fetch; exit 3\n"), 0o755))
	err = install(t.Context(), io.Discard, "PostgreSQL", pick)
	if os.Getuid() == 0 {
		require.ErrorContains(t, err, "run yourself: apk add postgresql\ncannot fetch")
	} else {
		require.ErrorContains(t, err, "run: sudo sh -c 'apk add postgresql'")
	}
}

// TestScratchOfAnotherUser: a directory that somebody else laid out in /tmp is not trusted.
func TestScratchOfAnotherUser(t *testing.T) {
	tmp := t.TempDir()
	t.Setenv("TMPDIR", tmp)
	require.NoError(t, os.Symlink("/etc", filepath.Join(tmp, "sametick-"+strconv.Itoa(os.Getuid()))))
	err := InScratch("kind", func(string) error { t.Error("trusted"); return nil })
	require.ErrorContains(t, err, "is another user's")
}

// TestNoSpace fills a small file system.
func TestNoSpace(t *testing.T) {
	t.Parallel()
	if os.Getuid() != 0 {
		t.Skip("mounting a small file system needs root")
	}
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=1m"); err != nil {
		t.Skipf("no small file system can be mounted here: %v", err)
	}
	defer func() { require.NoError(t, syscall.Unmount(dir, syscall.MNT_DETACH)) }()
	require.NoError(t, os.Chmod(filepath.Dir(dir), 0o711))
	require.ErrorContains(t, enoughSpace(dir), "MB are free in "+dir)
	_, err := StartPostgres(t.Context(), PostgresOptions{Dir: filepath.Join(dir, "pg")})
	require.ErrorContains(t, err, "free some space, or set DATABASE_URL")
	require.NoError(t, os.WriteFile(filepath.Join(dir, "fill"), make([]byte, 1<<20-16<<10), 0o600))
	_, err = StartRedis(t.Context(), RedisOptions{Dir: filepath.Join(dir, "redis")})
	if err == nil { // some kernels count less for names than others: fill what is left
		t.Fatal("Redis needs no space at all")
	}
	require.ErrorContains(t, err, "no space is left for "+dir)
}

// TestADirectoryThatTheAccountCannotEnter is a checkout under /root.
func TestADirectoryThatTheAccountCannotEnter(t *testing.T) {
	t.Parallel()
	if os.Getuid() != 0 {
		t.Skip("only root lends Postgres another account")
	}
	closed := t.TempDir()
	require.NoError(t, os.Chmod(closed, 0o700))
	var log strings.Builder
	o := PostgresOptions{Dir: filepath.Join(closed, "pg"), Settings: map[string]string{"fsync": "off"}, Log: &log}
	p, err := StartPostgres(t.Context(), o)
	require.NoError(t, err)
	defer func() { require.NoError(t, os.RemoveAll(p.Dir())) }()
	require.NoError(t, p.Stop())
	require.True(t, strings.HasPrefix(p.Dir(), lent+"/"), p.Dir())
	require.Contains(t, log.String(), "its data is in "+p.Dir())
	again, err := StartPostgres(t.Context(), o)
	require.NoError(t, err)
	require.NoError(t, again.Stop())
	require.Equal(t, p.Dir(), again.Dir())
}

// TestDocker has no engine to talk to: a client in its place runs the very commands with this machine's
// Postgres, so that the script, its arguments and the volume's life are tested, the image is not.
func TestDocker(t *testing.T) {
	t.Parallel()
	here := installedPostgres(t.Context())
	require.NotEmpty(t, here)
	dir := t.TempDir()
	require.NoError(t, os.Chmod(filepath.Dir(dir), 0o711))
	require.NoError(t, os.Chmod(dir, 0o777))
	client := filepath.Join(dir, "docker")
	script := strings.NewReplacer("@bin@", here[0].dir, "@dir@", dir).Replace(fakeDocker)
	require.NoError(t, os.WriteFile(client, []byte(script), 0o755))
	d := dockerPostgres{docker(client)}

	start := func() *Postgres {
		p := &Postgres{engine: d, dir: filepath.Join(dir, "pg"), settings: map[string]string{"shared_buffers": "16MB", "work_mem": "5MB"}}
		o := PostgresOptions{Dir: p.dir, Log: io.Discard}
		_, err := d.prepare(io.Discard, p.dir)
		require.NoError(t, err)
		lock, err := lockDir(t.Context(), p.dir, "the Postgres")
		require.NoError(t, err)
		defer func() { _ = lock.Close() }()
		require.NoError(t, d.initialise(t.Context(), p, o, lock))
		require.NoError(t, p.up(t.Context(), io.Discard, lock))
		require.NoError(t, p.createDatabase(t.Context()))
		return p
	}
	p := start()
	url := p.URL
	require.Equal(t, "5MB", ask(t, url, "SHOW work_mem"))
	require.NoError(t, p.Kill())
	require.NoError(t, p.Start(t.Context()))
	require.Equal(t, "5MB", ask(t, url, "SHOW work_mem"))
	require.NoError(t, p.Stop())
	p = start()
	require.Equal(t, url, p.URL, "the volume, its password and the port are kept")
	require.NoError(t, p.Stop())
	calls, err := os.ReadFile(filepath.Join(dir, "calls"))
	require.NoError(t, err)
	require.Equal(t, 1, strings.Count(string(calls), "volume rm"), "only what never answered is thrown away")
	require.NotContains(t, string(calls), p.password)
}

func ask(t *testing.T, url, sql string) string {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	require.NoError(t, err)
	defer func() { _ = conn.Close(context.Background()) }()
	var s string
	require.NoError(t, conn.QueryRow(t.Context(), sql).Scan(&s))
	return s
}

const fakeDocker = `#!/bin/sh
cd /
echo "$@" >>@dir@/calls
as() { if [ "$(id -u)" = 0 ]; then setpriv --reuid=nobody --clear-groups "$@"; else "$@"; fi; }
data=@dir@/volume
case $1 in
run)
  while [ "$1" != postgres ]; do
    [ "$1" = --env-file ] && password=$(sed -n 's/^POSTGRES_PASSWORD=//p' "$2")
    [ "$1" = --publish ] && port=${2#*:} && port=${port%:*}
    shift
  done
  shift
  if ! [ -e $data ]; then
    echo "$password" >@dir@/pw; chmod 644 @dir@/pw
    as @bin@/initdb -D $data -U sametick --pwfile @dir@/pw -A scram-sha-256 -E UTF8 --locale=C -N >/dev/null || exit 1
  fi
  as @bin@/postgres -D $data "$@" -c listen_addresses=127.0.0.1 -c port=$port >>@dir@/fake.log 2>&1 </dev/null &
  echo $! >@dir@/server
  ;;
exec) sed -n 8p $data/postmaster.pid | grep -q ready || exit 1 ;;
inspect) kill -0 "$(cat @dir@/server)" 2>/dev/null && echo true ;;
logs) cat @dir@/fake.log ;;
stop) as @bin@/pg_ctl -D $data -s -w -m fast stop ;;
kill) kill -"$3" "$(head -1 $data/postmaster.pid)" ;;
volume) rm -rf $data ;;
esac
exit 0
`
