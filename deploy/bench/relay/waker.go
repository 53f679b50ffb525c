package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"

	relayv1 "github.com/sametick/sametick/proto/gen/go/sametick/relay/v1"
)

// waker sends RelayService.Wake as api-gateway does: lossy and coalesced, from one goroutine.
type waker struct {
	conn  *grpc.ClientConn
	hints chan struct{}
	done  chan struct{}
}

func newWaker(addr, token string) (*waker, error) {
	conn, err := grpc.NewClient(addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, fmt.Errorf("connect to the relay: %w", err)
	}
	w := &waker{conn: conn, hints: make(chan struct{}, 1), done: make(chan struct{})}
	go w.loop(token)
	return w, nil
}

func (w *waker) loop(token string) {
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

// hintPause is api-gateway's pause between two hints (its internal/wake).
const hintPause = 5 * time.Millisecond

// hint never blocks: one that waits stands for all that come meanwhile.
func (w *waker) hint() {
	select {
	case w.hints <- struct{}{}:
	default:
	}
}

// close must come after the last hint.
func (w *waker) close() error {
	close(w.hints)
	<-w.done
	return w.conn.Close()
}

// open begins a transaction that has recorded a thousand events, and leaves it open; release ends it.
func open(ctx context.Context, url string) (release func() error, err error) {
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return nil, fmt.Errorf("open a transaction: %w", err)
	}
	release = func() error { return conn.Close(context.WithoutCancel(ctx)) } // which rolls back
	_, err = conn.Exec(ctx, `BEGIN`)
	if err == nil {
		_, err = conn.Exec(ctx, `SELECT sametick.record_event(1, 'task', 1000000000 + i, 'noted') FROM generate_series(1, 1000) i`)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open a transaction: %w", err), release())
	}
	return release, nil
}

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
