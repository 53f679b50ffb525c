package devstack_test

import (
	"bufio"
	"bytes"
	"context"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/sametick/sametick/pkg/devstack"
)

// TestMain also is the owner that tests kill: with DEVSTACK_OWN it runs a stack in that directory, says
// "up" with the servers' pids, and waits.
func TestMain(m *testing.M) {
	if dir := os.Getenv("DEVSTACK_OWN"); dir != "" {
		own(dir)
		return
	}
	goleak.VerifyTestMain(m)
}

func own(dir string) {
	p, err := devstack.StartPostgres(context.Background(), devstack.PostgresOptions{Dir: filepath.Join(dir, "postgres"), Settings: fast()})
	if err != nil {
		println(err.Error())
		return
	}
	r, err := devstack.StartRedis(context.Background(), devstack.RedisOptions{Dir: filepath.Join(dir, "redis")})
	if err != nil {
		println(err.Error())
		return
	}
	_, _ = os.Stdout.WriteString("up " + strconv.Itoa(p.PID()) + " " + strconv.Itoa(r.PID()) + " " + p.URL + "\n")
	_, _ = bufio.NewReader(os.Stdin).ReadByte()
}

func fast() map[string]string { return map[string]string{"fsync": "off", "shared_buffers": "16MB"} }

// scratch is a directory that the servers' account can enter; t.TempDir's is closed to it for root.
func scratch(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "devstack-test-")
	require.NoError(t, err)
	require.NoError(t, os.Chmod(dir, 0o711))
	t.Cleanup(func() { require.NoError(t, os.RemoveAll(dir)) })
	return dir
}

func start(t *testing.T, dir string) *devstack.Postgres {
	t.Helper()
	p, err := devstack.StartPostgres(t.Context(), devstack.PostgresOptions{Dir: dir, Settings: fast()})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, p.Stop()) })
	return p
}

func query(t *testing.T, url, sql string) (string, error) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		return "", err
	}
	defer func() { _ = conn.Close(context.Background()) }()
	var s string
	err = conn.QueryRow(t.Context(), sql).Scan(&s)
	return s, err
}

func must(t *testing.T, url, sql string) string {
	t.Helper()
	s, err := query(t, url, sql)
	require.NoError(t, err)
	return s
}

// gone is also true of a zombie, which process 1 has yet to reap.
func gone(pid int) bool {
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if os.IsNotExist(err) {
		return syscall.Kill(pid, 0) != nil
	}
	return strings.Contains(string(stat), ") Z ")
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	require.Eventually(t, ok, 20*time.Second, 10*time.Millisecond, what)
}

func TestDataPasswordAndPortOutliveTheServer(t *testing.T) {
	t.Parallel()
	dir := scratch(t)
	p := start(t, filepath.Join(dir, "pg"))
	require.Equal(t, "UTF8 C UTC 300 scram-sha-256", must(t, p.URL,
		`SELECT concat_ws(' ', pg_encoding_to_char(encoding), datcollate, current_setting('timezone'), current_setting('max_connections'), current_setting('password_encryption'))
		 FROM pg_database WHERE datname = 'sametick'`))
	require.Equal(t, "true", must(t, p.URL, "SELECT rolsuper::text FROM pg_roles WHERE rolname = 'sametick'"))
	mustExec(t, p.URL, "CREATE TABLE t AS SELECT 'kept' AS v")
	pid := p.PID()
	require.NoError(t, p.Stop())
	require.NoError(t, p.Stop(), "twice")
	require.True(t, gone(pid))
	again := start(t, filepath.Join(dir, "pg"))
	require.Equal(t, p.URL, again.URL)
	require.Equal(t, "kept", must(t, again.URL, "SELECT v FROM t"))
}

func mustExec(t *testing.T, url, sql string) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	require.NoError(t, err)
	defer func() { _ = conn.Close(context.Background()) }()
	_, err = conn.Exec(t.Context(), sql)
	require.NoError(t, err)
}

func TestStrangersAreRefused(t *testing.T) {
	t.Parallel()
	dir := scratch(t)
	p := start(t, filepath.Join(dir, "pg"))
	u, err := url.Parse(p.URL)
	require.NoError(t, err)
	u.User = url.UserPassword("sametick", "guess")
	_, err = query(t, u.String(), "SELECT 'in'")
	require.ErrorContains(t, err, "password authentication failed")
	info, err := os.Stat(filepath.Join(p.Dir(), "password"))
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode().Perm())
	out, err := exec.CommandContext(t.Context(), "ps", "-eo", "args").Output()
	require.NoError(t, err)
	password, _ := mustUser(t, p.URL).Password()
	require.NotContains(t, string(out), password)
}

