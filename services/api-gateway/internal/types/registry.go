package types

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/sametick/sametick/pkg/errs"
	"github.com/sametick/sametick/pkg/event"
	"github.com/sametick/sametick/services/api-gateway/internal/records"
	"github.com/sametick/sametick/services/api-gateway/internal/schema"
)

// cacheTTL is how long another replica's change of a type may go unseen here. A schema only ever takes more, so
// an old one refuses for that long what is allowed now, and never takes what is not. Of an archived type records are
// still made for that long.
const cacheTTL = 10 * time.Second

// maxCached bounds the cache; when it is full it starts again empty.
const maxCached = 10_000

// Registry tells the schema of a type, without a query on the hot path. It implements records.Types. Safe for
// concurrent use.
type Registry struct {
	store   Store
	builtin map[string]*schema.Schema

	mu    sync.Mutex
	known map[key]cached
	// cleared counts Clear: an answer that was on its way at that moment is not kept.
	cleared int
}

type key struct {
	org  int64
	name string
}

type cached struct {
	found records.Found
	until time.Time
}

// NewRegistry compiles the built-in schemas.
func NewRegistry(s Store) (*Registry, error) {
	builtin, err := schema.Builtin()
	if err != nil {
		return nil, err
	}
	return &Registry{store: s, builtin: builtin, known: map[key]cached{}}, nil
}

// own gives a built-in type.
func (r *Registry) own(name string) (Type, bool) {
	s, ok := r.builtin[name]
	if !ok {
		return Type{}, false
	}
	return Type{Name: name, Schema: s.Text(), Version: 1, Builtin: true}, true
}

// Find implements records.Types.
func (r *Registry) Find(ctx context.Context, orgID int64, name string) (records.Found, error) {
	if s, ok := r.builtin[name]; ok {
		return records.Found{Schema: s}, nil
	}
	if !event.IsWord(name) {
		return records.Found{}, nil
	}
	k := key{orgID, name}
	r.mu.Lock()
	c, ok := r.known[k]
	cleared := r.cleared
	r.mu.Unlock()
	if ok && time.Now().Before(c.until) {
		return c.found, nil
	}
	t, err := r.store.FindType(ctx, orgID, name)
	if errs.KindOf(err) == errs.NotFound {
		return records.Found{}, nil // not kept: it may be made at any moment
	}
	if err != nil {
		return records.Found{}, err
	}
	compiled, faults := schema.Compile(t.Schema)
	if len(faults) > 0 {
		return records.Found{}, errs.New(errs.Internal, "INTERNAL", "internal error").WithCause(fmt.Errorf("stored schema of %s: %v", name, faults))
	}
	found := records.Found{Schema: compiled, Archived: t.ArchivedAt != nil}
	r.mu.Lock()
	defer r.mu.Unlock()
	if cleared != r.cleared {
		return found, nil
	}
	if len(r.known) >= maxCached {
		clear(r.known)
	}
	r.known[k] = cached{found, time.Now().Add(cacheTTL)}
	return found, nil
}

// Existing implements records.Types.
func (r *Registry) Existing(ctx context.Context, orgID int64, refs []schema.Ref) ([]bool, error) {
	return r.store.Existing(ctx, orgID, refs)
}

// Clear forgets all types: whenever one has changed here. That is rare, and asking again costs a query a type.
func (r *Registry) Clear() {
	r.mu.Lock()
	defer r.mu.Unlock()
	clear(r.known)
	r.cleared++
}
