package models_test

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	sdk "github.com/modelcontextprotocol/go-sdk/mcp"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/attribute"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.uber.org/goleak"

	"github.com/sametick/sametick/pkg/keyring"
	"github.com/sametick/sametick/pkg/netguard"
	"github.com/sametick/sametick/services/prompt-worker/internal/hooks"
	"github.com/sametick/sametick/services/prompt-worker/internal/limit"
	"github.com/sametick/sametick/services/prompt-worker/internal/models"
	"github.com/sametick/sametick/services/prompt-worker/internal/prompting"
	"github.com/sametick/sametick/services/prompt-worker/internal/provider/providertest"
	"github.com/sametick/sametick/services/prompt-worker/internal/runs"
	"github.com/sametick/sametick/services/prompt-worker/internal/workertest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type bench struct {
	ring  *keyring.Ring
	guard *netguard.Guard
	spans *tracetest.InMemoryExporter
	x     *runs.Executor
}

func newBench(t *testing.T, allow ...string) *bench {
	b := &bench{spans: tracetest.NewInMemoryExporter()}
	var err error
	b.ring, err = keyring.Parse(keyring.Generate("a"))
	require.NoError(t, err)
	b.guard, err = netguard.New(netguard.Options{Allow: allow, HTTP: true})
	require.NoError(t, err)
	m := models.New(b.ring, b.guard, limit.New(limit.Options{}), sdktrace.NewTracerProvider(sdktrace.WithSyncer(b.spans)))
	tools := models.NewTools(b.ring, b.guard, m.HTTP(), nil, slog.New(slog.NewTextHandler(io.Discard, nil)))
	t.Cleanup(func() { tools.Close(); m.Close() })
	b.x = &runs.Executor{Models: m, Tools: tools, Prices: workertest.Free{}}
	return b
}

func (b *bench) setup(url string, change ...func(*hooks.Setup)) *hooks.Setup {
	s := &hooks.Setup{Hook: hooks.Hook{OrgID: 1, ID: 2, Settings: hooks.Settings{ProviderID: 3, Mode: hooks.ModeAsync}},
		Providers: []hooks.Provider{{OrgID: 1, ID: 3, Kind: "openai", BaseURL: url + "/v1", DefaultModel: "m", Version: 1}}}
	for _, c := range change {
		c(s)
	}
	return s
}

func (b *bench) ask(t *testing.T, s *hooks.Setup) (runs.Answered, error) {
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	asking, err := b.x.Ask(ctx, s, prompting.Prompt{System: "s", User: []string{"u"}}, "", nil)
	if err != nil {
		return runs.Answered{}, err
	}
	out, err := asking.Do(ctx)
	require.LessOrEqual(t, out.Took.Tokens, asking.Worst.Tokens, "the worst case covers it")
	return out, err
}

func cause(t *testing.T, err error) string {
	var e *prompting.ModelError
	require.ErrorAs(t, err, &e)
	return e.Cause
}

