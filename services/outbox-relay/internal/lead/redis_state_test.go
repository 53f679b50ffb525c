package lead_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sametick/sametick/pkg/event"
	"github.com/sametick/sametick/pkg/redistest"
	"github.com/sametick/sametick/services/outbox-relay/internal/relaytest"
)

// A key of the wrong type, there at the start or put there later: the other shards go on, and its own is
// filled anew.
func TestAKeyOfTheWrongTypeIsReplaced(t *testing.T) {
	db, red := relaytest.Database(t), redistest.New(t)
	pool, c := db.Pool(t), redisClient(t, red.URL)
	bad, good := int64(1), int64(2)
	for event.ShardOf(good) == event.ShardOf(bad) {
		good++
	}
	spoil := func() {
		require.NoError(t, c.Do(t.Context(), c.B().Set().Key(relaytest.Key(event.ShardOf(bad))).Value("x").Build()).Error())
	}
	spoil()
	startActive(t, db.URL, red.URL, options{batch: 100})
	relaytest.Write(t, pool, good, 1, 1)
	relaytest.Eventually(t, func() bool { return relaytest.InStreams(t, c) == 1 }, "the good shard's event")
	relaytest.Write(t, pool, bad, 1, 1)
	relaytest.Eventually(t, func() bool { return relaytest.InStreams(t, c) == 2 }, "the bad shard's event")
	spoil()
	relaytest.Write(t, pool, good, 1, 1)
	relaytest.Write(t, pool, bad, 1, 1)
	relaytest.Eventually(t, func() bool { return relaytest.InStreams(t, c) == 4 }, "both shards after the key was spoilt again")
	relaytest.CheckStreams(t, pool, c)
}
