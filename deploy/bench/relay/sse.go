package main

import (
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/sametick/sametick/deploy/bench/internal/latency"
)

// sse measures commit → bytes at a client of sse-gateway; each organisation has one client.
func (b *bench) sse(ctx context.Context) (err error) {
	l, err := b.startLive(ctx, "sse")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.stop()) }()
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		return fmt.Errorf("make a token key: %w", err)
	}
	gateway, err := b.rig.Service("sse-gateway", "RELAY_ADDR="+l.relay.GRPC,
		"TOKEN_PUBLIC_KEYS=bench:"+base64.StdEncoding.EncodeToString(public))
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
				return subscribe(ctx, group, "http://"+gateway.HTTP+"/api/events/stream", private, clock)
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
func subscribe(ctx context.Context, group *errgroup.Group, url string, key ed25519.PrivateKey, clock *latency.Clock) error {
	ready := make(chan struct{}, len(orgs()))
	for _, org := range orgs() {
		token, err := accessToken(key, org)
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

// accessToken signs what api-gateway would give a user of the organisation (RFC 7519, EdDSA).
func accessToken(key ed25519.PrivateKey, org int64) (string, error) {
	now := time.Now().Unix()
	header, err := json.Marshal(map[string]any{"alg": "EdDSA", "typ": "JWT", "kid": "bench"})
	if err != nil {
		return "", fmt.Errorf("encode a token: %w", err)
	}
	claims, err := json.Marshal(map[string]any{
		"iss": "sametick", "aud": "sametick", "sub": "user:1", "org": org, "scope": "events:read records:read records:write",
		"iat": now, "exp": now + 24*3600, "jti": fmt.Sprintf("bench-%d", org),
	})
	if err != nil {
		return "", fmt.Errorf("encode a token: %w", err)
	}
	signed := base64.RawURLEncoding.EncodeToString(header) + "." + base64.RawURLEncoding.EncodeToString(claims)
	return signed + "." + base64.RawURLEncoding.EncodeToString(ed25519.Sign(key, []byte(signed))), nil
}
