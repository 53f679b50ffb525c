package rpc

import (
	"context"
	"encoding/json"
	"time"

	"google.golang.org/grpc/metadata"

	"github.com/sametick/sametick/pkg/errs"
)

// callerKey is the metadata key of a forwarded caller: binary, so that gRPC carries it whatever is in it.
const callerKey = "sametick-caller-bin"

// Caller is for whom one service of the suite calls another: whoever the first has authenticated.
type Caller struct {
	OrgID int64 `json:"org_id"`
	// UserID is the acting user; nil when no user stands behind the call.
	UserID *int64 `json:"user_id,omitempty"`
	// Subject is "user:<id>" or "api_key:<id>".
	Subject string `json:"subject"`
	// Scopes are separated by spaces.
	Scopes string `json:"scopes"`
	// IP and UserAgent are those of the client; empty when unknown.
	IP        string `json:"ip,omitempty"`
	UserAgent string `json:"user_agent,omitempty"`
	// ExpiresAt ends what the caller has shown; nil for what a session renews, and for what has no end.
	ExpiresAt *time.Time `json:"expires_at,omitempty"`
	// Portal is set for who calls by a portal link, without any scope.
	Portal *Portal `json:"portal,omitempty"`
}

// Portal is what a portal link is for.
type Portal struct {
	// ID is the link's.
	ID string `json:"id"`
	// Endpoints are the ids of the webhook endpoints; empty means all of the organisation.
	Endpoints []int64 `json:"endpoints,omitempty"`
}

// WithCaller makes a client's calls of ctx say for whom they are. Request id and trace travel by themselves.
func WithCaller(ctx context.Context, c Caller) context.Context {
	text, err := json.Marshal(c)
	if err != nil { // numbers and strings always marshal
		panic(err)
	}
	return metadata.AppendToOutgoingContext(ctx, callerKey, string(text))
}

type believedKey struct{}

// CallerOf gives the caller that a sibling has forwarded. Only InternalAuth puts it there, which has seen the suite's
// token beside it: what anybody else writes into metadata is nobody.
func CallerOf(ctx context.Context) (Caller, bool) {
	c, ok := ctx.Value(believedKey{}).(Caller)
	return c, ok
}

// believe reads the caller of a call whose token is the suite's.
func believe(ctx context.Context) (context.Context, error) {
	sent := metadata.ValueFromIncomingContext(ctx, callerKey)
	if len(sent) == 0 {
		return ctx, nil
	}
	var c Caller
	if err := json.Unmarshal([]byte(sent[0]), &c); err != nil || len(sent) > 1 || c.OrgID < 1 || c.Subject == "" {
		return nil, errs.New(errs.Internal, "CALLER_MALFORMED", "internal error").WithCause(err)
	}
	return context.WithValue(ctx, believedKey{}, c), nil
}
