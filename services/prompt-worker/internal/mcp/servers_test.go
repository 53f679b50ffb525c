package mcp_test

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	sdk "github.com/modelcontextprotocol/go-sdk/mcp"
	"github.com/stretchr/testify/require"

	"github.com/sametick/sametick/services/prompt-worker/internal/mcp"
	"github.com/sametick/sametick/services/prompt-worker/internal/prompting"
)

// both runs a test over both transports.
func both(t *testing.T, f func(t *testing.T, s mcp.Server)) {
	t.Run("http", func(t *testing.T) { f(t, mcp.Server{Transport: mcp.TransportHTTP, URL: newWeb(t).url()}) })
	t.Run("stdio", func(t *testing.T) { f(t, own(t)) })
}

func TestTools(t *testing.T) {
	both(t, func(t *testing.T, server mcp.Server) {
		s := set(t, server, func(o *mcp.Options) { o.MaxBytes = 1 << 10 })
		tools, err := s.Tools(t.Context(), ref)
		require.NoError(t, err)
		var names []string
		for _, tool := range tools {
			names = append(names, tool.Name)
		}
		require.Equal(t, []string{"echo", "environment", "exit", "fail", "hang", "huge", "large", "picture", "structured"}, names,
			"without those whose schemas cannot be checked in bounded time, or look elsewhere")

		got, err := call(t, s, "echo", `{"text":"hi"}`)
		require.NoError(t, err)
		require.Equal(t, `"{\"text\":\"hi\"}"`, got)
		got, err = call(t, s, "structured", `{}`)
		require.NoError(t, err)
		require.Equal(t, `{"n":12}`, got)
		got, err = call(t, s, "picture", `{}`)
		require.NoError(t, err)
		require.Equal(t, `"[image]"`, got)

		_, err = call(t, s, "fail", `{}`)
		require.EqualError(t, err, "tool: it broke [31m")
		_, err = call(t, s, "large", `{}`)
		require.ErrorContains(t, err, "too large")
		_, err = call(t, s, "recursive", `{}`)
		require.ErrorContains(t, err, "no such tool")
	})
}

// What the model made up never reaches the server.
func TestArgumentsAreChecked(t *testing.T) {
	w := newWeb(t)
	s := set(t, mcp.Server{Transport: mcp.TransportHTTP, URL: w.url()})
	_, err := s.Tools(t.Context(), ref)
	require.NoError(t, err)
	before := w.calls.Load()
	for _, arguments := range []string{``, `{`, `[]`, `null`, `"{}"`, `{}`, `{"text":1}`, `{"text":"toolong"}`, `{"text":"x","more":1}`, `{"text":"` + strings.Repeat("x", 1<<17) + `"}`} {
		_, err := call(t, s, "echo", arguments)
		require.ErrorContains(t, err, "the arguments", arguments)
	}
	require.Equal(t, before, w.calls.Load())
}

// A result larger than can be read ends the session; the next call has a new one.
func TestHugeResult(t *testing.T) {
	both(t, func(t *testing.T, server mcp.Server) {
		s := set(t, server, func(o *mcp.Options) { o.MaxBytes = 1 << 10 })
		_, err := call(t, s, "huge", `{}`)
		require.Error(t, err)
		got, err := call(t, s, "echo", `{"text":"hi"}`)
		require.NoError(t, err)
		require.Contains(t, got, "hi")
	})
}

// A hanging tool ends at its time, and others of the session go on.
func TestTime(t *testing.T) {
	both(t, func(t *testing.T, server mcp.Server) {
		s := set(t, server)
		_, err := s.Tools(t.Context(), ref)
		require.NoError(t, err)
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		begun := time.Now()
		_, err = s.Call(ctx, ref, "hang", json.RawMessage(`{}`))
		require.ErrorContains(t, err, "no answer in time")
		require.Less(t, time.Since(begun), 10*time.Second)
		_, err = call(t, s, "echo", `{"text":"hi"}`)
		require.NoError(t, err)
	})
}

// A server that was killed and restarted, whose sessions are gone, answers the next call (go-sdk issue 715). One that was
// written to a connection that had just died may fail, since it may have been carried out, but no second one.
func TestLostSession(t *testing.T) {
	t.Run("the SDK alone does not", func(t *testing.T) { // the negative control
		w := newWeb(t)
		transport := &http.Transport{}
		defer transport.CloseIdleConnections()
		conn, err := sdk.NewClient(&sdk.Implementation{Name: "control", Version: "1"}, nil).Connect(t.Context(),
			&sdk.StreamableClientTransport{Endpoint: w.url(), HTTPClient: &http.Client{Transport: transport}, DisableStandaloneSSE: true}, nil)
		require.NoError(t, err)
		defer func() { _ = conn.Close() }()
		w.kill()
		w.start()
		for range 3 {
			_, err = conn.CallTool(t.Context(), &sdk.CallToolParams{Name: "echo", Arguments: map[string]any{"text": "hi"}})
		}
		require.Error(t, err)
	})
	w := newWeb(t)
	s := set(t, mcp.Server{Transport: mcp.TransportHTTP, URL: w.url()})
	for range 3 {
		got, err := call(t, s, "echo", `{"text":"hi"}`)
		if err != nil {
			require.ErrorContains(t, err, "lost")
			got, err = call(t, s, "echo", `{"text":"hi"}`)
		}
		require.NoError(t, err)
		require.Contains(t, got, "hi")
		w.kill()
		w.start()
	}
	// While it is away a call fails, and once it is back calls succeed without anybody's help.
	w.kill()
	for range 2 {
		_, err := call(t, s, "echo", `{"text":"hi"}`)
		require.Error(t, err)
	}
	w.start()
	require.Eventually(t, func() bool {
		_, err := call(t, s, "echo", `{"text":"hi"}`)
		return err == nil
	}, 20*time.Second, 20*time.Millisecond)
}

