package follow

import (
	"context"
	"fmt"
	"net/http/httptrace"
	"sync"
	"time"
)

// Place is where a living client is: what an inquiry into one that does not come on begins with.
type Place struct {
	Life *Life
	// Last is its Last-Event-ID, -1 before the first id.
	Last int64
	// Gateway is the base URL of its connection, Local its own end of it (host:port) and Since when it was
	// made; all zero between two connections.
	Gateway, Local string
	Since          time.Time
	// Event and Heartbeat are when the newest of each came, on whatever connection; zero for never.
	Event, Heartbeat time.Time
}

// String tells all of it in a line.
func (p Place) String() string {
	connected := "not connected"
	if p.Gateway != "" {
		connected = fmt.Sprintf("connected %s as %s to %s", ago(p.Since), p.Local, p.Gateway)
	}
	return fmt.Sprintf("%s (org %d, filter %+v) is at %d: last event %s, last heartbeat %s, %s",
		p.Life.Name, p.Life.OrgID, p.Life.Filter, p.Last, ago(p.Event), ago(p.Heartbeat), connected)
}

func ago(t time.Time) string {
	if t.IsZero() {
		return "never"
	}
	return time.Since(t).Round(100*time.Millisecond).String() + " ago"
}

// whereabouts is a client's Place while it moves.
type whereabouts struct {
	mu    sync.Mutex
	place Place
}

func (w *whereabouts) now() Place {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.place
}

// trace notes the connection that a request gets.
func (w *whereabouts) trace(ctx context.Context, gateway string) context.Context {
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(info httptrace.GotConnInfo) {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.place.Gateway, w.place.Local, w.place.Since = gateway, info.Conn.LocalAddr().String(), time.Now()
	}})
}

func (w *whereabouts) disconnected() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.place.Gateway, w.place.Local, w.place.Since = "", "", time.Time{}
}

// hear notes a block.
func (w *whereabouts) hear(b *block) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if b.hasData {
		w.place.Event = time.Now()
	}
	if b.comment {
		w.place.Heartbeat = time.Now()
	}
}
