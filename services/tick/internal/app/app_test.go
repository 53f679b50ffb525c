package app_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	relayv1 "github.com/sametick/sametick/proto/gen/go/sametick/relay/v1"
	"github.com/sametick/sametick/services/tick/internal/app"
)

func TestMain(m *testing.M) {
	// The tests' own Postgres lives as long as their process.
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("github.com/sametick/sametick/pkg/devstack.StartProcess.func1"),
		goleak.IgnoreAnyFunction("os/exec.(*Cmd).Start.func2"))
}

// tick runs one command line as a shell would.
func tick(ctx context.Context, environ []string, args ...string) (code int, stdout, stderr string) {
	var out, errOut bytes.Buffer
	code = app.Run(ctx, args, environ, &out, &errOut)
	return code, out.String(), errOut.String()
}

// api answers like the real one, as far as tick asks, and keeps what it was asked.
type api struct {
	mu    sync.Mutex
	asked []string
}

func (a *api) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	a.mu.Lock()
	a.asked = append(a.asked, fmt.Sprintf("%s %s %s", r.Method, r.URL, body))
	n := len(a.asked)
	a.mu.Unlock()
	switch {
	case r.Header.Get("Authorization") != "Bearer stk_good":
		w.WriteHeader(http.StatusUnauthorized)
		_, _ = io.WriteString(w, `{"title":"Unauthorized","detail":"the token is not valid"}`)
	case r.URL.Path == "/api/events/stream":
		w.Header().Set("Content-Type", "text/event-stream")
		_, _ = io.WriteString(w, "retry: 1000\n\n"+
			`data: {"id":7,"event_type":"task.post_create","aggregate_type":"task","aggregate_id":3,"occurred_at":"2026-04-12T14:30:00.000Z","payload":{"record_name":"Call \u001b[31mher","actor_id":5}}`+"\n\n"+
			`data: {"id":8,"event_type":"task.post_update","aggregate_type":"task","aggregate_id":3,"occurred_at":"2026-04-12T14:30:01.000Z","payload":{"actor_id":null,"changes":{"name":{"before":"a","after":"b"},"attributes":{"after":{"k":1}},"w":{},"x":{},"y":{}}}}`+"\n\n")
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	default:
		_, _ = fmt.Fprintf(w, `{"id":%d}`, n)
	}
}

func serve(t *testing.T) (*api, []string) {
	t.Helper()
	a := &api{}
	s := httptest.NewServer(a)
	t.Cleanup(s.Close)
	return a, []string{"SAMETICK_URL=" + s.URL, "SAMETICK_TOKEN=stk_good"}
}

func TestEmitCreatesUpdatesAndArchives(t *testing.T) {
	a, env := serve(t)
	for _, args := range [][]string{
		{"task", "Call", "--attr", "n=3", "--attr", "who=Ann Lee", "--attributes", `{"n":1,"k":[true]}`},
		{"task", "Call again", "--update", "9"},
		{"task", "--archive", "9"},
	} {
		code, out, errOut := tick(t.Context(), env, append([]string{"emit"}, args...)...)
		require.Zero(t, code, errOut)
		require.True(t, json.Valid([]byte(out)), out)
	}
	require.Equal(t, []string{
		`POST /api/records/task {"attributes":{"k":[true],"n":3,"who":"Ann Lee"},"name":"Call"}`,
		`PATCH /api/records/task/9 {"name":"Call again"}`,
		`DELETE /api/records/task/9 `,
	}, a.asked)
	for _, args := range [][]string{
		{"task"}, {"task", "x", "--archive", "9"}, {"task", "x", "--attr", "novalue"}, {"task", "x", "--attributes", "[1]"},
		{"task", "x", "--update", "1", "--archive", "1"},
	} {
		code, _, errOut := tick(t.Context(), env, append([]string{"emit"}, args...)...)
		require.Equal(t, 1, code, args)
		require.Contains(t, errOut, "tick: ", args)
	}
	require.Len(t, a.asked, 3, "what is refused asks nobody")
}

// until ends a command when it has written enough.
type until struct {
	bytes.Buffer
	lines int
	stop  context.CancelFunc
}

func (u *until) Write(b []byte) (int, error) {
	n, err := u.Buffer.Write(b)
	if strings.Count(u.String(), "\n") >= u.lines {
		u.stop()
	}
	return n, err
}

