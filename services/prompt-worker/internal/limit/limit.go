// Package limit decides who may call a model, and when: for each (provider, model, key) how many calls at once, learnt
// from its answers, whose turn is next, and whether it is asked at all while it fails. It makes no calls of its own and
// keeps nothing outside the process: with N replicas a provider sees N times the limit at first, until it complains.
package limit

import (
	"context"
	"sync"
	"time"

	"github.com/sametick/sametick/services/prompt-worker/internal/prompting"
)

// Key is what a provider limits: an account's calls to a model.
type Key struct {
	ProviderID int64
	Model      string
	// Version changes with the provider's key, address or concurrency, so that a new key starts afresh.
	Version int64
}

// Class is how urgent a call is.
type Class int

const (
	// Async calls wait for each other and leave slots to reviews.
	Async Class = iota
	// Review calls have a writer waiting: they go first.
	Review
)

// Options of a Limiter; zero fields take the defaults.
type Options struct {
	// Max calls at once a key where the provider says nothing else (16), and Initial ones (4), before it has answered.
	Max, Initial int
	// Reserve is the part of the slots that async calls leave free, as one in N (4): at least one, unless there is but one.
	Reserve int
	// Queue bounds who waits for a key (1,024).
	Queue int
	// Failures in a row after which a key is no longer asked (5), then for Open, doubled at each failed probe up to
	// OpenMax (1 s, 1 min).
	Failures      int
	Open, OpenMax time.Duration
}

func (o Options) withDefaults() Options {
	or := func(n *int, d int) {
		if *n <= 0 {
			*n = d
		}
	}
	or(&o.Max, 16)
	or(&o.Initial, 4)
	or(&o.Reserve, 4)
	or(&o.Queue, 1024)
	or(&o.Failures, 5)
	if o.Open <= 0 {
		o.Open = time.Second
	}
	o.OpenMax = max(o.OpenMax, o.Open)
	if o.OpenMax == o.Open {
		o.OpenMax = max(time.Minute, o.Open)
	}
	return o
}

// Limiter holds the gates of all keys. Safe for concurrent use; it owns no goroutine.
type Limiter struct {
	options Options
	mu      sync.Mutex
	gates   map[Key]*gate
}

// New makes a Limiter.
func New(o Options) *Limiter {
	return &Limiter{options: o.withDefaults(), gates: map[Key]*gate{}}
}

// maxGates is when idle ones are forgotten: organisations come and go.
const maxGates = 4096

// Acquire waits for a turn at a key, until the context ends. Most is the provider's own bound of calls at once; 0 is
// the default. Whoever got a turn must give it back by Done. The error is a *prompting.ModelError, not Unknown: while a
// key fails, at once and with the cause that closed it, and how long that lasts.
func (l *Limiter) Acquire(ctx context.Context, k Key, most int, org int64, c Class) (*Turn, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	g := l.gate(k, most)
	if err := g.refused(time.Now()); err != nil {
		return nil, err
	}
	if g.waiting.len() >= l.options.Queue {
		return nil, &prompting.ModelError{Cause: prompting.CauseOverloaded, Text: "too many calls wait for this model"}
	}
	w := &waiter{limiter: l, org: org, class: c, ready: make(chan struct{})}
	g.waiting.push(w)
	g.dispatch(time.Now())
	l.mu.Unlock()
	select {
	case <-w.ready:
	case <-ctx.Done():
	}
	l.mu.Lock()
	switch {
	case w.turn != nil && ctx.Err() != nil:
		// Both came at once: who has given up must not hold a turn, nor keep a probe.
		g.finish(w.turn, outcome{neutral: true}, time.Now())
	case w.turn != nil:
		return w.turn, nil
	case w.err != nil:
		return nil, w.err
	default:
		g.waiting.remove(w)
	}
	return nil, &prompting.ModelError{Cause: prompting.CauseTimeout, Text: "no free call in time"}
}

func (l *Limiter) gate(k Key, most int) *gate {
	g := l.gates[k]
	if g == nil {
		if len(l.gates) >= maxGates {
			for key, old := range l.gates {
				if old.idle() {
					delete(l.gates, key)
				}
			}
		}
		if most <= 0 {
			most = l.options.Max
		}
		g = &gate{options: l.options, most: most, limit: float64(min(l.options.Initial, most)), waiting: newQueue()}
		l.gates[k] = g
	}
	return g
}

// Turn is the right to one call.
type Turn struct {
	limiter *Limiter
	gate    *gate
	began   time.Time
	class   Class
	probe   bool
	// beside is how many calls were under way with it.
	beside int
	done   bool
}

// Done gives a turn back and says how the call ended: nil, or its error. A call that its caller cancelled says nothing
// of the provider: pass it with cancelled. Calling it twice does nothing.
func (t *Turn) Done(err *prompting.ModelError, cancelled bool) {
	t.limiter.mu.Lock()
	defer t.limiter.mu.Unlock()
	t.gate.finish(t, outcome{err: err, neutral: cancelled}, time.Now())
}
