package auth

import (
	"context"
	"fmt"
	"strings"
	"time"
)

// portalAudience keeps portal tokens from whoever verifies access tokens, of this release and of older ones.
const portalAudience = "sametick-portal"

// Portal is what the token of a portal link is for: webhook endpoints of its organisation, and nothing else.
type Portal struct {
	// Endpoints are the ids; empty means all.
	Endpoints []int64
}

// SignPortal makes a portal token for what p.Portal says, in the name of p, that ends at a time, which counts in whole
// seconds. It carries no scope: what may be done with it is for whoever verifies portal tokens to say.
func (s *Signer) SignPortal(p Principal, until time.Time) (string, error) {
	if p.Portal == nil {
		return "", fmt.Errorf("sign portal token: it is for nothing")
	}
	p.IssuedAt, p.Scopes, p.ExpiresAt = s.now().Truncate(time.Millisecond), 0, until
	text, _, err := s.sign(p, portalAudience)
	return PortalPrefix + text, err
}

// IsPortal tells whether a credential has the form of a portal token.
func IsPortal(token string) bool { return strings.HasPrefix(token, PortalPrefix) }

// VerifyPortal tells whose a portal token is, as Verify does of access tokens: with Portal set, and no scopes.
func (v *Verifier) VerifyPortal(_ context.Context, token string) (Principal, error) {
	text, ok := strings.CutPrefix(token, PortalPrefix)
	if !ok {
		return Principal{}, refuse("TOKEN_MALFORMED", "that is no token of a portal link", nil)
	}
	return v.verify(text, v.portalParser, &v.portals, func(c *claims) Principal {
		p := c.principal()
		p.Scopes, p.Portal = 0, &Portal{Endpoints: c.Endpoints}
		return p
	})
}
