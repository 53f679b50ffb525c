package rpc_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sametick/sametick/pkg/rpc"
	"github.com/sametick/sametick/pkg/wiretest"
)

// A connection whose other end takes every byte and never answers (a process that is stopped, a load balancer
// whose target vanished) is left within half a minute for a new one, which finds a server that answers.
func TestAConnectionThatAnswersNothingIsLeft(t *testing.T) {
	t.Parallel()
	s := start(t, options(&syncBuffer{}, func(_ context.Context, in string) (string, error) { return in, nil }))
	wire := wiretest.New(t, s.Addr())
	c, err := rpc.Dial(wire.Addr(), rpc.ClientOptions{Timeout: 2 * time.Second})
	require.NoError(t, err)
	defer func() { require.NoError(t, c.Close()) }()
	_, err = say(t.Context(), c, "a")
	require.NoError(t, err)
	wire.Cut()
	begin := time.Now()
	_, err = say(t.Context(), c, "b")
	require.Error(t, err, "the wire was not cut")
	for err != nil {
		require.Less(t, time.Since(begin), 30*time.Second)
		_, err = say(t.Context(), c, "b")
	}
}
