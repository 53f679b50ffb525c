package runs

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// Room for one run is not taken at once after a load, but soon; room for half a turn is, and so is any when nothing is in
// hand.
func TestRoomLingers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := &Engine{inbox: make(chan func(), 4), ended: make(chan struct{})}
		defer close(e.ended)
		looked := 0
		again := func() { looked++ }
		r := room{loaded: time.Now()}
		require.True(t, r.enough(e, 0, 32, again))
		require.True(t, r.enough(e, 24, 32, again))
		require.True(t, r.enough(e, 0, 1, again))
		require.False(t, r.enough(e, 32, 32, again))
		require.False(t, r.waiting, "who ends makes room, and looks then")
		require.False(t, r.enough(e, 31, 32, again))
		require.False(t, r.enough(e, 31, 32, again))
		time.Sleep(linger)
		(<-e.inbox)()
		require.Equal(t, 1, looked)
		require.True(t, r.enough(e, 31, 32, again))
		require.Empty(t, e.inbox)
	})
}
