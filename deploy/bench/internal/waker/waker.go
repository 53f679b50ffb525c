// Package waker hints to outbox-relay that something is committed.
package waker

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"

	relayv1 "github.com/sametick/sametick/proto/gen/go/sametick/relay/v1"
)

// Waker sends RelayService.Wake as api-gateway does: lossy and coalesced, from one goroutine.
type Waker struct {
	conn  *grpc.ClientConn
	hints chan struct{}
	done  chan struct{}
}

// New connects to a relay with the internal token.
func New(addr, token string) (*Waker, error) {
	conn, err := grpc.NewClient(addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, fmt.Errorf("connect to the relay: %w", err)
	}
	w := &Waker{conn: conn, hints: make(chan struct{}, 1), done: make(chan struct{})}
	go w.loop(token)
	return w, nil
}

func (w *Waker) loop(token string) {
	defer close(w.done)
	client := relayv1.NewRelayServiceClient(w.conn)
	for range w.hints {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		ctx = metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+token)
		// A hint may be lost: the relay polls.
		_, _ = client.Wake(ctx, &relayv1.WakeRequest{})
		cancel()
		time.Sleep(hintPause)
	}
}

// hintPause is api-gateway's pause between two hints (pkg/wake).
const hintPause = 5 * time.Millisecond

// Hint never blocks: one that waits stands for all that come meanwhile.
func (w *Waker) Hint() {
	select {
	case w.hints <- struct{}{}:
	default:
	}
}

// Close must come after the last hint.
func (w *Waker) Close() error {
	close(w.hints)
	<-w.done
	return w.conn.Close()
}