func TestTailShowsEventsToPeopleAndPrograms(t *testing.T) {
	t.Setenv("TZ", "UTC")
	a, env := serve(t)
	run := func(args ...string) string {
		ctx, cancel := context.WithCancel(t.Context())
		out := &until{lines: 2, stop: cancel}
		require.Zero(t, app.Run(ctx, append([]string{"tail"}, args...), env, out, io.Discard))
		return out.String()
	}
	lines := strings.Split(run("--no-color", "--type", "task.*,*.post_create", "--aggregate-id", "3"), "\n")
	require.Contains(t, lines[0], "task.post_create            task#3  Call �[31mher  by 5", "a name must not steer the terminal")
	require.Contains(t, lines[1], `task.post_update            task#3  attributes: null → {"k":1}, name: "a" → "b", w, 2 more`)
	require.Contains(t, a.asked[0], "aggregate_id=3&event_type=task.%2A&event_type=%2A.post_create")

	for _, line := range strings.Split(strings.TrimSpace(run("--json")), "\n") {
		require.True(t, json.Valid([]byte(line)), line)
	}
}

func TestImportOverREST(t *testing.T) {
	a, env := serve(t)
	file := filepath.Join(t.TempDir(), "small.xes")
	require.NoError(t, os.WriteFile(file, []byte(`<log><trace><string key="concept:name" value="c1"/><event>
		<string key="concept:name" value="Confirm"/><string key="org:resource" value="R1"/></event></trace></log>`), 0o600))
	code, _, errOut := tick(t.Context(), env, "import", file)
	require.Zero(t, code, errOut)
	require.Contains(t, errOut, "1 workflows, 1 steps, 1 employees, 0 teams")
	require.Equal(t, []string{
		`POST /api/records/workflow {"name":"c1","attributes":{"concept:name":"c1","external_id":"small/c1"}}`,
		`POST /api/records/employee {"name":"R1","attributes":{"external_id":"small/R1"}}`,
		`POST /api/records/step {"name":"Confirm","attributes":{"concept:name":"Confirm","employee_id":2,"external_id":"small/c1/1","org:resource":"R1"},"workflow_id":1}`,
	}, a.asked)

	require.NoError(t, os.WriteFile(file, []byte("<log>\n<trace><event><int key='n' value='x'/>"), 0o600))
	code, _, errOut = tick(t.Context(), env, "import", file)
	require.Equal(t, 1, code)
	require.Contains(t, errOut, file+`:2:39: attribute "n": "x" is no whole number`)

	code, _, errOut = tick(t.Context(), env, "import", filepath.Join(t.TempDir(), "none.xes"))
	require.Equal(t, 1, code)
	require.Contains(t, errOut, "none.xes")
}

func TestErrorsSayWhatToDo(t *testing.T) {
	_, env := serve(t)
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	require.NoError(t, err)
	closed := l.Addr().String()
	require.NoError(t, l.Close())
	file := filepath.Join(t.TempDir(), "a.xes")
	require.NoError(t, os.WriteFile(file, []byte(`<log><trace/></log>`), 0o600))
	for want, args := range map[string][]string{
		"make up":         {"emit", "task", "x", "--url", "http://" + closed},
		"nothing answers": {"import", file, "--url", "http://" + closed},
		"SAMETICK_TOKEN":  {"emit", "task", "x", "--token", "stk_bad"},
		"has no scheme":   {"emit", "task", "x", "--url", "localhost:1"},
		"unknown command": {"frobnicate"},
	} {
		code, _, errOut := tick(t.Context(), env, args...)
		require.Equal(t, 1, code, args)
		require.Contains(t, errOut, want)
	}
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	code, _, errOut := tick(canceled, env, "import", file)
	require.Equal(t, 130, code, errOut)
	require.Contains(t, errOut, "go on")
}

// TestTheCheckoutsTokenStaysThere: a token found in .dev/env is sent to the suite of that file alone.
func TestTheCheckoutsTokenStaysThere(t *testing.T) {
	a, env := serve(t)
	url := strings.TrimPrefix(env[0], "SAMETICK_URL=")
	dir := t.TempDir()
	require.NoError(t, os.MkdirAll(filepath.Join(dir, ".dev"), 0o700))
	require.NoError(t, os.MkdirAll(filepath.Join(dir, "below", "it"), 0o700))
	write := func(address string) {
		require.NoError(t, os.WriteFile(filepath.Join(dir, ".dev", "env"),
			[]byte("export SAMETICK_URL='"+address+"'\nexport SAMETICK_TOKEN='stk_good'\n"), 0o600))
	}
	t.Chdir(filepath.Join(dir, "below", "it"))
	write(url)
	code, _, errOut := tick(t.Context(), nil, "emit", "task", "x")
	require.Zero(t, code, errOut)

	write("http://127.0.0.1:1")
	code, _, errOut = tick(t.Context(), env[:1], "emit", "task", "x")
	require.Equal(t, 1, code)
	require.Contains(t, errOut, "Set SAMETICK_URL and SAMETICK_TOKEN")
	require.Len(t, a.asked, 1)
	code, _, errOut = tick(t.Context(), env, "emit", "task", "x")
	require.Zero(t, code, errOut)
}

