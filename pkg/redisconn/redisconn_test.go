package redisconn_test

import (
	"bytes"
	"context"
	"log/slog"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/sametick/sametick/pkg/errs"
	"github.com/sametick/sametick/pkg/redisconn"
	"github.com/sametick/sametick/pkg/redistest"
)

// The client's reconnect delay is a sleep of at most a second that its Close does not wait for.
func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("github.com/redis/rueidis.(*call).DelayDo.func1"))
}

func TestOpen(t *testing.T) {
	c, err := redisconn.Open(t.Context(), redistest.New(t).URL, redisconn.Options{Name: "relay"})
	require.NoError(t, err)
	t.Cleanup(c.Close)
	require.NoError(t, redisconn.Ping(t.Context(), c))
	name, err := c.Do(t.Context(), c.B().ClientGetname().Build()).ToString()
	require.NoError(t, err)
	require.Equal(t, "relay", name)
}

// A process may start before its Redis: Open waits, and says so.
func TestOpenWaits(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	addr := l.Addr().String()
	require.NoError(t, l.Close()) // now nothing listens there

	var log bytes.Buffer
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	_, err = redisconn.Open(ctx, "redis://u:hunter2@"+addr, redisconn.Options{Log: slog.New(slog.NewTextHandler(&log, nil))})
	require.Equal(t, errs.Unavailable, errs.KindOf(err))
	require.Contains(t, log.String(), addr)
	require.NotContains(t, log.String()+err.Error(), "hunter2")
}

func TestOpenRefusesABadURL(t *testing.T) {
	_, err := redisconn.Open(t.Context(), "redis://u:hunter2@h:6379/notadb", redisconn.Options{})
	require.Error(t, err)
	require.NotContains(t, err.Error(), "hunter2")
}
