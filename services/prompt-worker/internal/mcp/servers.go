// Package mcp calls the tools of an organisation's MCP servers (modelcontextprotocol.io), over streamable HTTP and stdio,
// by the official SDK. Each registered server has a keeper, which connects, notices that a session is lost and connects
// again, so that no call, and no review, waits longer than for an answer. Servers are strangers: what they say of
// themselves and of results is bounded and checked. Which hook may call what, prompting decides.
package mcp

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"time"

	"github.com/sametick/sametick/services/prompt-worker/internal/prompting"
)

// Transports.
const (
	TransportHTTP  = "http"
	TransportStdio = "stdio"
)

// Server is how a server is reached.
type Server struct {
	Ref       prompting.ServerRef
	Transport string
	// URL and Headers are of TransportHTTP. The headers go with each request, to that URL alone.
	URL     string
	Headers map[string]string
	// Command is of TransportStdio: the program, by its whole path, and its arguments.
	Command []string
}

// Options bound what servers can do; zero fields take the defaults.
type Options struct {
	// HTTP does the calls, with the caller's guard of addresses. Required for TransportHTTP.
	HTTP *http.Client
	// Stdio are the commands that the operator allows, whole: whoever could choose an argument could run anything.
	Stdio [][]string
	// Timeout bounds a call, and a connection's making (30 s).
	Timeout time.Duration
	// MaxBytes bounds a result (256 KiB).
	MaxBytes int64
	Log      *slog.Logger
}

// ErrServer is why a server cannot be registered. ErrTool is why a call gave no result; its text is for the model and
// the hook's owner, and has no address or header in it. ErrAddress, beside it, is of a server whose address may not be
// called: it will not be there later.
var (
	ErrServer  = errors.New("mcp: no such server can be registered")
	ErrTool    = errors.New("tool")
	ErrAddress = errors.New("the server's address is refused")
)

func toolError(format string, a ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrTool}, a...)...)
}

// Servers are the registered ones. Safe for concurrent use.
type Servers struct {
	options Options
	mu      sync.Mutex
	keepers map[prompting.ServerRef]*keeper
	closed  bool
}

// New makes an empty set, to be closed.
func New(o Options) *Servers {
	if o.Timeout <= 0 {
		o.Timeout = 30 * time.Second
	}
	if o.MaxBytes <= 0 {
		o.MaxBytes = 256 << 10
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return &Servers{options: o, keepers: map[prompting.ServerRef]*keeper{}}
}

// Put registers a server, or puts it in the place of one with the same Ref, and begins to connect. It does not wait.
// The error is ErrServer.
func (s *Servers) Put(server Server) error {
	if err := s.options.check(server); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return fmt.Errorf("%w: closed", ErrServer)
	}
	old := s.keepers[server.Ref]
	s.keepers[server.Ref] = keep(server, &s.options, old)
	return nil
}

func (o *Options) check(server Server) error {
	switch server.Transport {
	case TransportHTTP:
		u, err := url.Parse(server.URL)
		if o.HTTP == nil || err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil {
			return fmt.Errorf("%w: the URL is not like https://host/path", ErrServer)
		}
	case TransportStdio:
		if !slices.ContainsFunc(o.Stdio, func(allowed []string) bool { return slices.Equal(allowed, server.Command) }) {
			return fmt.Errorf("%w: the operator does not allow this command", ErrServer)
		}
	default:
		return fmt.Errorf("%w: the transport is unknown", ErrServer)
	}
	return nil
}

// Remove forgets a server and ends its connection; one that is not registered is no error.
func (s *Servers) Remove(ref prompting.ServerRef) {
	s.mu.Lock()
	k := s.keepers[ref]
	delete(s.keepers, ref)
	s.mu.Unlock()
	if k != nil {
		k.stop()
	}
}

// Close ends all connections and waits for it.
func (s *Servers) Close() {
	s.mu.Lock()
	s.closed = true
	all := s.keepers
	s.keepers = map[prompting.ServerRef]*keeper{}
	s.mu.Unlock()
	for _, k := range all {
		k.cancel()
	}
	for _, k := range all {
		k.stop()
	}
}

// Tools gives what a server offers, sorted by name, at most a minute old. The error is ErrTool.
func (s *Servers) Tools(ctx context.Context, ref prompting.ServerRef) ([]prompting.Tool, error) {
	ctx, cancel := context.WithTimeout(ctx, s.options.Timeout)
	defer cancel()
	k, err := s.keeper(ref)
	if err != nil {
		return nil, err
	}
	return k.tools(ctx)
}

// Call calls a tool with arguments, a JSON object, which must fulfil its schema. The result is JSON: what the tool gives
// as structured content, or its text as a string. The error is ErrTool. A call is repeated once, on a new session, only
// when the server had not taken it; one whose answer was lost may have been carried out.
func (s *Servers) Call(ctx context.Context, ref prompting.ServerRef, tool string, arguments json.RawMessage) (json.RawMessage, error) {
	ctx, cancel := context.WithTimeout(ctx, s.options.Timeout)
	defer cancel()
	k, err := s.keeper(ref)
	if err != nil {
		return nil, err
	}
	out, again, err := k.call(ctx, tool, arguments)
	if again {
		out, _, err = k.call(ctx, tool, arguments)
	}
	return out, err
}

func (s *Servers) keeper(ref prompting.ServerRef) (*keeper, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if k := s.keepers[ref]; k != nil {
		return k, nil
	}
	return nil, toolError("the server is not registered")
}
