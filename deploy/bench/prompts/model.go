package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// model answers every chat completion at once with the same words, or, while it stands still, none.
type model struct {
	url    string
	server *http.Server
	served sync.WaitGroup
	taken  atomic.Int64

	mu    sync.Mutex
	still chan struct{} // closed when it goes on; nil when it does not stand still
}

// completion is the whole answer.
const completion = `{"id":"chatcmpl-1","object":"chat.completion","created":1700000000,"model":"instant","choices":[{"index":0,` +
	`"message":{"role":"assistant","content":"Quarterly review has been created."},"finish_reason":"stop"}],` +
	`"usage":{"prompt_tokens":40,"completion_tokens":8,"total_tokens":48}}`

func listen(ctx context.Context) (*model, error) {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("listen for chat completions: %w", err)
	}
	m := &model{url: "http://" + listener.Addr().String() + "/v1"}
	m.server = &http.Server{Handler: m, ReadHeaderTimeout: 30 * time.Second}
	m.served.Go(func() { _ = m.server.Serve(listener) }) // ends when close closes it
	return m, nil
}

func (m *model) close() error {
	m.goOn()
	err := m.server.Close()
	m.served.Wait()
	return err
}

// stand makes it answer nobody until goOn.
func (m *model) stand() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.still == nil {
		m.still = make(chan struct{})
	}
}

func (m *model) goOn() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.still != nil {
		close(m.still)
		m.still = nil
	}
}

// ServeHTTP is POST /v1/chat/completions.
func (m *model) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if _, err := io.Copy(io.Discard, r.Body); err != nil {
		return
	}
	m.mu.Lock()
	still := m.still
	m.mu.Unlock()
	if still != nil {
		select {
		case <-still:
		case <-r.Context().Done():
			return
		}
	}
	m.taken.Add(1)
	w.Header().Set("Content-Type", "application/json")
	_, _ = io.WriteString(w, completion) // a client that has gone is no fault
}
