// Package lifecycletest holds every component to the contract of lifecycle.Component. For tests only.
package lifecycletest

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/sametick/sametick/pkg/lifecycle"
)

// rounds is how often the racing cases run; races show within a few dozen.
const rounds = 50

// patience bounds every call: a contract that hangs is broken.
const patience = 10 * time.Second

// Stress starts and stops fresh components in every order, also racing, and fails when a call
// errs where it must not, hangs, or leaves a goroutine behind that was not there before.
func Stress(t *testing.T, fresh func() lifecycle.Component) {
	t.Helper()
	before := goleak.IgnoreCurrent()
	t.Run("start stop", func(t *testing.T) {
		c := fresh()
		require.NoError(t, c.Start(t.Context()))
		require.ErrorIs(t, c.Start(t.Context()), lifecycle.ErrStarted)
		require.NoError(t, stop(t, c))
		require.NoError(t, stop(t, c), "a second stop")
		require.ErrorIs(t, c.Start(t.Context()), lifecycle.ErrStopped)
	})
	t.Run("stop before start", func(t *testing.T) {
		c := fresh()
		require.NoError(t, stop(t, c))
		require.NoError(t, stop(t, c))
		require.ErrorIs(t, c.Start(t.Context()), lifecycle.ErrStopped)
	})
	t.Run("stop without grace", func(t *testing.T) {
		c := fresh()
		require.NoError(t, c.Start(t.Context()))
		ended, cancel := context.WithCancel(t.Context())
		cancel()
		if err := c.Stop(ended); err != nil {
			require.ErrorIs(t, err, lifecycle.ErrGrace)
		}
		require.NoError(t, stop(t, c))
	})
	t.Run("racing", func(t *testing.T) {
		for range rounds {
			race(t, fresh())
		}
	})
	goleak.VerifyNone(t, before)
}

func stop(t *testing.T, c lifecycle.Component) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), patience)
	defer cancel()
	return c.Stop(ctx)
}

// race calls Start and Stop from many goroutines; at most one Start may win, no Stop may err.
func race(t *testing.T, c lifecycle.Component) {
	var wg sync.WaitGroup
	starts, stops := make([]error, 4), make([]error, 4)
	for i := range starts {
		wg.Go(func() { starts[i] = c.Start(t.Context()) })
		wg.Go(func() { stops[i] = stop(t, c) })
	}
	wg.Wait()
	won := 0
	for i := range starts {
		require.NoError(t, stops[i])
		if starts[i] == nil {
			won++
			continue
		}
		if starts[i] != lifecycle.ErrStarted && starts[i] != lifecycle.ErrStopped { //nolint:errorlint // the contract names these values
			t.Fatalf("start: %v", starts[i])
		}
	}
	require.LessOrEqual(t, won, 1)
}
