package lifecycle_test

import (
	"context"
	"errors"
	"os"
	"slices"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/sametick/sametick/pkg/lifecycle"
	"github.com/sametick/sametick/pkg/lifecycletest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func idle(take, _ context.Context) error { <-take.Done(); return nil }

func TestContract(t *testing.T) {
	lifecycletest.Stress(t, func() lifecycle.Component { return lifecycle.NewLoop("idle", idle) })
	lifecycletest.Stress(t, func() lifecycle.Component { return lifecycle.Closer(func() {}) })
}

// drain runs one loop that needs `need` to finish its work and reports what became of it.
func drain(t *testing.T, need, grace time.Duration) (took time.Duration, finished bool, err error) {
	signals := make(chan os.Signal, 2)
	loop := lifecycle.NewLoop("worker", func(take, work context.Context) error {
		<-take.Done()
		select {
		case <-time.After(need):
			finished = true
		case <-work.Done():
		}
		return nil
	})
	begin := time.Now()
	signals <- syscall.SIGTERM
	err = lifecycle.Run(t.Context(), lifecycle.Options{Grace: grace, Signals: signals}, loop)
	return time.Since(begin), finished, err
}

func TestDrainFinishesWork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		took, finished, err := drain(t, 3*time.Second, 10*time.Second)
		require.NoError(t, err)
		require.True(t, finished)
		require.Equal(t, 3*time.Second, took)
	})
}

func TestGraceEndsWork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		took, finished, err := drain(t, time.Hour, 10*time.Second)
		require.ErrorIs(t, err, lifecycle.ErrGrace)
		require.False(t, finished)
		require.Equal(t, 10*time.Second, took)
	})
}

// Readiness falls first, then the delay passes, then taking stops: in this order.
func TestReadinessFallsFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		signals := make(chan os.Signal, 2)
		begin := time.Now()
		var notReady, stopped time.Duration
		ready := false
		loop := lifecycle.NewLoop("x", func(take, _ context.Context) error {
			<-take.Done()
			stopped = time.Since(begin)
			return nil
		})
		time.AfterFunc(time.Minute, func() { signals <- os.Interrupt })
		err := lifecycle.Run(t.Context(), lifecycle.Options{
			DrainDelay: 5 * time.Second, Grace: time.Second, Signals: signals,
			Ready:    func() { ready = true },
			NotReady: func() { notReady = time.Since(begin) },
		}, loop)
		require.NoError(t, err)
		require.True(t, ready)
		require.Equal(t, time.Minute, notReady)
		require.Equal(t, time.Minute+5*time.Second, stopped)
	})
}

func TestSecondSignalEndsAtOnce(t *testing.T) {
	for name, second := range map[string]time.Duration{"in the delay": 2 * time.Second, "in the grace time": 7 * time.Second} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				signals := make(chan os.Signal, 2)
				release := make(chan struct{})
				loop := lifecycle.NewLoop("stuck", func(context.Context, context.Context) error { <-release; return nil })
				signals <- syscall.SIGTERM
				time.AfterFunc(second, func() { signals <- syscall.SIGTERM })
				begin := time.Now()
				err := lifecycle.Run(t.Context(), lifecycle.Options{DrainDelay: 5 * time.Second, Grace: time.Hour, Signals: signals}, loop)
				require.ErrorIs(t, err, lifecycle.ErrForced)
				require.Equal(t, second, time.Since(begin))
				close(release)
				<-loop.Done()
			})
		})
	}
}

func TestStuckComponentIsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		signals := make(chan os.Signal, 1)
		signals <- syscall.SIGTERM
		release := make(chan struct{})
		loop := lifecycle.NewLoop("stuck", func(context.Context, context.Context) error { <-release; return nil })
		err := lifecycle.Run(t.Context(), lifecycle.Options{Grace: time.Second, Signals: signals}, loop)
		require.ErrorIs(t, err, lifecycle.ErrStuck)
		close(release)
		<-loop.Done()
	})
}

func TestFailureStopsTheRest(t *testing.T) {
	boom := errors.New("boom")
	var order []string
	note := func(name string) lifecycle.Component {
		return lifecycle.Closer(func() { order = append(order, name) })
	}
	bad := lifecycle.NewLoop("bad", func(context.Context, context.Context) error { return boom })
	err := lifecycle.Run(t.Context(), lifecycle.Options{Grace: time.Second}, note("a"), bad, note("b"))
	require.ErrorIs(t, err, boom)
	require.Equal(t, []string{"b", "a"}, order)

	early := lifecycle.NewLoop("early", func(context.Context, context.Context) error { return nil })
	require.ErrorIs(t, lifecycle.Run(t.Context(), lifecycle.Options{}, early), lifecycle.ErrEnded)
}

func TestFailedStartStopsTheStarted(t *testing.T) {
	var closed atomic.Int32
	up := lifecycle.Closer(func() { closed.Add(1) })
	never := lifecycle.Closer(func() { closed.Add(100) })
	gone := lifecycle.NewLoop("gone", idle)
	require.NoError(t, gone.Stop(t.Context()))
	err := lifecycle.Run(t.Context(), lifecycle.Options{Grace: time.Second}, up, gone, never)
	require.ErrorIs(t, err, lifecycle.ErrStopped)
	require.EqualValues(t, 1, closed.Load())
}

func TestRealSignal(t *testing.T) {
	started := lifecycle.NewLoop("self", func(take, _ context.Context) error {
		if err := syscall.Kill(os.Getpid(), syscall.SIGTERM); err != nil {
			return err
		}
		<-take.Done()
		return nil
	})
	require.NoError(t, lifecycle.Run(t.Context(), lifecycle.Options{Grace: time.Second}, started))
}

func TestContextEndsRun(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	type key struct{}
	var seen []any
	loop := lifecycle.NewLoop("x", func(take, _ context.Context) error {
		seen = append(seen, take.Value(key{}), take.Err())
		<-take.Done()
		return nil
	})
	require.NoError(t, lifecycle.Run(context.WithValue(ctx, key{}, "v"), lifecycle.Options{Grace: time.Minute}, loop))
	require.True(t, slices.Contains(seen, any("v")), "values of the context reach the loop")
}
