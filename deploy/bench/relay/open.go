package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

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
