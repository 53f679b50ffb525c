package mcp

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptrace"
	"os/exec"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/modelcontextprotocol/go-sdk/jsonrpc"
	sdk "github.com/modelcontextprotocol/go-sdk/mcp"

	"github.com/sametick/sametick/pkg/netguard"
)

// overhead of a message is what may come with a result of the greatest size; JSON in JSON doubles its quotes.
func (o *Options) maxMessage() int64 { return 2*o.MaxBytes + 1<<20 }

// transport is the way to a server; end gives up what it holds before there is a session.
func (o *Options) transport(s Server) (t sdk.Transport, end func(), err error) {
	if s.Transport == TransportStdio {
		return o.start(s.Command)
	}
	client := *o.HTTP
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	client.Transport = guarded{next: o.HTTP.Transport, headers: s.Headers, max: o.maxMessage()}
	// Only answers are wanted: without the standing stream no connection is held, and nothing comes unasked.
	return &sdk.StreamableClientTransport{
		Endpoint: s.URL, HTTPClient: &client, MaxRetries: -1, DisableStandaloneSSE: true, MaxEventSize: int(o.maxMessage()),
	}, func() {}, nil
}

// exchange is what happened to one call's request.
type exchange struct {
	status   atomic.Int64
	dialled  atomic.Bool
	asked    atomic.Bool
	tooLarge atomic.Bool
	// address is why the address may not be called; nil when it may.
	address atomic.Pointer[netguard.Refused]
	// broken: the connection failed, whatever the SDK makes of it.
	broken atomic.Bool
}

func (e *exchange) refused() bool { return statusRefused(int(e.status.Load())) }

// unsent: there was no connection to write to.
func (e *exchange) unsent() bool { return e.asked.Load() && !e.dialled.Load() }

type exchangeKey struct{}

func within(ctx context.Context, e *exchange) context.Context {
	return context.WithValue(ctx, exchangeKey{}, e)
}

// guarded adds a server's headers, bounds what it answers and notes what became of a call.
type guarded struct {
	next    http.RoundTripper
	headers map[string]string
	max     int64
}

// RoundTrip implements http.RoundTripper.
func (g guarded) RoundTrip(r *http.Request) (*http.Response, error) {
	seen, ok := r.Context().Value(exchangeKey{}).(*exchange)
	if !ok {
		seen = &exchange{}
	}
	seen.asked.Store(true)
	trace := &httptrace.ClientTrace{GotConn: func(httptrace.GotConnInfo) { seen.dialled.Store(true) }}
	r = r.Clone(httptrace.WithClientTrace(r.Context(), trace))
	for name, value := range g.headers {
		r.Header.Set(name, value)
	}
	next := g.next
	if next == nil {
		next = http.DefaultTransport
	}
	resp, err := next.RoundTrip(r)
	if err != nil {
		seen.broken.Store(true)
		var refused *netguard.Refused
		if errors.As(err, &refused) {
			seen.address.Store(refused)
		}
		return nil, err
	}
	seen.status.Store(int64(resp.StatusCode))
	resp.Body = &body{http.MaxBytesReader(nil, resp.Body, g.max), seen}
	return resp, nil
}

type body struct {
	io.ReadCloser
	seen *exchange
}

func (b *body) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &large):
		b.seen.tooLarge.Store(true)
	case err != nil && !errors.Is(err, io.EOF):
		b.seen.broken.Store(true)
	}
	return n, err
}

// answered tells an error that the server sent from one of the connection, for which the SDK uses the same type.
func (e *exchange) answered(err error) bool {
	var wire *jsonrpc.Error
	return errors.As(err, &wire) && !e.refused() && !e.broken.Load()
}

// said is the server's own message, without what the SDK adds.
func said(err error) string {
	var wire *jsonrpc.Error
	if errors.As(err, &wire) {
		return clean(wire.Message)
	}
	return "no reason given"
}

// patience is how long a program may take to end by itself once its input has ended.
const patience = time.Second

// process is a server that runs as a program of its own, in an empty environment.
type process struct {
	io.Reader
	io.WriteCloser
	command *exec.Cmd
	once    sync.Once
	exited  chan struct{}
}

func (o *Options) start(command []string) (t sdk.Transport, end func(), err error) {
	if len(command) == 0 || !filepath.IsAbs(command[0]) {
		return nil, nil, errors.New("the command is not a whole path")
	}
	cmd := exec.Command(command[0], command[1:]...) //nolint:noctx // it lives as long as its session, which Close ends
	// Not nil: that would hand on our own, with the keys in it.
	cmd.Env, cmd.Dir = []string{}, "/"
	// A group, so that what it starts ends with it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, nil, err
	}
	p := &process{Reader: out, WriteCloser: in, command: cmd, exited: make(chan struct{})}
	return &sdk.IOTransport{Reader: p, Writer: p, MaxLineLength: int(o.maxMessage())}, func() { _ = p.Close() }, nil
}

// Close ends the program: by the end of its input, else by force. It waits for it.
func (p *process) Close() error {
	p.once.Do(func() {
		defer close(p.exited)
		_ = p.WriteCloser.Close() // it may have ended before
		kill := time.AfterFunc(patience, p.kill)
		_ = p.command.Wait() // how it ended is no matter
		kill.Stop()
		p.kill() // what it left behind
	})
	<-p.exited
	return nil
}

func (p *process) kill() { _ = syscall.Kill(-p.command.Process.Pid, syscall.SIGKILL) }