// A model asks for a tool of an MCP server, over HTTP with its sealed headers; the hook grants that tool and no other.
func TestTools(t *testing.T) {
	var header atomic.Value
	tools := sdk.NewServer(&sdk.Implementation{Name: "fixture", Version: "1"}, nil)
	for _, name := range []string{"add", "drop"} {
		tools.AddTool(&sdk.Tool{Name: name, InputSchema: json.RawMessage(`{"type":"object"}`)}, func(_ context.Context, r *sdk.CallToolRequest) (*sdk.CallToolResult, error) {
			return &sdk.CallToolResult{Content: []sdk.Content{&sdk.TextContent{Text: name + string(r.Params.Arguments)}}}, nil
		})
	}
	handler := sdk.NewStreamableHTTPHandler(func(*http.Request) *sdk.Server { return tools }, nil)
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		header.Store(r.Header.Get("Authorization"))
		handler.ServeHTTP(w, r)
	}))
	defer func() {
		for s := range tools.Sessions() {
			_ = s.Close()
		}
		web.Close()
	}()
	b := newBench(t, "127.0.0.0/8")
	model := providertest.New(t, providertest.Sequence(
		providertest.Reply{Calls: []providertest.Call{{ID: "1", Name: "add", Arguments: `{"n":1}`}, {ID: "2", Name: "drop", Arguments: `{}`}}, Input: 10, Output: 5},
		providertest.Reply{Text: "done", Input: 30, Output: 5}))
	s := b.setup(model.URL, func(s *hooks.Setup) {
		s.Tools = []hooks.ToolGrant{{ServerID: 9, Tools: []string{"add"}}}
		s.Servers = []hooks.Server{{OrgID: 1, ID: 9, Transport: "http", URL: web.URL,
			HeadersSealed: b.ring.Seal(keyring.Owner{OrgID: 1, ID: 9, Purpose: hooks.PurposeServerHeaders}, []byte(`{"Authorization":"Bearer x"}`))}}
	})
	out, err := b.ask(t, s)
	require.NoError(t, err)
	require.Equal(t, "done", out.Response.Text)
	require.Equal(t, prompting.Usage{Input: 40, Output: 10}, out.Usage)
	require.Len(t, out.Calls, 2)
	require.JSONEq(t, `"add{\"n\":1}"`, string(out.Calls[0].Result))
	require.NotEmpty(t, out.Calls[1].Error, "what is not granted is not called")
	require.Equal(t, "Bearer x", header.Load())
	require.Equal(t, []string{"add"}, model.Asked()[0].Tools)

	for name, change := range map[string]func(*hooks.Setup){
		"a tool that it does not offer": func(s *hooks.Setup) { s.Tools[0].Tools = []string{"subtract"} },
		"an archived server":            func(s *hooks.Setup) { s.Servers = nil },
		"stdio that nobody allows":      func(s *hooks.Setup) { s.Servers[0].ID, s.Tools[0].ServerID, s.Servers[0].Transport = 10, 10, "stdio" },
	} {
		broken := *s
		broken.Tools = []hooks.ToolGrant{s.Tools[0]}
		broken.Servers = append([]hooks.Server(nil), s.Servers...)
		change(&broken)
		_, err := b.ask(t, &broken)
		require.Equal(t, prompting.CauseTool, cause(t, err), name)
	}
	require.Len(t, model.Asked(), 2)
}

// Inner addresses are refused when they are saved as names too; a key opens for its owner alone.
func TestGuards(t *testing.T) {
	model := providertest.New(t, providertest.Sequence(providertest.Reply{Text: "x", Input: 1, Output: 1}))
	_, err := newBench(t).ask(t, newBench(t).setup(model.URL))
	require.Equal(t, prompting.CauseBadRequest, cause(t, err))
	b := newBench(t, "127.0.0.0/8")
	_, err = b.ask(t, b.setup(model.URL))
	require.NoError(t, err, "the control")
	_, err = b.ask(t, b.setup(model.URL, func(s *hooks.Setup) {
		s.Providers[0].Version = 2
		s.Providers[0].KeySealed = b.ring.Seal(keyring.Owner{OrgID: 2, ID: 3, Purpose: hooks.PurposeProviderKey}, []byte("another's"))
	}))
	require.Equal(t, prompting.CauseUnauthorized, cause(t, err))
	_, err = b.ask(t, b.setup(model.URL, func(s *hooks.Setup) { s.Providers = nil }))
	require.Equal(t, prompting.CauseUnavailable, cause(t, err))
	require.Len(t, model.Asked(), 1)
}

// inner resolves every name to a private address.
type inner struct{}

func (inner) LookupNetIP(context.Context, string, string) ([]netip.Addr, error) {
	return []netip.Addr{netip.MustParseAddr("10.20.30.40")}, nil
}

