package wake_test

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/sametick/sametick/pkg/lifecycle"
	"github.com/sametick/sametick/pkg/lifecycletest"
	"github.com/sametick/sametick/pkg/wake"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestContract(t *testing.T) {
	lifecycletest.Stress(t, func() lifecycle.Component {
		return wake.New(func(context.Context) error { return nil }, slog.New(slog.DiscardHandler))
	})
}

// TestCoalesced: a thousand commits in a millisecond are two hints, the first at once and one after
// the last; a relay that hangs or is down blocks nobody.
func TestCoalesced(t *testing.T) {
	for name, c := range map[string]struct {
		send wake.Send
		want int
	}{
		"answers": {func(context.Context) error { return nil }, 2},
		"is down": {func(context.Context) error { return errors.New("down") }, 1},
		"hangs":   {func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }, 1},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				sent := 0
				w := wake.New(func(ctx context.Context) error { sent++; return c.send(ctx) }, slog.New(slog.DiscardHandler))
				require.NoError(t, w.Start(t.Context()))
				for range 1000 {
					w.Wake()
					synctest.Wait()
				}
				time.Sleep(500 * time.Millisecond)
				synctest.Wait()
				require.Equal(t, c.want, sent)
				require.NoError(t, w.Stop(t.Context()))
				w.Wake() // after the end, too
			})
		})
	}
}
