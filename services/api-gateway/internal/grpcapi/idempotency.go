package grpcapi

import (
	"context"

	"google.golang.org/grpc"

	"github.com/sametick/sametick/pkg/idempotency"
	identityv1 "github.com/sametick/sametick/proto/gen/go/sametick/identity/v1"
)

// Idempotency is the interceptor, after Access.Unary, of calls that carry a key.
func Idempotency(once idempotency.Once) grpc.UnaryServerInterceptor {
	return idempotency.Unary(idempotency.Options{Once: once,
		Caller: func(ctx context.Context) (int64, string) {
			c := callerOf(ctx)
			return c.call.OrgID, c.principal.Subject
		},
		Elsewhere: isForwarded,
		Refused:   map[string]string{identityv1.IdentityService_ChangePassword_FullMethodName: "each try of a password counts"},
	})
}
