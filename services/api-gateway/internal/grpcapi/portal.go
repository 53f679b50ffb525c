package grpcapi

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/sametick/sametick/pkg/auth"
	"github.com/sametick/sametick/pkg/errs"
	webhooksv1 "github.com/sametick/sametick/proto/gen/go/sametick/webhooks/v1"
)

// PortalMethods are those that a portal link's token may call, and nothing else may it. What reaches past endpoints and
// what became of their deliveries is not among them: making more links, reading events (TryEndpoint), sending what
// happened before (ReplayEndpoint) and exporting.
func PortalMethods() []string {
	return []string{
		webhooksv1.WebhookService_CreateEndpoint_FullMethodName, webhooksv1.WebhookService_GetEndpoint_FullMethodName,
		webhooksv1.WebhookService_ListEndpoints_FullMethodName, webhooksv1.WebhookService_UpdateEndpoint_FullMethodName,
		webhooksv1.WebhookService_ArchiveEndpoint_FullMethodName, webhooksv1.WebhookService_RestoreEndpoint_FullMethodName,
		webhooksv1.WebhookService_EnableEndpoint_FullMethodName, webhooksv1.WebhookService_DisableEndpoint_FullMethodName,
		webhooksv1.WebhookService_RotateSecret_FullMethodName, webhooksv1.WebhookService_GetEndpointStats_FullMethodName,
		webhooksv1.WebhookService_TestEndpoint_FullMethodName, webhooksv1.WebhookService_RecoverEndpoint_FullMethodName,
		webhooksv1.WebhookService_ListReplays_FullMethodName,
		webhooksv1.WebhookService_ListDeliveries_FullMethodName, webhooksv1.WebhookService_GetDelivery_FullMethodName,
		webhooksv1.WebhookService_RedeliverDelivery_FullMethodName, webhooksv1.WebhookService_SkipDelivery_FullMethodName,
		webhooksv1.WebhookService_ListAttempts_FullMethodName, webhooksv1.WebhookService_GetAttempt_FullMethodName,
	}
}

// admitPortal lets in who calls by a portal link's token. They have no scope, so that what forgets to ask refuses them.
func (a *Access) admitPortal(ctx context.Context, method, token string) (auth.Principal, error) {
	if !slices.Contains(PortalMethods(), method) { // also where no token is needed
		return auth.Principal{}, errs.New(errs.PermissionDenied, "PORTAL_TOKEN", "the token of a portal link is for webhook endpoints and their deliveries alone")
	}
	p, err := a.tokens.VerifyPortal(ctx, token)
	if err != nil {
		return p, err
	}
	return p, a.spend(ctx, p)
}

// PortalSigner makes the tokens of portal links.
type PortalSigner interface {
	// SignPortal makes a token for what p.Portal says, in the name of p, that ends at a time.
	SignPortal(p auth.Principal, until time.Time) (token string, err error)
}

// WithPortals completes the links that the other process has recorded: this one has the key that signs. public is the
// address under which browsers reach the REST side, empty for the one that the call came to; page is the path there.
func (f *Forward) WithPortals(s PortalSigner, public, page string) *Forward {
	f.finish = map[string]func(context.Context, any, proto.Message) error{
		webhooksv1.WebhookService_CreatePortalLink_FullMethodName: func(ctx context.Context, req any, answer proto.Message) error {
			asked, _ := req.(*webhooksv1.CreatePortalLinkRequest)
			link, ok := answer.(*webhooksv1.PortalLink)
			if !ok || asked == nil || link.GetExpiresAt() == nil {
				return errs.New(errs.Internal, "INTERNAL", "internal error").WithCause(fmt.Errorf("%s has made no link", f.process))
			}
			c := callerOf(ctx)
			by := c.principal
			by.Portal = &auth.Portal{Endpoints: asked.GetEndpointIds()}
			token, err := s.SignPortal(by, link.GetExpiresAt().AsTime())
			if err != nil {
				return err
			}
			origin := public
			if origin == "" {
				origin = c.origin
			}
			// Behind the #: browsers send that to no server, so no log and no Referer has it.
			link.Url = strings.TrimSuffix(origin, "/") + page + "#token=" + token
			return nil
		},
	}
	return f
}

// endOf is when the power ends that a caller has shown; nil for a login, whose session goes on, and for a key without end.
func endOf(p auth.Principal) *time.Time {
	if p.SessionID != "" || p.ExpiresAt.IsZero() {
		return nil
	}
	return &p.ExpiresAt
}
