package stream_test

import (
	"testing"
	"time"

	"github.com/redis/rueidis"
	"github.com/stretchr/testify/require"

	"github.com/sametick/sametick/pkg/redisconn"
	"github.com/sametick/sametick/pkg/redistest"
	"github.com/sametick/sametick/pkg/stream"
	"github.com/sametick/sametick/pkg/stream/streamtest"
)

// A Redis that is there and does not answer holds up nothing, and a reader comes back to it.
func TestFrozenRedis(t *testing.T) {
	t.Parallel()
	log, server := streamtest.NewLog(), redistest.New(t)
	p := streamtest.NewPublisher(t, log, server.URL, server)
	r := streamtest.NewReader(quick(log.Direct(), p.Redis(t)), map[int]int64{2: 0})
	defer r.F.Close()
	org := streamtest.Orgs(2, 1)[0]
	log.Append(org, "task", "post_create", 1, "")
	require.NoError(t, p.Publish(t.Context()))
	require.NoError(t, r.Until(t.Context(), map[int]int64{2: 1}))

	require.NoError(t, server.Pause())
	for i := range int64(30) {
		log.Append(org, "task", "post_update", 1, "")
		begin := time.Now()
		require.NoError(t, r.Until(t.Context(), map[int]int64{2: i + 2}))
		require.Less(t, time.Since(begin), time.Second)
	}
	require.NoError(t, server.Continue())
	require.NoError(t, p.Publish(t.Context()))
	log.SetDown(true) // from here on only Redis can tell
	log.Append(org, "task", "post_archive", 1, "")
	require.NoError(t, p.Publish(t.Context()))
	require.NoError(t, r.Until(t.Context(), map[int]int64{2: 32}))
	require.NoError(t, streamtest.Check(log, 2, 0, 0, r.Got[2]))
}

// While Redis has the tail, the log (and Postgres behind it) is left alone.
func TestIdleReaderAsksTheLogSeldom(t *testing.T) {
	t.Parallel()
	log, server := streamtest.NewLog(), redistest.New(t)
	p := streamtest.NewPublisher(t, log, server.URL, server)
	s := stream.New(stream.Options{Log: log.Direct(), Redis: p.Redis(t), Beat: time.Minute})
	r := streamtest.NewReader(s, map[int]int64{2: 0})
	defer r.F.Close()
	for i := range int64(200) {
		log.Append(streamtest.Orgs(2, 1)[0], "task", "post_create", 1, "")
		require.NoError(t, p.Publish(t.Context()))
		require.NoError(t, r.Until(t.Context(), map[int]int64{2: i + 1}))
	}
	require.Zero(t, log.Reads(), "Redis had all of it")
}

// The control: a reader that takes what Redis gives without looking for holes, as a plain XREAD loop
// does, loses events when the stream is refilled in part, and Check sees it.
func TestControlTrustsRedis(t *testing.T) {
	t.Parallel()
	log, server := streamtest.NewLog(), redistest.New(t)
	p := streamtest.NewPublisher(t, log, server.URL, server)
	c, err := redisconn.Open(t.Context(), server.URL, redisconn.Options{})
	require.NoError(t, err)
	defer c.Close()
	org := streamtest.Orgs(2, 1)[0]
	for range 50 {
		log.Append(org, "task", "post_create", 1, "")
	}
	require.NoError(t, p.Refill(t.Context(), 20))
	got, err := c.Do(t.Context(), c.B().Xread().Streams().Key(stream.Key(2)).Id("0-0").Build()).AsXReadSlices()
	require.NoError(t, err)
	var naive []stream.Entry
	for _, x := range got[stream.Key(2)] {
		naive = append(naive, stream.Entry{Envelope: field(x, "e")})
	}
	require.Len(t, naive, 20)
	require.Error(t, streamtest.Check(log, 2, 0, 0, naive))
}

func field(x rueidis.XRangeSlice, name string) []byte {
	for _, f := range x.FieldValues {
		if f.Field == name {
			return []byte(f.Value)
		}
	}
	return nil
}
