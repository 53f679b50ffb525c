// Package wake tells the relay that something has been committed, so that it need not find out by
// polling. The hint may be lost: polling is the guarantee.
package wake

import (
	"context"
	"log/slog"
	"time"

	"github.com/sametick/sametick/pkg/lifecycle"
)

const (
	// pause bounds the hints: after one the relay polls every millisecond by itself.
	pause = 5 * time.Millisecond
	// timeout bounds a hint; silence follows one that failed, so that a relay that is down costs nothing.
	timeout, silence = 200 * time.Millisecond, time.Second
)

// Send sends one hint.
type Send func(ctx context.Context) error

// Waker sends hints from one goroutine, as many in one as have come up meanwhile.
type Waker struct {
	*lifecycle.Loop
	pending chan struct{}
}

// New makes a waker that is not running yet.
func New(send Send, log *slog.Logger) *Waker {
	w := &Waker{pending: make(chan struct{}, 1)}
	w.Loop = lifecycle.NewLoop("wake", func(take, _ context.Context) error {
		for {
			select {
			case <-take.Done():
				return nil
			case <-w.pending:
			}
			wait := pause
			if err := attempt(take, send); err != nil {
				log.DebugContext(take, "relay not woken", "error", err)
				wait = silence
			}
			t := time.NewTimer(wait)
			select {
			case <-take.Done():
				t.Stop()
				return nil
			case <-t.C:
			}
		}
	})
	return w
}

// Wake asks for a hint. It never blocks, and does nothing while one is due.
func (w *Waker) Wake() {
	select {
	case w.pending <- struct{}{}:
	default:
	}
}

func attempt(ctx context.Context, send Send) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	return send(ctx)
}