// A program that dies in the middle of a call: the call failed, and may have been carried out; the next has a new one.
func TestDeadProgram(t *testing.T) {
	s := set(t, own(t))
	for range 3 {
		_, err := call(t, s, "exit", `{}`)
		require.ErrorContains(t, err, "lost")
		require.Eventually(t, func() bool {
			_, err := call(t, s, "echo", `{"text":"hi"}`)
			return err == nil
		}, 20*time.Second, 20*time.Millisecond)
	}
}

func TestEmptyEnvironment(t *testing.T) {
	t.Setenv("DATABASE_URL", "postgres://secret")
	got, err := call(t, set(t, own(t)), "environment", `{}`)
	require.NoError(t, err)
	require.Equal(t, `""`, got)
}

// Only what the operator allows runs, argument for argument.
func TestStdioIsAllowedWhole(t *testing.T) {
	s := mcp.New(mcp.Options{Stdio: [][]string{{"/usr/bin/node", "server.js"}}})
	defer s.Close()
	for _, command := range [][]string{nil, {}, {"/usr/bin/node"}, {"/usr/bin/node", "-e", "1"}, {"/usr/bin/node", "server.js", "x"}, {"node", "server.js"}} {
		require.ErrorIs(t, s.Put(mcp.Server{Ref: ref, Transport: mcp.TransportStdio, Command: command}), mcp.ErrServer)
	}
	for _, url := range []string{"", "file:///x", "http://", "http://a:b@host/"} {
		require.ErrorIs(t, s.Put(mcp.Server{Ref: ref, Transport: mcp.TransportHTTP, URL: url}), mcp.ErrServer)
	}
	require.ErrorIs(t, s.Put(mcp.Server{Ref: ref, Transport: "sse"}), mcp.ErrServer)
}

// The headers go to the server alone, not where it points; and nobody but the organisation reaches it.
func TestHeaders(t *testing.T) {
	var elsewhere sync.Map
	thief := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { elsewhere.Store("seen", r.Header.Clone()) }))
	defer thief.Close()
	w := newWeb(t)
	s := set(t, mcp.Server{Transport: mcp.TransportHTTP, URL: w.url(), Headers: map[string]string{"Authorization": "Bearer secret"}})
	_, err := call(t, s, "echo", `{"text":"hi"}`)
	require.NoError(t, err)
	require.Equal(t, "Bearer secret", w.headers.Load().Get("Authorization"))
	_, err = s.Call(t.Context(), prompting.ServerRef{OrgID: 2, ID: ref.ID}, "echo", json.RawMessage(`{"text":"hi"}`))
	require.ErrorContains(t, err, "not registered")

	points := httptest.NewServer(http.RedirectHandler(thief.URL, http.StatusTemporaryRedirect))
	defer points.Close()
	require.NoError(t, s.Put(mcp.Server{Ref: ref, Transport: mcp.TransportHTTP, URL: points.URL, Headers: map[string]string{"Authorization": "Bearer secret"}}))
	_, err = call(t, s, "echo", `{"text":"hi"}`)
	require.ErrorContains(t, err, "cannot be reached")
	_, seen := elsewhere.Load("seen")
	require.False(t, seen)
}

// Whatever is stopped, and when: nothing is left (goleak), and nothing hangs.
func TestLifecycle(t *testing.T) {
	w := newWeb(t)
	s := set(t, mcp.Server{Transport: mcp.TransportHTTP, URL: w.url()})
	s.Remove(ref) // while it connects
	s.Remove(ref)
	_, err := call(t, s, "echo", `{"text":"hi"}`)
	require.ErrorContains(t, err, "not registered")
	for range 5 {
		require.NoError(t, s.Put(mcp.Server{Ref: ref, Transport: mcp.TransportHTTP, URL: w.url()}))
	}
	_, err = call(t, s, "echo", `{"text":"hi"}`)
	require.NoError(t, err)
	silent, err := exec.LookPath("sleep")
	require.NoError(t, err)
	silent, err = filepath.Abs(silent)
	require.NoError(t, err)
	mute := set(t, mcp.Server{Transport: mcp.TransportStdio, Command: []string{silent, "1000"}}, func(o *mcp.Options) { o.Timeout = 50 * time.Millisecond })
	_, err = call(t, mute, "echo", `{"text":"hi"}`)
	require.Error(t, err)
	s.Close()
	s.Close()
	require.ErrorIs(t, s.Put(mcp.Server{Ref: ref, Transport: mcp.TransportHTTP, URL: w.url()}), mcp.ErrServer)
}

func TestConcurrentCalls(t *testing.T) {
	both(t, func(t *testing.T, server mcp.Server) {
		s := set(t, server)
		var wg sync.WaitGroup
		for range 50 {
			wg.Go(func() {
				out, err := s.Call(t.Context(), ref, "echo", json.RawMessage(`{"text":"hi"}`))
				if err != nil || !strings.Contains(string(out), "hi") {
					t.Errorf("%s: %v", out, err)
				}
			})
		}
		wg.Wait()
	})
}