func mustUser(t *testing.T, raw string) *url.Userinfo {
	t.Helper()
	u, err := url.Parse(raw)
	require.NoError(t, err)
	return u.User
}

func TestASecondStartNamesTheFirst(t *testing.T) {
	t.Parallel()
	dir := scratch(t)
	start(t, filepath.Join(dir, "pg"))
	_, err := devstack.StartPostgres(t.Context(), devstack.PostgresOptions{Dir: filepath.Join(dir, "pg")})
	require.ErrorIs(t, err, devstack.ErrInUse)
	require.ErrorContains(t, err, "process "+strconv.Itoa(os.Getpid()))

	r, err := devstack.StartRedis(t.Context(), devstack.RedisOptions{Dir: filepath.Join(dir, "redis")})
	require.NoError(t, err)
	defer func() { require.NoError(t, r.Stop()) }()
	_, err = devstack.StartRedis(t.Context(), devstack.RedisOptions{Dir: filepath.Join(dir, "redis")})
	require.ErrorIs(t, err, devstack.ErrInUse)
}

// TestAKilledOwnerLeavesNothing kills the owner with SIGKILL while its Redis is paused, and starts anew
// in the same directory at once, while the old Postgres is still on its way out.
func TestAKilledOwnerLeavesNothing(t *testing.T) {
	t.Parallel()
	dir := scratch(t)
	owner := exec.CommandContext(t.Context(), os.Args[0])
	owner.Env = append(os.Environ(), "DEVSTACK_OWN="+dir)
	stdout, err := owner.StdoutPipe()
	require.NoError(t, err)
	stdin, err := owner.StdinPipe() // held open
	require.NoError(t, err)
	defer func() { _ = stdin.Close() }()
	require.NoError(t, owner.Start())
	line, err := bufio.NewReader(stdout).ReadString('\n')
	require.NoError(t, err)
	words := strings.Fields(line)
	require.Len(t, words, 4, line)
	postgres, err := strconv.Atoi(words[1])
	require.NoError(t, err)
	redis, err := strconv.Atoi(words[2])
	require.NoError(t, err)
	mustExec(t, words[3], "CREATE TABLE t AS SELECT 'kept' AS v")
	require.False(t, gone(postgres) || gone(redis))
	require.NoError(t, syscall.Kill(redis, syscall.SIGSTOP))

	require.NoError(t, owner.Process.Kill())
	_ = owner.Wait()
	p := start(t, filepath.Join(dir, "postgres"))
	require.True(t, gone(postgres), "the lock was free while the old server lived")
	require.Equal(t, words[3], p.URL)
	require.Equal(t, "kept", must(t, p.URL, "SELECT v FROM t"), "it shut down in order")
	eventually(t, "Redis lives on", func() bool { return gone(redis) })
}

func TestAServerWhoseOwnerForgotItStaysUp(t *testing.T) {
	t.Parallel()
	dir := scratch(t)
	u := func() string {
		p, err := devstack.StartPostgres(t.Context(), devstack.PostgresOptions{Dir: filepath.Join(dir, "pg"), Settings: fast()})
		require.NoError(t, err)
		pid := p.PID()
		t.Cleanup(func() { // by its pid: p must not be reachable from here
			require.NoError(t, syscall.Kill(pid, syscall.SIGINT))
			eventually(t, "stopped", func() bool { return gone(pid) })
		})
		return p.URL
	}()
	for range 3 {
		runtime.GC()
	}
	require.Equal(t, "up", must(t, u, "SELECT 'up'"))
}

// TestCrashes: an immediate shutdown, and the postmaster's own SIGKILL, after which its children linger.
func TestCrashes(t *testing.T) {
	t.Parallel()
	p := start(t, filepath.Join(scratch(t), "pg"))
	mustExec(t, p.URL, "CREATE TABLE t AS SELECT 'kept' AS v")
	for _, crash := range []func() error{
		p.Kill,
		func() error { return syscall.Kill(p.PID(), syscall.SIGKILL) },
	} {
		before := p.PID()
		require.NoError(t, crash())
		require.NoError(t, p.Start(t.Context()))
		require.NotEqual(t, before, p.PID())
		require.Equal(t, "kept", must(t, p.URL, "SELECT v FROM t"))
	}
	require.NoError(t, p.Restart(t.Context()))
	require.Equal(t, "kept", must(t, p.URL, "SELECT v FROM t"))
}

