package rpc

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"github.com/sametick/sametick/pkg/errs"
)

var errNotInternal = errs.New(errs.Unauthenticated, "INTERNAL_TOKEN_REQUIRED", "this service is for the suite itself")

// InternalAuth lets only bearers of the suite's token call the named services (full names, e.g.
// "sametick.relay.v1.LogService"); without names, every service but health and reflection. An empty
// token lets nobody in. Comparison takes constant time. What follows finds the forwarded caller by CallerOf.
func InternalAuth(token string, services ...string) (grpc.UnaryServerInterceptor, grpc.StreamServerInterceptor) {
	a := internalAuth{token: sha256.Sum256([]byte(token)), empty: token == "", services: map[string]bool{}}
	for _, s := range services {
		a.services[s] = true
	}
	unary := func(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
		ctx, err := a.admit(ctx, info.FullMethod)
		if err != nil {
			return nil, err
		}
		return next(ctx, req)
	}
	stream := func(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) error {
		ctx, err := a.admit(ss.Context(), info.FullMethod)
		if err != nil {
			return err
		}
		return next(srv, serverStream{ss, ctx})
	}
	return unary, stream
}

type internalAuth struct {
	token    [sha256.Size]byte
	empty    bool
	services map[string]bool
}

// admit lets a call in, with the caller that its sender has forwarded.
func (a internalAuth) admit(ctx context.Context, method string) (context.Context, error) {
	service, _, _ := strings.Cut(strings.TrimPrefix(method, "/"), "/")
	if !a.guards(service) {
		return ctx, nil
	}
	values := metadata.ValueFromIncomingContext(ctx, "authorization")
	if len(values) != 1 || a.empty {
		return nil, errNotInternal
	}
	scheme, token, _ := strings.Cut(values[0], " ")
	sent := sha256.Sum256([]byte(token))
	if !strings.EqualFold(scheme, "bearer") || subtle.ConstantTimeCompare(sent[:], a.token[:]) != 1 {
		return nil, errNotInternal
	}
	return believe(ctx)
}

func (a internalAuth) guards(service string) bool {
	if len(a.services) > 0 {
		return a.services[service]
	}
	return !strings.HasPrefix(service, "grpc.health.") && !strings.HasPrefix(service, "grpc.reflection.")
}

// bearer sends the suite's token with each call. It does not insist on TLS: inside a cluster the
// network or a mesh keeps it, and ClientOptions.TLS is there for the rest.
type bearer string

// GetRequestMetadata gives the header.
func (b bearer) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return map[string]string{"authorization": "Bearer " + string(b)}, nil
}

// RequireTransportSecurity is false, see bearer.
func (b bearer) RequireTransportSecurity() bool { return false }
