package app

import (
	"context"
	"fmt"
	"strings"

	"github.com/sametick/sametick/pkg/auth"
	identityv1 "github.com/sametick/sametick/proto/gen/go/sametick/identity/v1"
)

// tokens verifies access tokens by public key. API keys only api-gateway knows, which gives an access
// token for one.
type tokens struct {
	verifier *auth.Verifier
	identity identityv1.IdentityServiceClient // nil: API keys are not accepted here
}

func newTokens(c Config, p *peers) (*tokens, error) {
	v, err := auth.NewVerifier(c.TokenPublicKeys)
	if err != nil {
		return nil, fmt.Errorf("TOKEN_PUBLIC_KEYS: %w", err)
	}
	t := &tokens{verifier: v}
	if p.api != nil {
		t.identity = identityv1.NewIdentityServiceClient(p.api)
	}
	return t, nil
}

// Verify implements sse.Verifier.
func (t *tokens) Verify(ctx context.Context, token string) (auth.Principal, error) {
	if t.identity != nil && strings.HasPrefix(token, auth.APIKeyPrefix) {
		r, err := t.identity.ExchangeApiKey(ctx, &identityv1.ExchangeApiKeyRequest{Secret: token})
		if err != nil {
			return auth.Principal{}, err
		}
		token = r.GetAccessToken()
	}
	return t.verifier.Verify(ctx, token)
}
