package suite

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

// The tests run this binary itself as a service: FAKE says how it behaves.
func TestMain(m *testing.M) {
	if how := os.Getenv("FAKE"); how != "" {
		os.Exit(fake(how))
	}
	goleak.VerifyTestMain(m, goleak.IgnoreTopFunction("net/http.(*persistConn).readLoop"), goleak.IgnoreTopFunction("net/http.(*persistConn).writeLoop"))
}

// fake is a service that is ready at once, dies when asked to on /die, and notes its end in FAKE_NOTES.
func fake(how string) int {
	fmt.Println(`{"level":"INFO","msg":"hello"}`)
	if how == "broken" {
		fmt.Println("panic: no such thing")
		return 3
	}
	ctx, cancel := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer cancel()
	died := make(chan struct{})
	mux := http.NewServeMux()
	mux.HandleFunc("/readyz", func(http.ResponseWriter, *http.Request) {})
	mux.HandleFunc("/die", func(http.ResponseWriter, *http.Request) { close(died) })
	l, err := net.Listen("tcp4", os.Getenv("OPS_ADDR"))
	if err != nil {
		fmt.Println(err)
		return 4
	}
	go func() { _ = http.Serve(l, mux) }()
	select {
	case <-died:
		fmt.Println("last words")
		return 7
	case <-ctx.Done():
	}
	notes, err := os.OpenFile(os.Getenv("FAKE_NOTES"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return 5
	}
	_, _ = fmt.Fprintln(notes, filepath.Base(os.Args[0]))
	_ = notes.Close()
	return 0
}

// fakes makes a suite of fake services, with everything around them but the stores.
func fakes(t *testing.T, how map[string]string) (s *Suite, person *bytes.Buffer) {
	t.Helper()
	dir := t.TempDir()
	exe, err := os.Executable()
	require.NoError(t, err)
	ports, err := FreePorts()
	require.NoError(t, err)
	person = &bytes.Buffer{}
	s = &Suite{died: make(chan *service, len(Names())), o: Options{
		Dir: filepath.Join(dir, "dev"), BinDir: filepath.Join(dir, "bin"), Ports: ports, Extra: map[string][]string{}, Log: person,
	}}
	require.NoError(t, os.MkdirAll(s.o.BinDir, 0o700))
	for _, name := range Names() {
		require.NoError(t, os.Symlink(exe, filepath.Join(s.o.BinDir, name)))
		s.o.Extra[name] = []string{"FAKE=" + how[name], "FAKE_NOTES=" + filepath.Join(dir, "notes")}
		if how[name] == "" {
			s.o.Extra[name][0] = "FAKE=ready"
		}
	}
	require.NoError(t, s.takeDir(t.Context()))
	t.Cleanup(func() { _ = s.Down() })
	return s, person
}

func TestServicesStartInOrderAndStopInReverse(t *testing.T) {
	t.Parallel()
	s, person := fakes(t, nil)
	require.NoError(t, s.startServices(t.Context()))
	require.NoError(t, s.Down())
	require.NoError(t, s.Down(), "twice is once")
	notes, err := os.ReadFile(filepath.Join(s.o.Dir, "..", "notes"))
	require.NoError(t, err)
	require.Equal(t, "api-gateway\nprompt-worker\nwebhook-worker\nsse-gateway\noutbox-relay\n", string(notes))
	require.Empty(t, person.String(), "INFO lines are for the file")
	log, err := os.ReadFile(filepath.Join(s.o.Dir, "log", "api-gateway.log"))
	require.NoError(t, err)
	require.Contains(t, string(log), "hello")
}

func TestAServiceThatDiesIsNamedWithItsLastWords(t *testing.T) {
	t.Parallel()
	s, _ := fakes(t, nil)
	require.NoError(t, s.startServices(t.Context()))
	// What we stop ourselves is no death, however often.
	for range 10 {
		require.NoError(t, s.StopService("sse-gateway", syscall.SIGTERM))
		require.NoError(t, s.StartService("sse-gateway"))
		require.NoError(t, s.AwaitReady(t.Context(), "sse-gateway"))
	}
	soon, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	require.ErrorIs(t, s.Died(soon), context.DeadlineExceeded)

	res, err := http.Get("http://" + local(s.o.Ports["sse-gateway"].Ops) + "/die")
	if err == nil {
		_ = res.Body.Close()
	}
	err = s.Died(t.Context())
	require.ErrorContains(t, err, "sse-gateway ended: exit status 7")
	require.ErrorContains(t, err, "last words")
}

func TestAServiceThatDoesNotStartStopsTheRest(t *testing.T) {
	t.Parallel()
	s, person := fakes(t, map[string]string{"api-gateway": "broken"})
	err := s.startServices(t.Context())
	require.ErrorContains(t, err, "api-gateway did not start: exit status 3")
	require.ErrorContains(t, err, "panic: no such thing")
	require.Contains(t, person.String(), "api-gateway: panic: no such thing", "what is no log line is shown")
	require.ErrorContains(t, s.Down(), "exit status 3")
	notes, err := os.ReadFile(filepath.Join(s.o.Dir, "..", "notes"))
	require.NoError(t, err)
	require.Equal(t, "prompt-worker\nwebhook-worker\nsse-gateway\noutbox-relay\n", string(notes))
}

func TestASecondSuiteIsToldOfTheFirst(t *testing.T) {
	t.Parallel()
	s, _ := fakes(t, nil)
	second := &Suite{o: Options{Dir: s.o.Dir}}
	err := second.takeDir(t.Context())
	require.ErrorContains(t, err, fmt.Sprintf("already runs here, as process %d", os.Getpid()))
	require.NoError(t, s.Down())
	require.NoError(t, second.takeDir(t.Context()), "a lock whose holder is gone is free")
	require.NoError(t, second.Down())
}

func TestADirectoryThatCannotBeIsASentence(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	_, err := Up(t.Context(), Options{Dir: filepath.Join(file, ".dev")})
	require.ErrorContains(t, err, "make the checkout writable, or free space")
}

func TestATakenPortIsASentence(t *testing.T) {
	t.Parallel()
	ports, err := FreePorts()
	require.NoError(t, err)
	l, err := net.Listen("tcp4", local(ports["api-gateway"].HTTP))
	require.NoError(t, err)
	defer func() { require.NoError(t, l.Close()) }()
	_, err = Up(t.Context(), Options{Dir: filepath.Join(t.TempDir(), "dev"), Ports: ports})
	require.ErrorContains(t, err, fmt.Sprintf("port %d, api-gateway's HTTP, is taken", ports["api-gateway"].HTTP))
	require.ErrorContains(t, err, "PORT_OFFSET=")
}

func TestSecretsAreMadeOnceAndKeptPrivate(t *testing.T) {
	t.Parallel()
	s, _ := fakes(t, nil)
	require.NoError(t, s.loadSecrets(t.Context()))
	again := &Suite{o: s.o}
	require.NoError(t, again.loadSecrets(t.Context()))
	require.Equal(t, s.Secrets, again.Secrets)
	info, err := os.Stat(s.secretsFile())
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode().Perm())
	require.NoError(t, os.WriteFile(s.secretsFile(), []byte("{"), 0o600))
	require.ErrorContains(t, again.loadSecrets(t.Context()), "to begin anew")
}

