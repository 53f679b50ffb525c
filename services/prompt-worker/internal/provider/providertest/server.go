// Package providertest is a language model for tests: an HTTP server that speaks OpenAI's chat completions and
// Anthropic's messages as they are documented, checks what it is sent as strictly as they do, and answers, fails and
// misbehaves by a script. It has no model and no judgement.
package providertest

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"sync"
	"testing"
	"time"
)

// Asked is a request, whatever protocol it came by.
type Asked struct {
	// Protocol is "openai" or "anthropic".
	Protocol      string
	Model, System string
	Turns         []Turn
	// Schema is nil where none was sent.
	Schema      json.RawMessage
	Tools       []string
	MaxTokens   int64
	Temperature *float64
	// Body is the request as it came.
	Body json.RawMessage
}

// Turn is a message, or one result of a tool.
type Turn struct {
	Role, Text, CallID string
	Calls              []Call
}

// Call is the model's wish to call a tool.
type Call struct{ ID, Name, Arguments string }

// Reply is what the server does with a request. The zero Reply answers nothing in a valid form.
type Reply struct {
	Text  string
	Calls []Call
	// Thought is hidden thinking that comes before (Anthropic), to be given back as it was.
	Thought string
	Refusal string
	// Stop is why the answer ends, in the protocol's own word; empty for what fits.
	Stop string
	// Input, Cached and Output are counted as the protocol counts; all 0 leaves the usage out.
	Input, Cached, Output int64
	// NoChoices leaves the answer itself out.
	NoChoices bool

	// Status of 400 and more is an error with these words.
	Status              int
	Type, Code, Message string
	Header              map[string]string
	// Raw is sent instead of all this, as text/html.
	Raw []byte

	// Delay is before the first byte; it ends with the request. Hang is endless.
	Delay time.Duration
	Hang  bool
	// Cut ends the connection in the middle of the body, Drop before any answer.
	Cut, Drop bool
}

// Script says what the n-th request, from 0, gets. It is called by one request at a time.
type Script func(n int, a Asked) Reply

// Sequence answers one after the other; the last one is repeated.
func Sequence(replies ...Reply) Script {
	return func(n int, _ Asked) Reply { return replies[min(n, len(replies)-1)] }
}

// Server is the model. Its base URL is URL+"/v1" for OpenAI's protocol and URL for Anthropic's.
type Server struct {
	*httptest.Server
	// Key, when it is set, must come with each request.
	Key string

	mu     sync.Mutex
	script Script
	asked  []Asked
}

// New starts a server that ends with the test.
func New(t testing.TB, script Script) *Server {
	t.Helper()
	s := &Server{script: script}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/chat/completions", s.handle(openAI{}))
	mux.HandleFunc("POST /v1/messages", s.handle(anthropic{}))
	s.Server = httptest.NewServer(mux)
	t.Cleanup(s.Close)
	return s
}

// Asked gives the requests so far, with those that were refused as invalid.
func (s *Server) Asked() []Asked {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]Asked(nil), s.asked...)
}

// protocol is one of both.
type protocol interface {
	// read gives the request, and why the real one would answer 400; empty for no reason.
	read(r *http.Request, body []byte) (Asked, string)
	key(r *http.Request) string
	answer(a Asked, r Reply) any
	failure(r Reply) any
}

func (s *Server) handle(p protocol) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return // the client has gone
		}
		asked, wrong := p.read(r, body)
		reply := s.next(asked)
		switch {
		case s.Key != "" && p.key(r) != s.Key:
			// OpenAI repeats what it was sent.
			reply = Reply{Status: http.StatusUnauthorized, Type: "invalid_request_error", Code: "invalid_api_key", Message: "Incorrect API key provided: " + p.key(r)}
		case wrong != "":
			reply = Reply{Status: http.StatusBadRequest, Type: "invalid_request_error", Message: wrong}
		}
		s.send(w, r, p, asked, reply)
	}
}

func (s *Server) next(a Asked) Reply {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked = append(s.asked, a)
	return s.script(len(s.asked)-1, a)
}

func (s *Server) send(w http.ResponseWriter, r *http.Request, p protocol, a Asked, reply Reply) {
	if !wait(r, reply) || reply.Drop {
		panic(http.ErrAbortHandler)
	}
	for name, value := range reply.Header {
		w.Header().Set(name, value)
	}
	body, kind := reply.Raw, "text/html"
	if body == nil {
		kind = "application/json"
		var form any
		if reply.Status >= http.StatusBadRequest {
			form = p.failure(reply)
		} else {
			form = p.answer(a, reply)
		}
		body, _ = json.Marshal(form) // maps of plain values
	}
	w.Header().Set("Content-Type", kind)
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(max(reply.Status, http.StatusOK))
	if reply.Cut {
		_, _ = w.Write(body[:len(body)/2])
		_ = http.NewResponseController(w).Flush() // or nothing at all would arrive
		panic(http.ErrAbortHandler)
	}
	_, _ = w.Write(body) // a client that has gone is no fault
}

// wait is false when the client went away first.
func wait(r *http.Request, reply Reply) bool {
	var passed <-chan time.Time
	switch {
	case reply.Hang:
	case reply.Delay > 0:
		timer := time.NewTimer(reply.Delay)
		defer timer.Stop()
		passed = timer.C
	default:
		return true
	}
	select {
	case <-r.Context().Done():
		return false
	case <-passed:
		return true
	}
}
