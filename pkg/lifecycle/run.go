package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// ErrForced is returned by Run when a second signal asked it to end at once.
var ErrForced = errors.New("lifecycle: second signal, ended at once")

// ErrEnded is returned by Run when a loop ended without being asked to.
var ErrEnded = errors.New("lifecycle: ended by itself")

// ErrStuck is returned by Run when a component did not even stop when its work was cancelled.
var ErrStuck = errors.New("lifecycle: a component does not stop")

// stuckAfter is how long after the grace time a component may take to notice.
const stuckAfter = 5 * time.Second

// Options of Run. The zero value drains without delay and without mercy.
type Options struct {
	// Grace is how long work in hand may take after taking has stopped.
	Grace time.Duration
	// DrainDelay is waited between NotReady and the stop, so that load balancers look away first.
	DrainDelay time.Duration
	// NotReady makes the readiness probe fail; nil where nothing probes.
	NotReady func()
	// Ready is called when every component has started; nil where nothing probes.
	Ready func()
	// Signals replaces SIGTERM and SIGINT, for tests.
	Signals <-chan os.Signal
}

// Run starts the components in order, waits for a signal, for ctx or for the failure of one, and
// stops them in reverse order within the grace time, which they share. It returns nil after a clean
// drain; an error when a component failed, when work was dropped (ErrGrace), and at once on a second
// signal (ErrForced). The caller exits non-zero on any error.
func Run(ctx context.Context, o Options, components ...Component) error {
	signals := o.Signals
	if signals == nil {
		c := make(chan os.Signal, 2)
		signal.Notify(c, syscall.SIGTERM, os.Interrupt)
		defer signal.Stop(c)
		signals = c
	}
	for i, c := range components {
		if err := c.Start(ctx); err != nil {
			return errors.Join(err, stopAll(signals, o.Grace, components[:i]))
		}
	}
	if o.Ready != nil {
		o.Ready()
	}
	failed := make(chan error, 1)
	quit := make(chan struct{})
	defer close(quit)
	for _, c := range components {
		watch(c, failed, quit)
	}
	var cause error
	select {
	case <-ctx.Done():
	case <-signals:
	case cause = <-failed:
	}
	if o.NotReady != nil {
		o.NotReady()
	}
	if cause == nil && !pause(signals, o.DrainDelay) {
		return ErrForced
	}
	return errors.Join(cause, stopAll(signals, o.Grace, components))
}

// watch reports a component that ends while it should run.
func watch(c Component, failed chan<- error, quit <-chan struct{}) {
	w, ok := c.(interface {
		Done() <-chan struct{}
		Err() error
	})
	if !ok {
		return
	}
	go func() {
		select {
		case <-quit:
		case <-w.Done():
			err := w.Err()
			if err == nil {
				err = fmt.Errorf("%T: %w", c, ErrEnded)
			}
			select {
			case failed <- err:
			default: // the first failure is the cause; what follows is its wake
			}
		}
	}()
}

// pause waits d, and reports false if a signal came first.
func pause(signals <-chan os.Signal, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-signals:
		return false
	}
}

func stopAll(signals <-chan os.Signal, grace time.Duration, components []Component) error {
	ctx, cancel := context.WithTimeout(context.Background(), grace)
	defer cancel()
	done := make(chan error, 1)
	go func() {
		var err error
		for i := len(components) - 1; i >= 0; i-- {
			err = errors.Join(err, components[i].Stop(ctx))
		}
		done <- err
	}()
	stuck := time.NewTimer(grace + stuckAfter)
	defer stuck.Stop()
	select {
	case err := <-done:
		return err
	case <-signals:
		return ErrForced
	case <-stuck.C:
		return ErrStuck
	}
}
