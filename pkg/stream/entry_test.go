package stream_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sametick/sametick/pkg/redistest"
	"github.com/sametick/sametick/pkg/stream/streamtest"
)

// One event by its position: from Redis, from the log once Redis is empty, and none where there is none.
func TestEntry(t *testing.T) {
	t.Parallel()
	log, server := streamtest.NewLog(), redistest.New(t)
	p := streamtest.NewPublisher(t, log, server.URL, server)
	s := quick(log.Direct(), p.Redis(t))
	orgs := streamtest.Orgs(2, 2)
	for i := range 4 {
		log.Append(orgs[i%2], "task", "post_create", int64(i+1), "")
	}
	require.NoError(t, p.Publish(t.Context()))
	asked := log.Reads()
	e, ok, err := s.Entry(t.Context(), 2, 2, orgs[1])
	require.NoError(t, err)
	require.True(t, ok)
	require.EqualValues(t, 2, e.AggregateID)
	require.Equal(t, asked, log.Reads(), "Redis has it")
	_, ok, err = s.Entry(t.Context(), 2, 2, orgs[0])
	require.NoError(t, err)
	require.False(t, ok, "another organisation's")

	require.NoError(t, p.Flush(t.Context()))
	e, ok, err = s.Entry(t.Context(), 2, 3, orgs[0])
	require.NoError(t, err)
	require.True(t, ok)
	require.EqualValues(t, 3, e.AggregateID)
	log.DropBefore(2, 3)
	log.Jump(2, 1)
	for _, gone := range []int64{2, 5} {
		_, ok, err = s.Entry(t.Context(), 2, gone, orgs[1])
		require.NoError(t, err)
		require.False(t, ok, gone)
	}
	log.SetDown(true)
	_, _, err = s.Entry(t.Context(), 2, 3, orgs[0])
	require.Error(t, err, "that it is gone must not be guessed")
}
