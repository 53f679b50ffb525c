package review

import (
	"context"
	"sync"
)

// Finder reads an organisation's hooks.
type Finder interface {
	FindReviewSet(ctx context.Context, orgID int64) (Set, error)
}

// maxSets bounds the memory of sets; when it is full it starts again empty.
const maxSets = 10_000

// sets remembers what Finder said, without end: the database refuses a write by a set that is no longer the one,
// so a stale one is found out when it matters. Safe for concurrent use.
type sets struct {
	finder Finder

	mu    sync.RWMutex
	known map[int64]*Set
}

func (s *sets) find(ctx context.Context, orgID int64, fresh bool) (*Set, error) {
	if !fresh {
		s.mu.RLock()
		known := s.known[orgID]
		s.mu.RUnlock()
		if known != nil {
			return known, nil
		}
	}
	found, err := s.finder.FindReviewSet(ctx, orgID)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.known) >= maxSets {
		clear(s.known)
	}
	// Two replies can cross: the older one must not stay.
	if known := s.known[orgID]; known == nil || known.Generation <= found.Generation {
		s.known[orgID] = &found
	}
	return &found, nil
}

func (s *sets) forget(orgID int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.known, orgID)
}
