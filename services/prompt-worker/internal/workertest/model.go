package workertest

import (
	"context"
	"sync"

	"github.com/sametick/sametick/services/prompt-worker/internal/hooks"
	"github.com/sametick/sametick/services/prompt-worker/internal/prompting"
)

// Model is scripted: it answers what Answer says, and remembers what it was asked. It is runs.Models too: each hook's.
type Model struct {
	// Answer may wait; nil answers "ok".
	Answer func(ctx context.Context, r prompting.Request) (prompting.Response, error)

	mu    sync.Mutex
	asked []prompting.Request
}

// Complete implements prompting.Model.
func (m *Model) Complete(ctx context.Context, r prompting.Request) (prompting.Response, error) {
	m.mu.Lock()
	m.asked = append(m.asked, r)
	m.mu.Unlock()
	if m.Answer != nil {
		return m.Answer(ctx, r)
	}
	return prompting.Response{Text: "ok", Usage: prompting.Usage{Input: 10, Output: 5}}, nil
}

// Model implements runs.Models.
func (m *Model) Model(context.Context, *hooks.Setup) (prompting.Model, error) { return m, nil }

// Asked gives the requests so far.
func (m *Model) Asked() []prompting.Request {
	m.mu.Lock()
	defer m.mu.Unlock()
	return append([]prompting.Request(nil), m.asked...)
}