type relay struct {
	relayv1.UnimplementedRelayServiceServer
}

func (relay) Status(ctx context.Context, _ *relayv1.StatusRequest) (*relayv1.StatusResponse, error) {
	md, _ := metadata.FromIncomingContext(ctx)
	if got := md.Get("authorization"); len(got) != 1 || got[0] != "Bearer inner" {
		return nil, status.Error(codes.Unauthenticated, "no")
	}
	return &relayv1.StatusResponse{
		Active: true, Batch: 41, ClaimedAt: timestamppb.Now(), Unsequenced: 6, Version: "v1",
		Shards: []*relayv1.ShardStatus{{Shard: 0}, {Shard: 3, Head: 100, StreamFirst: 5, StreamLast: 98,
			Consumers: []*relayv1.ConsumerStatus{{Consumer: "webhook", Position: 90}}}},
	}, nil
}

func TestRelayStatus(t *testing.T) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	require.NoError(t, err)
	server := grpc.NewServer()
	relayv1.RegisterRelayServiceServer(server, relay{})
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	t.Cleanup(func() { server.Stop(); require.NoError(t, <-served) })

	env := []string{"RELAY_ADDR=" + l.Addr().String(), "INTERNAL_TOKEN=inner"}
	code, out, errOut := tick(t.Context(), env, "relay", "status")
	require.Zero(t, code, errOut)
	for _, want := range []string{"active, version v1", "batch 41", "6 events without a position"} {
		require.Contains(t, out, want)
	}
	require.Regexp(t, `\n3 +100 +5…98 +2 +webhook −10`, out)
	require.NotRegexp(t, `\n0 `, out, "an empty shard is not shown")

	code, out, errOut = tick(t.Context(), env, "relay", "status", "--json")
	require.Zero(t, code, errOut)
	require.True(t, json.Valid([]byte(out)))

	code, _, errOut = tick(t.Context(), []string{env[0], "INTERNAL_TOKEN=other"}, "relay", "status")
	require.Equal(t, 1, code)
	require.Contains(t, errOut, "INTERNAL_TOKEN")
	code, _, errOut = tick(t.Context(), nil, "relay", "status")
	require.Equal(t, 1, code)
	require.Contains(t, errOut, "RELAY_ADDR")
	code, _, errOut = tick(t.Context(), env, "relay", "status", "--addr", "127.0.0.1:1")
	require.Equal(t, 1, code)
	require.Contains(t, errOut, "nothing answers at 127.0.0.1:1")
}

// tick listen prints a secret, and a server that knows it verifies what comes.
func TestListenAndRedeliver(t *testing.T) {
	a, env := serve(t)
	verify := make(chan func(*standardwebhooks.Webhook) error, 2)
	receiver := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		verify <- func(wh *standardwebhooks.Webhook) error { return wh.Verify(body, r.Header) }
		w.WriteHeader(http.StatusAccepted)
	}))
	defer receiver.Close()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	out := &until{lines: 3, stop: cancel}
	var errOut bytes.Buffer
	app.Run(ctx, []string{"listen", "--forward", receiver.URL, "--type", "task.*"}, env, out, &errOut)
	secret, _, _ := strings.Cut(strings.TrimPrefix(out.String(), "secret "), "\n")
	wh, err := standardwebhooks.NewWebhook(secret)
	require.NoError(t, err)
	for range 2 {
		require.NoError(t, (<-verify)(wh))
	}
	require.Contains(t, out.String(), "task#3  202 in ")
	require.Contains(t, a.asked[0], "event_type=task.%2A")

	code, text, problem := tick(t.Context(), env, "redeliver", "7")
	require.Zero(t, code, problem)
	require.Contains(t, text, "is due now")
	require.Equal(t, "POST /api/webhooks/deliveries/7:redeliver {}", a.asked[len(a.asked)-1])
	for _, args := range [][]string{{"redeliver"}, {"redeliver", "x"}, {"redeliver", "0"}, {"listen"}, {"listen", "--forward", "nowhere"}} {
		code, _, problem := tick(t.Context(), env, args...)
		require.Equal(t, 1, code, args)
		require.Contains(t, problem, "tick: ", args)
	}
}
