package sse

import (
	"context"
	"crypto/tls"
	"net"

	"golang.org/x/sys/unix"
)

// unsentBytes is what the kernel may hold of a stream beyond what is on its way.
const unsentBytes = 128 << 10

// LimitUnsent is the http.Server's ConnContext that streams need. Linux buffers up to 4 MiB for a connection
// and calls it writable again when a third of that has gone: a client that reads steadily, at 100 KiB/s, then
// looks for longer than WriteTimeout as if it read nothing, and a heartbeat waits behind 40 s of events. With
// TCP_NOTSENT_LOWAT (tcp(7)) a write waits for what is not yet on its way alone.
func LimitUnsent(ctx context.Context, c net.Conn) context.Context {
	if t, ok := c.(*tls.Conn); ok {
		c = t.NetConn()
	}
	if t, ok := c.(*net.TCPConn); ok {
		if raw, err := t.SyscallConn(); err == nil {
			_ = raw.Control(func(fd uintptr) { // a connection that refuses is one that buffers more
				_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT, unsentBytes)
			})
		}
	}
	return ctx
}
