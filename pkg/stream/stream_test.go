package stream_test

import (
	"context"
	"flag"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/sametick/sametick/pkg/redistest"
	"github.com/sametick/sametick/pkg/rpc"
	"github.com/sametick/sametick/pkg/stream"
	"github.com/sametick/sametick/pkg/stream/streamtest"
	"github.com/sametick/sametick/pkg/telemetry"
	relayv1 "github.com/sametick/sametick/proto/gen/go/sametick/relay/v1"
)

// few is how many programs the property test runs unless -rapid.checks says otherwise: each takes real
// servers through crashes.
const few = "25"

// The server that pgtest shares lives as long as the process.
func TestMain(m *testing.M) {
	limitChecks()
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("github.com/sametick/sametick/pkg/devstack.StartProcess.func1"),
		goleak.IgnoreAnyFunction("os/exec.(*Cmd).writerDescriptor.func1"))
}

// quick makes the slow paths fast enough to be walked often.
func quick(log stream.Log, r *stream.Redis) *stream.Source {
	return stream.New(stream.Options{Log: log, Redis: r, Beat: 50 * time.Millisecond, PollEvery: 5 * time.Millisecond, Limit: 30, Timeout: 2 * time.Second})
}

func TestInMemory(t *testing.T) {
	t.Parallel()
	streamtest.Run(t, func(*testing.T) *streamtest.Fixture {
		log := streamtest.NewLog()
		return &streamtest.Fixture{Source: quick(log.Direct(), nil), Log: log, Faults: map[string]func(context.Context) error{
			"log down for a while": outage(log),
		}}
	})
}

func outage(log *streamtest.Log) func(context.Context) error {
	return func(context.Context) error {
		log.SetDown(true)
		time.AfterFunc(20*time.Millisecond, func() { log.SetDown(false) })
		return nil
	}
}

func TestLogService(t *testing.T) {
	t.Parallel()
	streamtest.Run(t, func(t *testing.T) *streamtest.Fixture {
		log := streamtest.NewLog()
		return &streamtest.Fixture{Source: quick(stream.NewLog(serve(t, log)), nil), Log: log}
	})
}

// serve puts the log behind a real gRPC server and client.
func serve(t *testing.T, log *streamtest.Log) relayv1.LogServiceClient {
	srv := rpc.NewServer(rpc.ServerOptions{
		Addr: "127.0.0.1:0", Log: telemetry.NewLogger(t.Output(), "test", nil), Registry: prometheus.NewRegistry(), Register: log.Register,
	})
	require.NoError(t, srv.Start(t.Context()))
	t.Cleanup(func() { require.NoError(t, srv.Stop(context.WithoutCancel(t.Context()))) })
	conn, err := rpc.Dial(srv.Addr(), rpc.ClientOptions{})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, conn.Close()) })
	return relayv1.NewLogServiceClient(conn)
}

func TestRedis(t *testing.T) {
	t.Parallel()
	streamtest.Run(t, redisFixture)
}

func redisFixture(t *testing.T) *streamtest.Fixture {
	log := streamtest.NewLog()
	server := redistest.New(t)
	p := streamtest.NewPublisher(t, log, server.URL, server)
	return &streamtest.Fixture{
		Source: quick(log.Direct(), p.Redis(t)), Log: log, Publish: p.Publish,
		Faults: map[string]func(context.Context) error{
			"flushed":          p.Flush,
			"restarted":        p.Restart,
			"trimmed":          func(ctx context.Context) error { return p.Trim(ctx, 3) },
			"rebuilt":          func(ctx context.Context) error { return p.Refill(ctx, 1000) },
			"rebuilt in part":  func(ctx context.Context) error { return p.Refill(ctx, 7) },
			"holes":            p.Puncture,
			"log down a while": outage(log),
		},
	}
}

func limitChecks() {
	flag.Parse()
	given := false
	flag.Visit(func(f *flag.Flag) { given = given || f.Name == "rapid.checks" })
	if !given {
		_ = flag.Set("rapid.checks", few) // rapid registers it
	}
}
