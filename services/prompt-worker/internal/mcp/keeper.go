package mcp

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	sdk "github.com/modelcontextprotocol/go-sdk/mcp"

	"github.com/sametick/sametick/pkg/backoff"
	"github.com/sametick/sametick/services/prompt-worker/internal/prompting"
)

const (
	// fresh is how old a list of tools may be.
	fresh = time.Minute
	// brief: a session that ends sooner, without having served a call, counts as a failure to connect.
	brief = time.Second
	// pingTimeout: a server that does not answer a ping after a call had no answer is given up.
	pingTimeout = 5 * time.Second
)

// keeper owns the connection to one server.
type keeper struct {
	server  Server
	options *Options
	cancel  context.CancelFunc
	done    chan struct{}
	// lost are sessions that a call found gone, doubted ones whose call had no answer in time.
	lost, doubted chan *session

	mu      sync.Mutex
	session *session
	// failed is why there is none while the server is down; nil while the first attempt, or the first after a loss, goes on.
	failed error
	// changed is closed when session or failed change.
	changed chan struct{}
}

// session is a connection that works, as far as is known.
type session struct {
	conn   *sdk.ClientSession
	served atomic.Bool

	mu     sync.Mutex
	tools  map[string]*tool
	listed time.Time
}

// keep starts a keeper once its predecessor has ended.
func keep(server Server, o *Options, old *keeper) *keeper {
	ctx, cancel := context.WithCancel(context.Background())
	k := &keeper{
		server: server, options: o, cancel: cancel, done: make(chan struct{}),
		lost: make(chan *session, 1), doubted: make(chan *session, 1), changed: make(chan struct{}),
	}
	go func() {
		defer close(k.done)
		if old != nil {
			old.stop()
		}
		k.run(ctx)
	}()
	return k
}

func (k *keeper) stop() {
	k.cancel()
	<-k.done
}

func (k *keeper) run(ctx context.Context) {
	pause := backoff.Policy{Base: 250 * time.Millisecond, Cap: time.Minute}
	for failures := 0; ctx.Err() == nil; {
		began := time.Now()
		s, err := k.connect(ctx)
		if err == nil {
			k.publish(s, nil)
			k.watch(ctx, s)
			if time.Since(began) > brief || s.served.Load() {
				failures = 0
				k.publish(nil, nil)
				continue
			}
			// At once, but once only: callers wait for the new session, not for a server that drops each.
			if failures++; failures == 1 {
				k.publish(nil, nil)
				continue
			}
			err = toolError("the server ends each session")
		} else {
			failures++
			k.options.Log.WarnContext(ctx, "mcp server cannot be reached", "org_id", k.server.Ref.OrgID, "server_id", k.server.Ref.ID, "error", err)
			if !errors.Is(err, ErrAddress) {
				err = toolError("the server cannot be reached")
			}
		}
		k.publish(nil, err)
		timer := time.NewTimer(pause.Next(failures))
		select {
		case <-ctx.Done():
			timer.Stop()
		case <-timer.C:
		}
	}
	k.publish(nil, toolError("the server is not registered"))
}

func (k *keeper) publish(s *session, failed error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.session, k.failed = s, failed
	close(k.changed)
	k.changed = make(chan struct{})
}

// current gives the session, or waits for the one that is being made.
func (k *keeper) current(ctx context.Context) (*session, error) {
	for {
		k.mu.Lock()
		s, failed, changed := k.session, k.failed, k.changed
		k.mu.Unlock()
		if s != nil || failed != nil {
			return s, failed
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, toolError("the server is not connected yet")
		}
	}
}

func (k *keeper) connect(ctx context.Context) (*session, error) {
	ctx, cancel := context.WithTimeout(ctx, k.options.Timeout)
	defer cancel()
	// No capabilities: a server may not ask our models, our users or our files for anything.
	client := sdk.NewClient(&sdk.Implementation{Name: "sametick", Version: "1"}, &sdk.ClientOptions{Capabilities: &sdk.ClientCapabilities{}})
	transport, end, err := k.options.transport(k.server)
	if err != nil {
		return nil, err
	}
	seen := &exchange{}
	conn, err := client.Connect(within(ctx, seen), transport, nil)
	if err != nil {
		end()
		if refused := seen.address.Load(); refused != nil {
			err = fmt.Errorf("%w: %w: %s", ErrTool, ErrAddress, refused.Reason)
		}
		return nil, err
	}
	s := &session{conn: conn}
	if err := s.list(ctx); err != nil {
		_ = conn.Close() // it is given up
		return nil, err
	}
	return s, nil
}

