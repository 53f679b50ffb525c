package rig_test

import (
	"net"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sametick/sametick/deploy/torture/internal/rig"
)

// Ends tells a connection where bytes wait from one whose other end is gone.
func TestBothEndsOfAConnection(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("only Linux has the table")
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer func() { _ = listener.Close() }()
	client, err := net.Dial("tcp", listener.Addr().String())
	require.NoError(t, err)
	defer func() { _ = client.Close() }()
	server, err := listener.Accept()
	require.NoError(t, err)
	_, err = server.Write([]byte("12345"))
	require.NoError(t, err)
	ends := func() string { return rig.Ends(client.LocalAddr().String()) }
	require.Eventually(t, func() bool {
		return ends() == "its own end: ESTABLISHED, 0 bytes to be acknowledged, 5 to be read; the gateway's: ESTABLISHED, 0 bytes to be acknowledged, 0 to be read"
	}, 5*time.Second, time.Millisecond, "%s", ends())
	require.NoError(t, server.Close())
	require.Eventually(t, func() bool { return len(ends()) > 0 && ends()[:23] == "its own end: CLOSE_WAIT" }, 5*time.Second, time.Millisecond)
	require.Contains(t, rig.Ends("127.0.0.1:1"), "its own end: gone; the gateway's: gone")
}