// A name that leads to a private address is refused when it is dialled. No wait cures that, so the run ends and says by
// which rule, without the address; nothing was sent, so the next provider is asked.
func TestARefusedAddressIsFinal(t *testing.T) {
	b := newBench(t, "127.0.0.0/8")
	guard, err := netguard.New(netguard.Options{HTTP: true, Allow: []string{"127.0.0.0/8"}, Resolver: inner{}})
	require.NoError(t, err)
	m := models.New(b.ring, guard, limit.New(limit.Options{}), sdktrace.NewTracerProvider(sdktrace.WithSyncer(b.spans)))
	defer m.Close()
	b.x.Models = m
	for _, kind := range []string{"openai", "anthropic"} {
		s := b.setup("http://models.example", func(s *hooks.Setup) { s.Providers[0].Kind, s.Providers[0].ID = kind, int64(len(kind)) })
		out, err := b.ask(t, s)
		var failed *prompting.ModelError
		require.ErrorAs(t, err, &failed)
		require.Equal(t, prompting.CauseBadRequest, failed.Cause)
		require.Equal(t, "the provider's address is refused: models.example: private network (RFC 1918)", failed.Text)
		require.False(t, failed.Unknown)
		require.False(t, failed.Retryable())
		require.Zero(t, out.Took.Tokens)
		_, again := runs.RetryAfter(1, failed, 0)
		require.False(t, again)

		second := providertest.New(t, providertest.Sequence(providertest.Reply{Text: "x", Input: 1, Output: 1}))
		s.Providers = append(s.Providers, hooks.Provider{OrgID: 1, ID: 4, Kind: "openai", BaseURL: second.URL + "/v1", DefaultModel: "small"})
		out, err = b.ask(t, s)
		require.NoError(t, err)
		require.EqualValues(t, 4, out.From.ProviderID)
	}
	// A tool server's address, too.
	b.x.Tools = models.NewTools(b.ring, guard, m.HTTP(), nil, slog.New(slog.NewTextHandler(io.Discard, nil)))
	defer b.x.Tools.(*models.Tools).Close()
	_, err = b.ask(t, b.setup("http://127.0.0.1:4000", func(s *hooks.Setup) {
		s.Tools = []hooks.ToolGrant{{ServerID: 9, Tools: []string{"add"}}}
		s.Servers = []hooks.Server{{OrgID: 1, ID: 9, Transport: "http", URL: "http://tools.example"}}
	}))
	require.Equal(t, prompting.CauseTool, cause(t, err))
	require.EqualError(t, err, "tool: tool: the server's address is refused: private network (RFC 1918)")
	// The control: a server that is not there may be there later.
	gone := providertest.New(t, providertest.Sequence(providertest.Reply{}))
	gone.Close()
	_, err = b.ask(t, b.setup(gone.URL))
	require.Equal(t, prompting.CauseUnavailable, cause(t, err))
}

func TestFallback(t *testing.T) {
	first := providertest.New(t, providertest.Sequence(providertest.Reply{Status: 503, Message: "busy"}))
	second := providertest.New(t, providertest.Sequence(providertest.Reply{Text: "x", Input: 1, Output: 1}))
	b := newBench(t, "127.0.0.0/8")
	out, err := b.ask(t, b.setup(first.URL, func(s *hooks.Setup) {
		s.Model = "big"
		s.Providers = append(s.Providers, hooks.Provider{OrgID: 1, ID: 4, Kind: "openai", BaseURL: second.URL + "/v1", DefaultModel: "small"})
	}))
	require.NoError(t, err)
	require.Equal(t, prompting.Source{ProviderID: 4, Model: "small"}, out.From)
	require.Equal(t, "big", first.Asked()[0].Model)
	require.Equal(t, "small", second.Asked()[0].Model)
	spans := b.spans.GetSpans()
	require.Len(t, spans, 2)
	require.Equal(t, "chat small", spans[1].Name)
	require.Contains(t, spans[0].Attributes, attribute.String("error.type", prompting.CauseOverloaded))
	require.Contains(t, spans[1].Attributes, attribute.Int64("gen_ai.usage.input_tokens", 1))
}