// watch waits until a session is of no use, and ends it.
func (k *keeper) watch(ctx context.Context, s *session) {
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = s.conn.Wait() // why it ended is no matter
	}()
	defer func() {
		_ = s.conn.Close() // as above
		<-ended
	}()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ended:
			return
		case lost := <-k.lost:
			if lost == s {
				return
			}
		case doubted := <-k.doubted:
			if doubted == s && !s.alive(ctx) {
				return
			}
		}
	}
}

func (s *session) alive(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, pingTimeout)
	defer cancel()
	return s.conn.Ping(ctx, nil) == nil
}

// report tells the keeper of a session; one report is enough.
func report(to chan *session, s *session) {
	select {
	case to <- s:
	default:
	}
}

// abandon makes callers wait for a new session at once.
func (k *keeper) abandon(s *session) {
	k.mu.Lock()
	if k.session == s {
		k.session = nil
		close(k.changed)
		k.changed = make(chan struct{})
	}
	k.mu.Unlock()
	report(k.lost, s)
}

// call calls a tool once. Again is true when the server did not take the call.
func (k *keeper) call(ctx context.Context, name string, arguments json.RawMessage) (out json.RawMessage, again bool, err error) {
	s, err := k.current(ctx)
	if err != nil {
		return nil, false, err
	}
	t := s.tool(name)
	if t == nil {
		return nil, false, toolError("there is no such tool")
	}
	if err := t.check(arguments); err != nil {
		return nil, false, err
	}
	seen := &exchange{}
	got, err := s.conn.CallTool(within(ctx, seen), &sdk.CallToolParams{Name: name, Arguments: arguments})
	if err != nil {
		again, err := k.lostOrNot(ctx, s, seen, err)
		return nil, again, err
	}
	s.served.Store(true)
	out, err = result(got, k.options.MaxBytes)
	return out, false, err
}

// lostOrNot says what a failed request means for its session, and whether it may be repeated.
func (k *keeper) lostOrNot(ctx context.Context, s *session, seen *exchange, err error) (again bool, _ error) {
	switch {
	case seen.tooLarge.Load():
		k.abandon(s)
		return false, toolError("the result is too large")
	case ctx.Err() != nil:
		report(k.doubted, s)
		return false, toolError("no answer in time")
	case seen.answered(err):
		return false, toolError("the server refuses the call: %s", said(err))
	default:
		k.abandon(s)
		return seen.refused() || seen.unsent() || errors.Is(err, sdk.ErrSessionMissing), toolError("the connection to the server was lost")
	}
}

func (k *keeper) tools(ctx context.Context) ([]prompting.Tool, error) {
	for attempt := 0; ; attempt++ {
		s, err := k.current(ctx)
		if err != nil {
			return nil, err
		}
		seen := &exchange{}
		if err = s.refresh(within(ctx, seen)); err == nil {
			return s.offers(), nil
		}
		if again, err := k.lostOrNot(ctx, s, seen, err); !again || attempt > 0 {
			return nil, err
		}
	}
}

func (s *session) refresh(ctx context.Context) error {
	s.mu.Lock()
	recent := time.Since(s.listed) < fresh
	s.mu.Unlock()
	if recent {
		return nil
	}
	return s.list(ctx)
}

func (s *session) tool(name string) *tool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.tools[name]
}

func (s *session) offers() (out []prompting.Tool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, t := range s.tools {
		out = append(out, t.Tool)
	}
	slices.SortFunc(out, func(a, b prompting.Tool) int { return strings.Compare(a.Name, b.Name) })
	return out
}

// list asks for all tools.
func (s *session) list(ctx context.Context) error {
	tools := map[string]*tool{}
	seen, size := 0, 0
	for t, err := range s.conn.Tools(ctx, nil) {
		if err != nil {
			return err
		}
		if seen++; seen > maxTools {
			break
		}
		if own := newTool(t); own != nil {
			if size += len(own.Schema) + len(own.Description); size > maxOffer {
				break
			}
			tools[own.Name] = own
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tools, s.listed = tools, time.Now()
	return nil
}

// statusRefused are the answers to a session that a server does not know: 404 says so (the specification), 400 is what
// its reference server answers, 410 others.
func statusRefused(status int) bool {
	return status == http.StatusNotFound || status == http.StatusBadRequest || status == http.StatusGone
}
