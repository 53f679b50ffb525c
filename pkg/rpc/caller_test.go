package rpc_test

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"github.com/sametick/sametick/pkg/errs"
	"github.com/sametick/sametick/pkg/rpc"
)

// A forwarded caller is believed beside the suite's token alone.
func TestCallerOf(t *testing.T) {
	const token = "secret-secret-sec"
	user := int64(7)
	sent := rpc.Caller{OrgID: 3, UserID: &user, Subject: "user:7", Scopes: "events:read webhooks:manage", IP: "203.0.113.9", UserAgent: "ключ\n"}
	var seen *rpc.Caller
	serve := func(services ...string) rpc.ServerOptions {
		o := options(&syncBuffer{}, func(ctx context.Context, _ string) (string, error) {
			if c, ok := rpc.CallerOf(ctx); ok {
				seen = &c
			}
			return "", nil
		})
		u, s := rpc.InternalAuth(token, services...)
		o.Unary, o.Stream = []grpc.UnaryServerInterceptor{u}, []grpc.StreamServerInterceptor{s}
		return o
	}
	ways := map[string]func(ctx context.Context, c *grpc.ClientConn) error{
		"unary":  func(ctx context.Context, c *grpc.ClientConn) error { _, err := say(ctx, c, ""); return err },
		"stream": func(ctx context.Context, c *grpc.ClientConn) error { _, err := sayStream(ctx, c, ""); return err },
	}
	guarded, open := start(t, serve()), start(t, serve("test.Other"))
	for way, call := range ways {
		for name, c := range map[string]struct {
			server *grpc.ClientConn
			ctx    context.Context
			want   errs.Kind
			caller *rpc.Caller
		}{
			"beside the token": {dial(t, guarded, rpc.ClientOptions{Token: token}), rpc.WithCaller(t.Context(), sent), errs.OK, &sent},
			"without a caller": {dial(t, guarded, rpc.ClientOptions{Token: token}), t.Context(), errs.OK, nil},
			"without a token":  {dial(t, guarded, rpc.ClientOptions{}), rpc.WithCaller(t.Context(), sent), errs.Unauthenticated, nil},
			"wrong token":      {dial(t, guarded, rpc.ClientOptions{Token: "x"}), rpc.WithCaller(t.Context(), sent), errs.Unauthenticated, nil},
			"not guarded":      {dial(t, open, rpc.ClientOptions{Token: token}), rpc.WithCaller(t.Context(), sent), errs.OK, nil},
			"two callers":      {dial(t, guarded, rpc.ClientOptions{Token: token}), rpc.WithCaller(rpc.WithCaller(t.Context(), sent), sent), errs.Internal, nil},
			"of no organisation": {dial(t, guarded, rpc.ClientOptions{Token: token}), rpc.WithCaller(t.Context(), rpc.Caller{Subject: "user:7"}),
				errs.Internal, nil},
			"garbage": {dial(t, guarded, rpc.ClientOptions{Token: token}), metadata.AppendToOutgoingContext(t.Context(), "sametick-caller-bin", "{"),
				errs.Internal, nil},
		} {
			seen = nil
			require.Equal(t, c.want, errs.KindOf(call(c.ctx, c.server)), "%s, %s", way, name)
			require.Equal(t, c.caller, seen, "%s, %s", way, name)
		}
	}
}
