//go:build !linux

package lifecycle

import (
	"context"
	"net"
)

// LimitUnsent does nothing here: see the one for Linux.
func LimitUnsent(ctx context.Context, _ net.Conn) context.Context { return ctx }