// TestAShellThatSourcedTheEnvFileStartsTheSameStores: our own URL in the environment is not a server that
// somebody else runs.
func TestAShellThatSourcedTheEnvFileStartsTheSameStores(t *testing.T) {
	t.Parallel()
	s := &Suite{Secrets: Secrets{OwnDatabaseURL: "postgres://own"}}
	for url, want := range map[string]string{"": "", "postgres://own": "", "postgres://theirs": "postgres://theirs"} {
		s.o.Getenv = func(string) string { return url }
		require.Equal(t, want, s.foreign("DATABASE_URL", s.Secrets.OwnDatabaseURL))
	}
	s = &Suite{o: Options{Getenv: func(string) string { return "" }}}
	require.Empty(t, s.foreign("DATABASE_URL", ""), "nothing known yet")
}

// TestTheEnvFileIsForAShell: what a URL may contain must neither break nor run.
func TestTheEnvFileIsForAShell(t *testing.T) {
	t.Parallel()
	s, _ := fakes(t, nil)
	s.DatabaseURL = "postgres://a:it's $HOME`id`@h/d"
	require.NoError(t, s.writeEnv(t.Context()))
	file := filepath.Join(s.o.Dir, "env")
	out, err := exec.CommandContext(t.Context(), "sh", "-c", `. "$1"; printf %s "$DATABASE_URL"`, "sh", file).Output()
	require.NoError(t, err)
	require.Equal(t, s.DatabaseURL, string(out))
	info, err := os.Stat(file)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode().Perm())
}

func TestFailuresAreReadable(t *testing.T) {
	t.Parallel()
	require.Equal(t, "error: ended error=no such host\nraw text",
		readable(`{"level":"INFO","msg":"begin"}`+"\n"+`{"level":"ERROR","msg":"ended","error":"no such host"}`+"\nraw text\n"))
}

func TestLogShowsWarningsAndKeepsAll(t *testing.T) {
	t.Parallel()
	var person bytes.Buffer
	name := filepath.Join(t.TempDir(), "x.log")
	l, err := openLog(name, "x", &person)
	require.NoError(t, err)
	all := `{"level":"INFO","msg":"quiet"}` + "\n" + `{"time":"t","level":"WARN","msg":"slow","b":2,"a":"one"}` + "\n\ngoroutine 1\n"
	for _, b := range []byte(all) { // pipes split lines anywhere
		_, err := l.Write([]byte{b})
		require.NoError(t, err)
	}
	_, err = l.Write([]byte("half"))
	require.NoError(t, err)
	require.Equal(t, "x: warn: slow a=one b=2\nx: goroutine 1\n", person.String())
	require.True(t, strings.HasSuffix(l.last(), "goroutine 1\nhalf"), l.last())
	require.NoError(t, l.Close())
	kept, err := os.ReadFile(name)
	require.NoError(t, err)
	require.Equal(t, all+"half", string(kept))
}
