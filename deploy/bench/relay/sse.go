package main

import (
	"context"
	"errors"

	"golang.org/x/sync/errgroup"

	"github.com/sametick/sametick/deploy/bench/internal/latency"
	"github.com/sametick/sametick/deploy/bench/internal/rig"
)

// sse measures commit → bytes at a client of sse-gateway; each organisation has one client.
func (b *bench) sse(ctx context.Context) (err error) {
	l, err := b.startLive(ctx, "sse")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.stop()) }()
	tokens, err := rig.NewTokens()
	if err != nil {
		return err
	}
	gateway, err := b.rig.Service("sse-gateway", "RELAY_ADDR="+l.relay.GRPC, "TOKEN_PUBLIC_KEYS="+tokens.PublicKeys)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, gateway.Stop()) }()
	if err := gateway.Ready(ctx); err != nil {
		return err
	}
	names := map[bool]string{true: "with Wake", false: "by polling"}
	for round := range b.rounds {
		for i := range 2 {
			wake := (round+i)%2 == 0
			r, err := l.follow(ctx, wake, func(ctx context.Context, group *errgroup.Group, clock *latency.Clock) error {
				return subscribe(ctx, group, "http://"+gateway.HTTP+"/api/events/stream", tokens, clock)
			})
			if err = errors.Join(err, gateway.Failure()); err != nil {
				return err
			}
			b.add(legSSE, names[wake], r)
		}
	}
	return nil
}

// subscribe opens a stream for each organisation and waits until all are open.
func subscribe(ctx context.Context, group *errgroup.Group, url string, tokens *rig.Tokens, clock *latency.Clock) error {
	ready := make(chan struct{}, len(orgs()))
	for _, org := range orgs() {
		token, err := tokens.For(org)
		if err != nil {
			return err
		}
		group.Go(func() error { return latency.FollowSSE(ctx, url, token, clock, ready) })
	}
	for range orgs() {
		select {
		case <-ready:
		case <-ctx.Done():
			return nil // the group tells why
		}
	}
	return nil
}
