package lifecycle

import (
	"context"
	"crypto/tls"
	"net"
	"syscall"
)

const (
	// unsentBytes is what the kernel may hold for a client beyond what is on its way.
	unsentBytes = 32 << 10
	// notSentLowat is TCP_NOTSENT_LOWAT (Linux' include/uapi/linux/tcp.h), which package syscall lacks.
	notSentLowat = 25
)

// LimitUnsent is the http.Server's ConnContext that streams need. Linux buffers up to 4 MiB for a connection
// and calls it writable again when a third of that has gone: a client that reads steadily, at 75 KiB/s, then
// looks for longer than a write may take as if it read nothing, and a heartbeat waits behind 40 s of events. With
// TCP_NOTSENT_LOWAT (tcp(7)) a write waits for what is not yet on its way alone.
func LimitUnsent(ctx context.Context, c net.Conn) context.Context {
	if t, ok := c.(*tls.Conn); ok {
		c = t.NetConn()
	}
	if t, ok := c.(*net.TCPConn); ok {
		if raw, err := t.SyscallConn(); err == nil {
			_ = raw.Control(func(fd uintptr) { // a connection that refuses is one that buffers more
				_ = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, notSentLowat, unsentBytes)
			})
		}
	}
	return ctx
}
