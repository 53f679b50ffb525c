package runs

import (
	"context"
	"sync"
	"time"
)

// group does in one call what several goroutines ask for meanwhile: while one call is under way the next gathers. When none
// is, who comes first waits a moment for others, and nobody waits for a batch to fill. One of those who ask makes the call.
type group[T, R any] struct {
	// do gives a result for each value, in order, or errs for all.
	do   func(ctx context.Context, values []T) ([]R, error)
	most int
	// linger is how long the first waits.
	linger time.Duration

	mu      sync.Mutex
	busy    bool
	waiting []*wish[T, R]
}

type wish[T, R any] struct {
	value  T
	result R
	err    error
	lead   chan bool // true: make the next call; false: the result is there
}

// Do waits for its turn without regard to ctx: a call ends by the ctx of who makes it.
func (g *group[T, R]) Do(ctx context.Context, value T) (R, error) {
	w := &wish[T, R]{value: value, lead: make(chan bool, 1)}
	g.mu.Lock()
	g.waiting = append(g.waiting, w)
	lead := !g.busy
	g.busy = true
	g.mu.Unlock()
	if lead {
		time.Sleep(g.linger)
	}
	if lead || <-w.lead {
		g.call(ctx, w)
	}
	return w.result, w.err
}

func (g *group[T, R]) call(ctx context.Context, own *wish[T, R]) {
	g.mu.Lock()
	n := min(len(g.waiting), g.most)
	batch := g.waiting[:n:n]
	g.waiting = g.waiting[n:]
	g.mu.Unlock()
	values := make([]T, n)
	for i, w := range batch {
		values[i] = w.value
	}
	results, err := g.do(ctx, values)
	for i, w := range batch {
		if w.err = err; err == nil {
			w.result = results[i]
		}
		if w != own {
			w.lead <- false
		}
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.busy = len(g.waiting) > 0; g.busy {
		g.waiting[0].lead <- true
	}
}
