// Package models makes of an organisation's stored providers what can be asked: their keys opened, their addresses
// guarded, their calls within limits and traced. How a provider is spoken to is package provider's matter.
package models

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"time"

	"go.opentelemetry.io/otel/trace"

	"github.com/sametick/sametick/pkg/keyring"
	"github.com/sametick/sametick/pkg/netguard"
	"github.com/sametick/sametick/services/prompt-worker/internal/hooks"
	"github.com/sametick/sametick/services/prompt-worker/internal/limit"
	"github.com/sametick/sametick/services/prompt-worker/internal/prompting"
	"github.com/sametick/sametick/services/prompt-worker/internal/provider"
	"github.com/sametick/sametick/services/prompt-worker/internal/runs"
)

// Models implements runs.Models. Safe for concurrent use.
type Models struct {
	ring    *keyring.Ring
	guard   *netguard.Guard
	limiter *limit.Limiter
	tracer  trace.Tracer
	http    *http.Client

	mu    sync.Mutex
	known map[client]provider.Model
}

// client is a provider as of a version of it.
type client struct{ org, id, version int64 }

// maxKnown bounds the clients that are remembered; when they are more it begins again empty.
const maxKnown = 2000

// New makes it. Close ends idle connections.
func New(ring *keyring.Ring, guard *netguard.Guard, limiter *limit.Limiter, tracer trace.TracerProvider) *Models {
	return &Models{
		ring: ring, guard: guard, limiter: limiter, tracer: tracer.Tracer("prompt-worker"), known: map[client]provider.Model{},
		http: &http.Client{
			Transport: &http.Transport{
				DialContext: guard.DialContext, TLSHandshakeTimeout: 10 * time.Second, ForceAttemptHTTP2: true,
				MaxIdleConnsPerHost: 64, IdleConnTimeout: 30 * time.Second, // the address check recurs
			},
			// A redirect could lead the key elsewhere.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}
}

// Close ends the idle connections.
func (m *Models) Close() { m.http.CloseIdleConnections() }

// Model implements runs.Models.
func (m *Models) Model(_ context.Context, s *hooks.Setup) (prompting.Model, error) {
	caller := limit.Caller{Limiter: m.limiter, OrgID: s.OrgID, Class: limit.Async}
	if s.Mode == hooks.ModeReview {
		caller.Class = limit.Review
	}
	var failed error = &prompting.ModelError{Cause: prompting.CauseUnavailable, Text: "the hook's providers are archived"}
	for i := range s.Providers {
		p := &s.Providers[i]
		model, err := m.client(p)
		if err != nil {
			failed = err
			continue
		}
		name := runs.ModelOf(&s.Hook, p)
		caller.Candidates = append(caller.Candidates, limit.Candidate{
			Key: limit.Key{ProviderID: p.ID, Model: name, Version: p.Version}, Most: p.Concurrency, Model: traced{model, m.tracer, p.Kind}})
	}
	if len(caller.Candidates) == 0 {
		return nil, failed
	}
	return caller, nil
}

func (m *Models) client(p *hooks.Provider) (provider.Model, error) {
	key := client{p.OrgID, p.ID, p.Version}
	m.mu.Lock()
	defer m.mu.Unlock()
	if known := m.known[key]; known != nil {
		return known, nil
	}
	made, err := m.make(p)
	if err != nil {
		return nil, err
	}
	if len(m.known) >= maxKnown {
		clear(m.known)
	}
	m.known[key] = made
	return made, nil
}

func (m *Models) make(p *hooks.Provider) (provider.Model, error) {
	c := provider.Config{Kind: p.Kind, BaseURL: p.BaseURL, HTTP: m.http}
	if p.BaseURL != "" {
		url, err := m.guard.CheckURL(p.BaseURL)
		var refused *netguard.Refused
		if errors.As(err, &refused) {
			return nil, &prompting.ModelError{Cause: prompting.CauseBadRequest, Text: "the provider's address is " + refused.Error()}
		}
		c.BaseURL = url
	}
	if p.KeySealed != nil {
		secret, err := m.ring.Open(keyring.Owner{OrgID: p.OrgID, ID: p.ID, Purpose: hooks.PurposeProviderKey}, p.KeySealed)
		if err != nil {
			return nil, &prompting.ModelError{Cause: prompting.CauseUnauthorized, Text: "the provider's key cannot be opened"}
		}
		c.Key = string(secret)
	}
	made, err := provider.New(c)
	if err != nil {
		return nil, &prompting.ModelError{Cause: prompting.CauseBadRequest, Text: err.Error()}
	}
	return made, nil
}
