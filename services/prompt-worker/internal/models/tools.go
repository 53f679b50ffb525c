package models

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/sametick/sametick/pkg/keyring"
	"github.com/sametick/sametick/pkg/netguard"
	"github.com/sametick/sametick/services/prompt-worker/internal/hooks"
	"github.com/sametick/sametick/services/prompt-worker/internal/mcp"
	"github.com/sametick/sametick/services/prompt-worker/internal/prompting"
)

// idleServer is when a server that no run has used is let go.
const idleServer = 10 * time.Minute

// Tools implements runs.Tools over the MCP servers of organisations. Safe for concurrent use.
type Tools struct {
	*mcp.Servers
	ring  *keyring.Ring
	guard *netguard.Guard

	mu    sync.Mutex
	used  map[prompting.ServerRef]time.Time
	sweep time.Time
}

// NewTools makes it, to be closed. stdio are the commands that the operator allows, whole.
func NewTools(ring *keyring.Ring, guard *netguard.Guard, client *http.Client, stdio [][]string, log *slog.Logger) *Tools {
	return &Tools{Servers: mcp.New(mcp.Options{HTTP: client, Stdio: stdio, Log: log}), ring: ring, guard: guard, used: map[prompting.ServerRef]time.Time{}}
}

// HTTP is the client that models are asked by: tool servers are reached the same way.
func (m *Models) HTTP() *http.Client { return m.http }

// Granted implements runs.Tools. A server that is not connected yet is waited for, and so is not for reviews to find first:
// it stays connected while hooks use it.
func (t *Tools) Granted(ctx context.Context, s *hooks.Setup) (out []prompting.Granted, err error) {
	for _, grant := range s.Tools {
		i := slices.IndexFunc(s.Servers, func(m hooks.Server) bool { return m.ID == grant.ServerID })
		if i < 0 {
			return nil, &prompting.ModelError{Cause: prompting.CauseTool, Text: "a tool server of the hook is archived"}
		}
		ref := prompting.ServerRef{OrgID: s.OrgID, ID: grant.ServerID}
		if err := t.connect(ref, &s.Servers[i]); err != nil {
			return nil, err
		}
		offered, err := t.Servers.Tools(ctx, ref)
		if errors.Is(err, mcp.ErrAddress) {
			return nil, &prompting.ModelError{Cause: prompting.CauseTool, Text: err.Error()}
		}
		if err != nil { // it may be there later
			return nil, &prompting.ModelError{Cause: prompting.CauseUnavailable, Text: err.Error()}
		}
		for _, name := range grant.Tools {
			k := slices.IndexFunc(offered, func(tool prompting.Tool) bool { return tool.Name == name })
			if k < 0 {
				return nil, &prompting.ModelError{Cause: prompting.CauseTool, Text: "a tool server does not offer " + prompting.Clean(name, 100)}
			}
			out = append(out, prompting.Granted{Server: ref, Tool: offered[k]})
		}
	}
	return out, nil
}

// Offered gives what a server offers, registering it if need be.
func (t *Tools) Offered(ctx context.Context, m *hooks.Server) ([]prompting.Tool, error) {
	ref := prompting.ServerRef{OrgID: m.OrgID, ID: m.ID}
	if err := t.connect(ref, m); err != nil {
		return nil, err
	}
	return t.Servers.Tools(ctx, ref)
}

// connect registers a server that is not, and lets go of those that nobody uses.
func (t *Tools) connect(ref prompting.ServerRef, m *hooks.Server) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := time.Now()
	if now.After(t.sweep) {
		t.sweep = now.Add(idleServer)
		for old, at := range t.used {
			if now.Sub(at) > idleServer {
				delete(t.used, old)
				t.Remove(old)
			}
		}
	}
	_, known := t.used[ref]
	t.used[ref] = now
	if known { // servers do not change
		return nil
	}
	server := mcp.Server{Ref: ref, Transport: m.Transport, Command: m.Command}
	if err := t.open(m, &server); err != nil {
		delete(t.used, ref)
		return err
	}
	if err := t.Put(server); err != nil {
		delete(t.used, ref)
		return &prompting.ModelError{Cause: prompting.CauseTool, Text: err.Error()}
	}
	return nil
}

// open fills in where an HTTP server is and what it wants to be sent.
func (t *Tools) open(m *hooks.Server, into *mcp.Server) error {
	if m.Transport != mcp.TransportHTTP {
		return nil
	}
	url, err := t.guard.CheckURL(m.URL)
	var refused *netguard.Refused
	if errors.As(err, &refused) {
		return &prompting.ModelError{Cause: prompting.CauseTool, Text: "the tool server's address is " + refused.Error()}
	}
	into.URL = url
	if m.HeadersSealed == nil {
		return nil
	}
	secret, err := t.ring.Open(keyring.Owner{OrgID: m.OrgID, ID: m.ID, Purpose: hooks.PurposeServerHeaders}, m.HeadersSealed)
	if err != nil || json.Unmarshal(secret, &into.Headers) != nil {
		return &prompting.ModelError{Cause: prompting.CauseTool, Text: "the tool server's headers cannot be opened"}
	}
	return nil
}