// TestAStalePIDFileOfAStranger: after a crash the pid in the file is another program's, here ours.
func TestAStalePIDFileOfAStranger(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(scratch(t), "pg")
	p, err := devstack.StartPostgres(t.Context(), devstack.PostgresOptions{Dir: dir})
	require.NoError(t, err)
	require.NoError(t, p.Stop())
	stranger := exec.CommandContext(t.Context(), "sleep", "60") // of the server's own account, as it must be to mislead
	stranger.SysProcAttr = serverAttributes(t, dir)
	require.NoError(t, stranger.Start())
	defer func() { _ = stranger.Process.Kill(); _ = stranger.Wait() }()
	pid := filepath.Join(dir, "data", "postmaster.pid")
	require.NoError(t, os.WriteFile(pid, []byte(strconv.Itoa(stranger.Process.Pid)+"\n"+dir+"\n1\n1\n\n\n  1 1\n"), 0o600))
	again, err := devstack.StartPostgres(t.Context(), devstack.PostgresOptions{Dir: dir})
	require.NoError(t, err)
	require.NoError(t, again.Stop())
}

func serverAttributes(t *testing.T, dir string) *syscall.SysProcAttr {
	t.Helper()
	info, err := os.Stat(dir)
	require.NoError(t, err)
	st, ok := info.Sys().(*syscall.Stat_t)
	require.True(t, ok)
	if os.Getuid() != 0 {
		return nil
	}
	return &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: st.Uid, Gid: st.Gid}}
}

func TestATakenPortIsSaidAndPassedBy(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(scratch(t), "redis")
	r, err := devstack.StartRedis(t.Context(), devstack.RedisOptions{Dir: dir})
	require.NoError(t, err)
	require.NoError(t, r.Stop())
	l, err := net.Listen("tcp", r.Addr)
	require.NoError(t, err)
	defer func() { _ = l.Close() }()

	require.ErrorContains(t, r.Start(t.Context()), "in use", "the address was promised: no silent change")
	var log bytes.Buffer
	again, err := devstack.StartRedis(t.Context(), devstack.RedisOptions{Dir: dir, Log: &log})
	require.NoError(t, err)
	defer func() { require.NoError(t, again.Stop()) }()
	require.NotEqual(t, r.Addr, again.Addr)
	require.Contains(t, log.String(), "is taken by another program: Redis now listens on")
}

// TestAnInterruptedFirstStart is Ctrl-C at six moments of making the data.
func TestAnInterruptedFirstStart(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(scratch(t), "pg")
	interrupted := 0
	for i := range 6 {
		ctx, cancel := context.WithTimeout(t.Context(), time.Duration(20+i*60)*time.Millisecond)
		p, err := devstack.StartPostgres(ctx, devstack.PostgresOptions{Dir: dir, Settings: fast()})
		cancel()
		if err == nil {
			require.NoError(t, p.Stop())
			continue
		}
		interrupted++
		require.ErrorIs(t, err, context.DeadlineExceeded)
	}
	require.NotZero(t, interrupted)
	require.Equal(t, "up", must(t, start(t, dir).URL, "SELECT 'up'"))
}

func TestBadSettingsAreSaidInTheServersWords(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(scratch(t), "pg")
	_, err := devstack.StartPostgres(t.Context(), devstack.PostgresOptions{Dir: dir, Settings: map[string]string{"fsync": "off", "work_mem": "many'"}})
	require.ErrorContains(t, err, `invalid value for parameter "work_mem": "many'"`)
	_, err = devstack.StartRedis(t.Context(), devstack.RedisOptions{Dir: filepath.Join(filepath.Dir(dir), "redis"), Args: []string{"--nonsense", "1"}})
	require.ErrorContains(t, err, "Bad directive or wrong number of arguments")
}

func TestADirectoryThatCannotBe(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	_, err := devstack.StartPostgres(t.Context(), devstack.PostgresOptions{Dir: filepath.Join(file, "pg")})
	require.ErrorContains(t, err, file+"/pg cannot be used")
	_, err = devstack.StartRedis(t.Context(), devstack.RedisOptions{Dir: "/proc/nowhere"})
	require.ErrorContains(t, err, "/proc/nowhere cannot be")
}
