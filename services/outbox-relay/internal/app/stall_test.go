package app_test

import (
	"context"
	"net/url"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sametick/sametick/pkg/event"
	"github.com/sametick/sametick/pkg/redistest"
	"github.com/sametick/sametick/pkg/rpc"
	"github.com/sametick/sametick/pkg/wiretest"
	relayv1 "github.com/sametick/sametick/proto/gen/go/sametick/relay/v1"
	"github.com/sametick/sametick/services/outbox-relay/internal/relaytest"
)

// reader reads the log of a relay whose way to Postgres is a wire.
type reader struct {
	log  relayv1.LogServiceClient
	wire *wiretest.Wire
	org  int64
}

func readerOverAWire(t *testing.T) *reader {
	db, red := relaytest.Database(t), redistest.New(t)
	address, err := url.Parse(db.URLAs(t, "sametick_relay"))
	require.NoError(t, err)
	wire := wiretest.New(t, address.Host)
	address.Host = wire.Addr()
	r := start(t, address.String(), red.URL)
	relaytest.Write(t, db.Pool(t), 1, 1, 30)
	c := client(t, red.URL)
	relaytest.Eventually(t, func() bool { return relaytest.InStreams(t, c) == 30 }, "30 events")
	conn, err := rpc.Dial(r.grpc, rpc.ClientOptions{Token: token})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, conn.Close()) })
	return &reader{log: relayv1.NewLogServiceClient(conn), wire: wire, org: 1}
}

// read reads all as a gateway does: for a page it waits so long.
func (r *reader) read(ctx context.Context) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	res, err := r.log.Read(ctx, &relayv1.ReadRequest{Shard: int32(event.ShardOf(r.org)), OrgId: r.org})
	return len(res.GetEntries()), err
}

// many reads at once, more than the pool has connections for.
func (r *reader) many(ctx context.Context) (failed int) {
	var wg sync.WaitGroup
	results := make(chan error, 40)
	for range cap(results) {
		wg.Go(func() { _, err := r.read(ctx); results <- err })
	}
	wg.Wait()
	for range cap(results) {
		if <-results != nil {
			failed++
		}
	}
	return failed
}

// healed reads until it succeeds, and gives how long that took.
func (r *reader) healed(t *testing.T) time.Duration {
	begin := time.Now()
	for {
		n, err := r.read(t.Context())
		if err == nil {
			require.Equal(t, 30, n)
			return time.Since(begin)
		}
		require.Less(t, time.Since(begin), 40*time.Second, "%v", err)
	}
}

// Postgres accepts and does not answer, and then does: whoever reads meanwhile is told in the time that he gives,
// however many they are, and whoever reads then gets it all.
func TestLogServiceWhilePostgresDoesNotAnswer(t *testing.T) {
	r := readerOverAWire(t)
	require.Zero(t, r.many(t.Context()), "the control: in fair weather all of them read")
	r.wire.Freeze()
	begin := time.Now()
	require.Equal(t, 40, r.many(t.Context()))
	require.Less(t, time.Since(begin), 5*time.Second)
	r.wire.Thaw()
	require.Less(t, r.healed(t), 5*time.Second)
}

// The host of Postgres vanishes, and another has its address: the connections that the pool keeps are dead, and
// none of them can tell. pgx gives each of them up 15 s after it was found out.
func TestLogServiceAfterPostgresVanished(t *testing.T) {
	r := readerOverAWire(t)
	require.Zero(t, r.many(t.Context())) // the pool is full
	r.wire.Cut()
	idle := time.NewTimer(1500 * time.Millisecond) // after a second the pool looks at a connection before it gives it out
	<-idle.C
	require.Equal(t, 40, r.many(t.Context()), "the control: all of them were dead")
	require.Less(t, r.healed(t), 25*time.Second)
	r.wire.Close() // else the relay's last poll would be waited for until its grace is over
}
