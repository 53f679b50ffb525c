// Package lifecycle starts and stops what a process is made of.
//
// Two contexts drain a loop: "take" ends when it must stop taking new work, "work" ends when the
// grace time is over and work in hand must be dropped. Every component keeps one contract: Start once,
// Stop any number of times, from anywhere, also before Start; pkg/lifecycletest stresses it. What a
// component does, and what readiness means, lives elsewhere.
package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"sync"
)

var (
	// ErrStarted is returned by a second Start.
	ErrStarted = errors.New("lifecycle: already started")
	// ErrStopped is returned by Start after Stop: a component does not come back.
	ErrStopped = errors.New("lifecycle: already stopped")
	// ErrGrace is returned by Stop when work in hand had to be dropped.
	ErrGrace = errors.New("lifecycle: grace time over, work in hand was dropped")
)

// Component is a part of a process. Stop ends taking at once, lets work in hand finish until ctx
// ends, then drops it; it returns when nothing of the component runs any more. Both are safe for
// concurrent use.
type Component interface {
	Start(ctx context.Context) error
	Stop(ctx context.Context) error
}

// RunFunc is the body of a Loop. It returns nil soon after take ends, having finished what it had
// in hand unless work ended first. Returning earlier counts as a failure of the process.
type RunFunc func(take, work context.Context) error

// Loop is a Component of one goroutine.
type Loop struct {
	name  string
	run   RunFunc
	setup func(context.Context) error // nil, or what must succeed before Start does

	mu      sync.Mutex
	started bool
	stopped bool
	endTake context.CancelFunc
	endWork context.CancelFunc
	done    chan struct{}
	err     error // written before done is closed
}

// NewLoop makes a loop that is not running yet. The name appears in errors.
func NewLoop(name string, run RunFunc) *Loop {
	return &Loop{name: name, run: run, done: make(chan struct{})}
}

// Start runs the loop. It takes ctx's values; its end means nothing, only Stop ends the loop.
func (l *Loop) Start(ctx context.Context) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.stopped:
		return ErrStopped
	case l.started:
		return ErrStarted
	}
	if l.setup != nil {
		if err := l.setup(ctx); err != nil {
			return fmt.Errorf("%s: %w", l.name, err)
		}
	}
	l.started = true
	work, endWork := context.WithCancel(context.WithoutCancel(ctx))
	take, endTake := context.WithCancel(work)
	l.endTake, l.endWork = endTake, endWork
	go func() {
		defer close(l.done)
		defer endWork()
		if err := l.run(take, work); err != nil {
			l.err = fmt.Errorf("%s: %w", l.name, err)
		}
	}()
	return nil
}

// Stop drains the loop: nil when it ended by itself, ErrGrace when ctx ended first. A loop's own
// error is in Err.
func (l *Loop) Stop(ctx context.Context) error {
	if !l.begin() {
		return nil
	}
	select {
	case <-l.done:
		return nil
	default:
	}
	select {
	case <-l.done:
		return nil
	case <-ctx.Done():
		l.endWork()
		<-l.done
		return fmt.Errorf("%s: %w", l.name, ErrGrace)
	}
}

// begin ends taking, and reports whether there is a goroutine to wait for.
func (l *Loop) begin() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.started {
		if !l.stopped {
			close(l.done)
		}
		l.stopped = true
		return false
	}
	l.stopped = true
	l.endTake()
	return true
}

// Done is closed when the loop has ended, or was stopped before it started.
func (l *Loop) Done() <-chan struct{} { return l.done }

// Err is what the loop returned; call it after Done is closed.
func (l *Loop) Err() error { return l.err }

// Closer is a Component for what has no goroutine of ours, such as a pool: Stop calls closeFn once.
func Closer(closeFn func()) Component { return &closer{closeFn: sync.OnceFunc(closeFn)} }

type closer struct {
	mu               sync.Mutex
	started, stopped bool
	closeFn          func()
}

func (c *closer) Start(context.Context) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.stopped:
		return ErrStopped
	case c.started:
		return ErrStarted
	}
	c.started = true
	return nil
}

func (c *closer) Stop(context.Context) error {
	c.mu.Lock()
	c.stopped = true
	c.mu.Unlock()
	c.closeFn()
	return nil
}
