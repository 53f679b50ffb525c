package mcp_test

import (
	"context"
	"encoding/json"
	"net"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	sdk "github.com/modelcontextprotocol/go-sdk/mcp"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/sametick/sametick/services/prompt-worker/internal/mcp"
	"github.com/sametick/sametick/services/prompt-worker/internal/prompting"
)

// serve is the argument with which this test's own program is an MCP server on its standard input and output.
const serve = "serve-mcp"

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == serve {
		_ = fixture().Run(context.Background(), &sdk.StdioTransport{}) // its input has ended
		return
	}
	goleak.VerifyTestMain(m)
}

var ref = prompting.ServerRef{OrgID: 1, ID: 7}

// fixture is a server with a tool for each thing that can go wrong.
func fixture() *sdk.Server {
	s := sdk.NewServer(&sdk.Implementation{Name: "fixture", Version: "1"}, nil)
	add := func(name, schema string, h func(context.Context, json.RawMessage) (*sdk.CallToolResult, error)) {
		s.AddTool(&sdk.Tool{Name: name, Description: "Test.", InputSchema: json.RawMessage(schema)}, func(ctx context.Context, r *sdk.CallToolRequest) (*sdk.CallToolResult, error) {
			return h(ctx, r.Params.Arguments)
		})
	}
	say := func(text string) *sdk.CallToolResult {
		return &sdk.CallToolResult{Content: []sdk.Content{&sdk.TextContent{Text: text}}}
	}
	const anything = `{"type":"object"}`
	add("echo", `{"type":"object","required":["text"],"properties":{"text":{"type":"string","maxLength":5}},"additionalProperties":false}`,
		func(_ context.Context, a json.RawMessage) (*sdk.CallToolResult, error) { return say(string(a)), nil })
	add("structured", anything, func(context.Context, json.RawMessage) (*sdk.CallToolResult, error) {
		return &sdk.CallToolResult{Content: []sdk.Content{}, StructuredContent: map[string]any{"n": 12}}, nil
	})
	add("picture", anything, func(context.Context, json.RawMessage) (*sdk.CallToolResult, error) {
		return &sdk.CallToolResult{Content: []sdk.Content{&sdk.ImageContent{Data: []byte("x"), MIMEType: "image/png"}}}, nil
	})
	add("fail", anything, func(context.Context, json.RawMessage) (*sdk.CallToolResult, error) {
		r := say("it broke\x1b[31m")
		r.IsError = true
		return r, nil
	})
	add("hang", anything, func(ctx context.Context, _ json.RawMessage) (*sdk.CallToolResult, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	})
	add("huge", anything, func(context.Context, json.RawMessage) (*sdk.CallToolResult, error) {
		return say(strings.Repeat("x", 3<<20)), nil
	})
	add("large", anything, func(context.Context, json.RawMessage) (*sdk.CallToolResult, error) {
		return say(strings.Repeat("x", 2<<10)), nil
	})
	add("environment", anything, func(context.Context, json.RawMessage) (*sdk.CallToolResult, error) {
		return say(strings.Join(os.Environ(), " ")), nil
	})
	add("exit", anything, func(context.Context, json.RawMessage) (*sdk.CallToolResult, error) {
		return nil, syscall.Kill(os.Getpid(), syscall.SIGKILL)
	})
	// What must not be offered.
	add("recursive", `{"type":"object","properties":{"a":{"$ref":"#/$defs/a"}},"$defs":{"a":{"anyOf":[{"$ref":"#/$defs/a"},{"$ref":"#/$defs/a"}]}}}`,
		func(context.Context, json.RawMessage) (*sdk.CallToolResult, error) { return say(""), nil })
	add("file", `{"type":"object","properties":{"a":{"$ref":"file:///etc/passwd"}}}`,
		func(context.Context, json.RawMessage) (*sdk.CallToolResult, error) { return say(""), nil })
	return s
}

// web is the fixture over HTTP, which may be stopped and started again at its address.
type web struct {
	t       *testing.T
	addr    string
	server  *http.Server
	ended   chan struct{}
	headers atomic.Pointer[http.Header]
	calls   atomic.Int64
}

func newWeb(t *testing.T) *web {
	w := &web{t: t, addr: "127.0.0.1:0"}
	w.start()
	t.Cleanup(w.kill)
	return w
}

func (w *web) start() {
	l, err := net.Listen("tcp", w.addr)
	require.NoError(w.t, err)
	w.addr = l.Addr().String()
	mcpServer := fixture()
	handler := sdk.NewStreamableHTTPHandler(func(*http.Request) *sdk.Server { return mcpServer }, nil)
	w.server = &http.Server{Handler: http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		h := r.Header.Clone()
		w.headers.Store(&h)
		w.calls.Add(1)
		handler.ServeHTTP(rw, r)
	})}
	w.ended = make(chan struct{})
	server, ended := w.server, w.ended
	go func() {
		defer close(ended)
		_ = server.Serve(l) // closed
		for s := range mcpServer.Sessions() {
			_ = s.Close()
		}
	}()
}

func (w *web) kill() {
	_ = w.server.Close()
	<-w.ended
}

func (w *web) url() string { return "http://" + w.addr + "/" }

// set registers one server.
func set(t *testing.T, s mcp.Server, change ...func(*mcp.Options)) *mcp.Servers {
	transport := &http.Transport{}
	o := mcp.Options{HTTP: &http.Client{Transport: transport}, Timeout: 20 * time.Second}
	if s.Transport == mcp.TransportStdio {
		o.Stdio = [][]string{s.Command}
	}
	for _, f := range change {
		f(&o)
	}
	servers := mcp.New(o)
	t.Cleanup(func() {
		servers.Close()
		transport.CloseIdleConnections()
	})
	s.Ref = ref
	require.NoError(t, servers.Put(s))
	return servers
}

func own(t *testing.T) mcp.Server {
	program, err := os.Executable()
	require.NoError(t, err)
	return mcp.Server{Transport: mcp.TransportStdio, Command: []string{program, serve}}
}

func call(t *testing.T, s *mcp.Servers, tool, arguments string) (string, error) {
	out, err := s.Call(t.Context(), ref, tool, json.RawMessage(arguments))
	if err != nil {
		require.ErrorIs(t, err, mcp.ErrTool)
		require.Nil(t, out)
		require.NotContains(t, err.Error(), "127.0.0.1")
		require.NotContains(t, err.Error(), "secret")
	}
	return string(out), err
}
