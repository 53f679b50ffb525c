package app_test

import (
	"bytes"
	"context"
	"net"
	"strings"
	"sync"
	"testing"

	"github.com/redis/rueidis"
	"github.com/stretchr/testify/require"

	"github.com/sametick/sametick/pkg/redistest"
	"github.com/sametick/sametick/services/outbox-relay/internal/app"
	"github.com/sametick/sametick/services/outbox-relay/internal/relaytest"
)

func TestMain(m *testing.M) { relaytest.Main(m) }

// buffer is a log that a test reads while the relay writes.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

const token = "0123456789abcdef0123456789abcdef"

// relay is a running relay.
type relay struct {
	log  buffer
	grpc string
	ops  string
	stop func() int
}

func freeAddr(t *testing.T) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	require.NoError(t, l.Close())
	return l.Addr().String()
}

// start runs a relay in this process until the test ends.
func start(t *testing.T, databaseURL, redisURL string, extra ...string) *relay {
	r := &relay{grpc: freeAddr(t), ops: freeAddr(t)}
	env := map[string]string{
		"DATABASE_URL": databaseURL, "REDIS_URL": redisURL, "INTERNAL_TOKEN": token, "GRPC_ADDR": r.grpc, "OPS_ADDR": r.ops,
	}
	for _, kv := range extra {
		k, v, _ := strings.Cut(kv, "=")
		env[k] = v
	}
	ctx, cancel := context.WithCancel(context.Background())
	code := make(chan int, 1)
	go func() { code <- app.Run(ctx, nil, func(k string) string { return env[k] }, &r.log) }()
	r.stop = sync.OnceValue(func() int { cancel(); return <-code })
	t.Cleanup(func() {
		if got := r.stop(); got != 0 {
			t.Errorf("exit code %d", got)
		}
		if t.Failed() {
			t.Logf("relay's log:\n%s", r.log.String())
		}
	})
	return r
}

func client(t *testing.T, url string) rueidis.Client {
	o, err := rueidis.ParseURL(url)
	require.NoError(t, err)
	o.DisableCache = true
	c, err := rueidis.NewClient(o)
	require.NoError(t, err)
	t.Cleanup(c.Close)
	return c
}

func TestFromCommitToStream(t *testing.T) {
	db, red := relaytest.Database(t), redistest.New(t)
	pool, c := db.Pool(t), client(t, red.URL)
	relaytest.Write(t, pool, 1, 1, 3) // before the relay
	start(t, db.URLAs(t, "sametick_relay"), red.URL)
	for org := range int64(5) {
		relaytest.Write(t, pool, org+1, 7, 10)
	}
	relaytest.Eventually(t, func() bool { return relaytest.InStreams(t, c) == 53 }, "53 events in the streams")
	relaytest.CheckLog(t, pool)
	relaytest.CheckStreams(t, pool, c)
}
