package grpcapi

import (
	"context"
	"math"
	"strconv"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"github.com/sametick/sametick/pkg/auth"
	"github.com/sametick/sametick/pkg/errs"
)

// Metadata of every answer to a caller whose budgets are known: the one of its organisation's and its own that has
// less left. Over REST they are the header fields of draft-ietf-httpapi-ratelimit-headers-06. Later drafts have one
// structured RateLimit field instead, which hardly a client reads so far.
const (
	// LimitKey is the most calls at once.
	LimitKey = "ratelimit-limit"
	// RemainingKey is how many of those are left.
	RemainingKey = "ratelimit-remaining"
	// ResetKey is the seconds until all of them are.
	ResetKey = "ratelimit-reset"
)

// Budget is what a call has left of a budget of calls.
type Budget struct {
	// Of is whose it is, for clients: "organization" or "caller".
	Of               string
	Allowed          bool
	Limit, Remaining int
	Retry, Reset     time.Duration
}

// Limits takes a call from the budgets of an organisation and of one of its users or API keys. It gives nil where there
// is no limit, or nobody can tell.
type Limits interface {
	Take(ctx context.Context, orgID int64, caller string) *Budget
}

// spend takes a call from the caller's budgets: also one that is refused for its scope, or fails.
func (a *Access) spend(ctx context.Context, p auth.Principal) error {
	if a.limits == nil {
		return nil
	}
	b := a.limits.Take(ctx, p.OrgID, p.Subject)
	if b == nil {
		return nil
	}
	_ = grpc.SetHeader(ctx, metadata.Pairs(LimitKey, strconv.Itoa(b.Limit), // an in-process call has none
		RemainingKey, strconv.Itoa(b.Remaining), ResetKey, strconv.Itoa(int(math.Ceil(b.Reset.Seconds())))))
	if b.Allowed {
		return nil
	}
	return errs.New(errs.ResourceExhausted, "RATE_LIMITED", "too many calls: wait, then try again").
		WithMeta("limit", b.Of).WithRetryAfter(b.Retry)
}
