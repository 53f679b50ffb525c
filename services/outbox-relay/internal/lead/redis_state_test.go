package lead_test

import (
	"strconv"
	"testing"

	"github.com/redis/rueidis"
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

// strange fills the stream of organisation 1 with a stranger's events, which look like ours.
func strange(t *testing.T, c rueidis.Client, last int) {
	for p := 1; p <= last; p++ {
		require.NoError(t, c.Do(t.Context(), c.B().Xadd().Key(relaytest.Key(event.ShardOf(1))).Id(strconv.Itoa(p)+"-0").FieldValue().
			FieldValue("e", `{"id":1,"org_id":1,"of":"another database"}`).FieldValue("o", "1").FieldValue("t", "task.post_update").
			FieldValue("a", "task").FieldValue("i", "1").Build()).Error())
	}
}

// A new database on a Redis that another one has used, with an owner noted or without: nothing of it is served, and
// nothing is jumped over.
func TestAStrangersEventsAreNotServed(t *testing.T) {
	for _, owner := range []string{"", "1/2"} {
		t.Run("owner "+owner, func(t *testing.T) {
			db, red := relaytest.Database(t), redistest.New(t)
			pool, c := db.Pool(t), redisClient(t, red.URL)
			a := startActive(t, db.URL, red.URL, options{batch: 100})
			relaytest.Write(t, pool, 1, 1, 1) // the ledger is not empty
			settled(t, db, red.URL)
			a.stop()
			require.NoError(t, c.Do(t.Context(), c.B().Flushall().Build()).Error())
			strange(t, c, 3)
			if owner != "" {
				require.NoError(t, c.Do(t.Context(), c.B().Set().Key("sametick:owner").Value(owner).Build()).Error())
			}
			b := startActive(t, db.URL, red.URL, options{batch: 100})
			relaytest.Write(t, pool, 1, 1, 1)
			relaytest.Eventually(t, func() bool { return relaytest.InStreams(t, c) == 2 }, "our two events alone")
			relaytest.CheckStreams(t, pool, c)
			require.Zero(t, b.stats.Jumps.Load())
			now, err := c.Do(t.Context(), c.B().Get().Key("sametick:owner").Build()).ToString()
			require.NoError(t, err)
			require.NotEqual(t, owner, now)
		})
	}
}

// The database was emptied: its identity is the same, and the streams are those of before.
func TestStreamsOfAnEmptiedDatabaseAreCleared(t *testing.T) {
	db, red := relaytest.Database(t), redistest.New(t)
	pool, c := db.Pool(t), redisClient(t, red.URL)
	before := startActive(t, db.URL, red.URL, options{batch: 100})
	relaytest.Eventually(t, func() bool {
		n, err := c.Do(t.Context(), c.B().Exists().Key("sametick:owner").Build()).AsInt64()
		return err == nil && n == 1
	}, "the owner is noted though there is nothing yet")
	before.stop()
	strange(t, c, 3)
	startActive(t, db.URL, red.URL, options{batch: 100})
	relaytest.Eventually(t, func() bool { return relaytest.InStreams(t, c) == 0 }, "what was there is cleared")
	relaytest.Write(t, pool, 1, 1, 1)
	relaytest.Eventually(t, func() bool { return relaytest.InStreams(t, c) == 1 }, "our event alone")
	relaytest.CheckStreams(t, pool, c)
}
