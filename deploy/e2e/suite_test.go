package e2e_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/sametick/sametick/deploy/suite"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		http.DefaultClient.CloseIdleConnections()
		os.Exit(code)
	}))
}

// bench is a suite on free ports, in a directory of the test's.
type bench struct {
	*suite.Suite
	options suite.Options
	tick    string // the command line's binary
}

func up(t *testing.T) *bench {
	t.Helper()
	root, err := filepath.Abs("../..")
	require.NoError(t, err)
	ports, err := suite.FreePorts()
	require.NoError(t, err)
	b := &bench{options: suite.Options{Root: root, Dir: filepath.Join(directory(t), "dev"), Ports: ports, Log: t.Output()}}
	b.tick = filepath.Join(b.options.Dir, "bin", "tick")
	b.start(t)
	build := exec.CommandContext(t.Context(), "go", "build", "-o", b.tick, "./services/tick/cmd/tick")
	build.Dir = root
	out, err := build.CombinedOutput()
	require.NoError(t, err, "%s", out)
	t.Cleanup(func() { require.NoError(t, b.Down()) })
	return b
}

// directory is one that the account of Postgres can enter, unlike t.TempDir.
func directory(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "sametick-e2e-")
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, os.RemoveAll(dir)) })
	require.NoError(t, os.Chmod(dir, 0o755))
	return dir
}

func (b *bench) start(t *testing.T) {
	t.Helper()
	s, err := suite.Up(t.Context(), b.options)
	require.NoError(t, err)
	b.Suite = s
}

// await polls a condition, for what other processes do.
func await(t *testing.T, what string, done func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !done() {
		select {
		case <-ctx.Done():
			require.FailNow(t, "waited a minute for "+what)
		case <-tick.C:
		}
	}
}

// event is what the specification shows.
type event struct {
	ID            int64          `json:"id"`
	OrgID         int64          `json:"org_id"`
	AggregateType string         `json:"aggregate_type"`
	AggregateID   int64          `json:"aggregate_id"`
	EventType     string         `json:"event_type"`
	Payload       map[string]any `json:"payload"`
	OccurredAt    string         `json:"occurred_at"`
}

type list struct {
	Data  []event `json:"data"`
	Total int     `json:"total"`
}

// ask does one request and decodes its answer; the raw text is given too.
func (b *bench) ask(ctx context.Context, method, path, token string, body, out any) (status int, text string, err error) {
	var in io.Reader
	if body != nil {
		j, err := json.Marshal(body)
		if err != nil {
			return 0, "", err
		}
		in = bytes.NewReader(j)
	}
	req, err := http.NewRequestWithContext(ctx, method, b.URL+path, in)
	if err != nil {
		return 0, "", err
	}
	req.Header.Set("Content-Type", "application/json")
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer func() { _ = res.Body.Close() }()
	raw, err := io.ReadAll(res.Body)
	if err != nil {
		return 0, "", err
	}
	if res.StatusCode/100 == 2 && out != nil {
		err = json.Unmarshal(raw, out)
	}
	return res.StatusCode, string(raw), err
}

func (b *bench) get(t *testing.T, path, token string, out any) string {
	t.Helper()
	status, text, err := b.ask(t.Context(), http.MethodGet, path, token, nil, out)
	require.NoError(t, err)
	require.Equal(t, http.StatusOK, status, text)
	return text
}

// create makes a task and gives its id.
func (b *bench) create(t *testing.T, name string) int64 {
	t.Helper()
	var made struct {
		ID int64 `json:"id"`
	}
	status, text, err := b.ask(t.Context(), http.MethodPost, "/api/records/task", b.Token, map[string]any{"name": name}, &made)
	require.NoError(t, err)
	require.Equal(t, http.StatusOK, status, text)
	return made.ID
}

// command prepares tick as a shell in a checkout has it.
func (b *bench) command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, b.tick, args...)
	cmd.Env = []string{"SAMETICK_URL=" + b.URL, "SAMETICK_TOKEN=" + b.Token, "HOME=/nonexistent"}
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 10 * time.Second
	return cmd
}

// tail is a running `tick tail --json`, and all it has shown.
type tail struct {
	mu     sync.Mutex
	events []event
}

// startTail follows from the first event on until the test ends.
func (b *bench) startTail(t *testing.T) *tail {
	t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	cmd := b.command(ctx, "tail", "--all", "--json")
	var notes bytes.Buffer
	cmd.Stderr = &notes
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	l := &tail{}
	ended := make(chan error, 1)
	go func() {
		var e event
		dec := json.NewDecoder(out)
		for dec.Decode(&e) == nil {
			l.mu.Lock()
			l.events = append(l.events, e)
			l.mu.Unlock()
			e = event{}
		}
		ended <- cmd.Wait()
	}()
	t.Cleanup(func() {
		cancel()
		<-ended
		t.Logf("tick tail said:\n%s", notes.String())
	})
	return l
}

// seen copies what has been shown so far.
func (l *tail) seen() []event {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]event(nil), l.events...)
}

// faults compares what listeners must have seen of the created tasks with what they saw: each id's
// task.post_create once. It gives the first few faults as text, empty when there is none.
func faults(created []int64, seen []event) string {
	times := map[int64]int{}
	for _, e := range seen {
		if e.EventType == "task.post_create" {
			times[e.AggregateID]++
		}
	}
	var found []string
	for _, id := range created {
		if n := times[id]; n != 1 {
			found = append(found, fmt.Sprintf("task %d was seen %d times", id, n))
		}
	}
	ids := map[int64]bool{}
	for _, e := range seen {
		if ids[e.ID] {
			found = append(found, fmt.Sprintf("event %d came twice", e.ID))
		}
		ids[e.ID] = true
	}
	return strings.Join(found[:min(5, len(found))], "; ")
}

// TestFaultsAreFound is the control of the comparison that the tests below rest on.
func TestFaultsAreFound(t *testing.T) {
	t.Parallel()
	e := func(id, task int64) event { return event{ID: id, AggregateID: task, EventType: "task.post_create"} }
	require.Empty(t, faults([]int64{1, 2}, []event{e(10, 1), e(11, 2)}))
	require.Equal(t, "task 2 was seen 0 times", faults([]int64{1, 2}, []event{e(10, 1)}))
	require.Equal(t, "task 1 was seen 2 times; event 10 came twice", faults([]int64{1}, []event{e(10, 1), e(10, 1)}))
}
