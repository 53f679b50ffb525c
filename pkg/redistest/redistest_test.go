package redistest_test

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/sametick/sametick/pkg/devstack"
	"github.com/sametick/sametick/pkg/redistest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// ask gives the first line of the answer to an authenticated command.
func ask(r *devstack.Redis, command string, patience time.Duration) (string, error) {
	conn, err := net.DialTimeout("tcp", r.Addr, patience)
	if err != nil {
		return "", err
	}
	defer func() { _ = conn.Close() }()
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return "", err
	}
	if _, err := fmt.Fprintf(conn, "AUTH %s\r\n%s\r\n", r.Password, command); err != nil {
		return "", err
	}
	in := bufio.NewReader(conn)
	if _, err := in.ReadString('\n'); err != nil {
		return "", err
	}
	line, err := in.ReadString('\n')
	return strings.TrimSpace(line), err
}

func TestKillAndStartOnTheSameAddressEmpty(t *testing.T) {
	t.Parallel()
	r := redistest.New(t)
	url, pid := r.URL, r.PID()
	_, err := ask(r, "SET k v", time.Second)
	require.NoError(t, err)
	require.NoError(t, r.Kill())
	_, err = ask(r, "PING", time.Second)
	require.Error(t, err)
	require.NoError(t, r.Start(t.Context()))
	require.Equal(t, url, r.URL)
	require.NotEqual(t, pid, r.PID())
	n, err := ask(r, "DBSIZE", time.Second)
	require.NoError(t, err)
	require.Equal(t, ":0", n)
}

func TestAPausedServerIsThereAndSilent(t *testing.T) {
	t.Parallel()
	r := redistest.New(t)
	require.NoError(t, r.Pause())
	_, err := ask(r, "PING", 50*time.Millisecond)
	require.ErrorIs(t, err, os.ErrDeadlineExceeded)
	require.NoError(t, r.Continue())
	pong, err := ask(r, "PING", 5*time.Second)
	require.NoError(t, err)
	require.Equal(t, "+PONG", pong)
	require.NoError(t, r.Pause())
	require.NoError(t, r.Stop(), "a paused server can be stopped")
	require.NoError(t, r.Stop(), "twice")
}

func TestArgumentsWin(t *testing.T) {
	t.Parallel()
	r := redistest.New(t, "--maxmemory", "1mb", "--appendonly", "yes")
	_, err := ask(r, "SET k v", time.Second)
	require.NoError(t, err)
	require.NoError(t, r.Stop())
	require.NoError(t, r.Start(t.Context()))
	n, err := ask(r, "DBSIZE", time.Second)
	require.NoError(t, err)
	require.Equal(t, ":1", n)
}

func TestStrangersAreRefused(t *testing.T) {
	t.Parallel()
	r := redistest.New(t)
	stranger := *r
	stranger.Password = "guess"
	answer, err := ask(&stranger, "PING", time.Second)
	require.NoError(t, err)
	require.Contains(t, answer, "NOAUTH")
}
