package stream_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sametick/sametick/pkg/redistest"
	"github.com/sametick/sametick/pkg/stream"
	"github.com/sametick/sametick/pkg/stream/streamtest"
)

// An older state of the log is restored: a reader that was beyond it is told, once Redis has gone back
// too. While Redis still has what the reader had, nothing is said: the relay will jump past it.
func TestRewound(t *testing.T) {
	t.Parallel()
	log, server := streamtest.NewLog(), redistest.New(t)
	p := streamtest.NewPublisher(t, log, server.URL, server)
	r := streamtest.NewReader(quick(log.Direct(), p.Redis(t)), map[int]int64{2: 0})
	defer r.F.Close()
	org := streamtest.Orgs(2, 1)[0]
	for range 10 {
		log.Append(org, "task", "post_create", 1, "")
	}
	require.NoError(t, p.Publish(t.Context()))
	require.NoError(t, r.Until(t.Context(), map[int]int64{2: 10}))

	log.Rewind(2, 4)
	asked := log.Reads()
	ctx, cancel := context.WithCancel(t.Context())
	go func() { // enough answers of the log to be told three times over
		defer cancel()
		look := time.NewTicker(time.Millisecond)
		defer look.Stop()
		for log.Reads() < asked+9 && t.Context().Err() == nil {
			<-look.C
		}
	}()
	_, err := r.F.Next(ctx)
	require.ErrorIs(t, err, context.Canceled, "Redis has it all")

	require.NoError(t, p.Flush(t.Context()))
	require.NoError(t, p.Refill(t.Context(), 100))
	var rewound *stream.RewoundError
	for !errors.As(err, &rewound) {
		_, err = r.F.Next(t.Context())
		require.Error(t, err)
	}
	require.Equal(t, stream.RewoundError{Shard: 2, Position: 10, Head: 4}, *rewound)
	r.F.Follow(2, rewound.Head)
	log.Append(org, "task", "post_update", 1, "")
	require.NoError(t, p.Publish(t.Context()))
	batches, err := r.F.Next(t.Context())
	require.NoError(t, err)
	require.EqualValues(t, 5, batches[0].Through)
}
