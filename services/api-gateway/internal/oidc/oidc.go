// Package oidc verifies tokens of an external OpenID Connect issuer (OpenID Connect Core 1.0): its keys are
// found by discovery, fetched with a time limit and kept. Whose a token is, package identity decides.
package oidc

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"

	"github.com/sametick/sametick/pkg/errs"
	"github.com/sametick/sametick/services/api-gateway/internal/identity"
)

const (
	// maxToken bounds what is parsed.
	maxToken = 16 << 10
	// fetchTimeout bounds a request to the issuer.
	fetchTimeout = 5 * time.Second
)

// algorithms are asymmetric: none and HMAC, with which a public key would be the secret, are never believed
// (RFC 8725, 3.1).
func algorithms() []string {
	return []string{oidc.RS256, oidc.RS384, oidc.RS512, oidc.PS256, oidc.PS384, oidc.PS512, oidc.ES256, oidc.ES384, oidc.ES512, oidc.EdDSA}
}

// Verifier implements identity.ExternalVerifier. Safe for concurrent use.
type Verifier struct {
	issuer, audience string
	transport        *http.Transport
	kept             *kept

	mu       sync.Mutex
	verifier *oidc.IDTokenVerifier // nil until the issuer was found
}

// New makes a verifier of an issuer's tokens for an audience. It asks the issuer nothing yet: the service must
// start without it.
func New(issuer, audience string) *Verifier {
	t := &http.Transport{Proxy: http.ProxyFromEnvironment, MaxIdleConnsPerHost: 2, IdleConnTimeout: time.Minute,
		TLSHandshakeTimeout: fetchTimeout, ResponseHeaderTimeout: fetchTimeout}
	return &Verifier{issuer: issuer, audience: audience, transport: t, kept: newKept(t, time.Now)}
}

// Close closes the connections to the issuer.
func (v *Verifier) Close() { v.transport.CloseIdleConnections() }

// Issued implements identity.ExternalVerifier.
func (v *Verifier) Issued(token string) bool {
	if len(token) > maxToken {
		return false
	}
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return false
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return false
	}
	var claims struct {
		Issuer string `json:"iss"`
	}
	return json.Unmarshal(payload, &claims) == nil && claims.Issuer == v.issuer
}

// Verify implements identity.ExternalVerifier.
func (v *Verifier) Verify(ctx context.Context, token string) (identity.Claims, error) {
	verifier, err := v.discover(ctx)
	if err != nil {
		return identity.Claims{}, err
	}
	failures := v.kept.failures.Load()
	t, err := verifier.Verify(ctx, token)
	if err != nil {
		switch {
		case isExpired(err): // which its signature was verified for, so a failure is another's
			return identity.Claims{}, errs.New(errs.Unauthenticated, "TOKEN_EXPIRED", "the access token has expired").WithCause(err)
		case v.kept.failures.Load() != failures:
			return identity.Claims{}, unavailable(err)
		}
		return identity.Claims{}, errs.New(errs.Unauthenticated, "TOKEN_INVALID", "the access token is not valid here").WithCause(err)
	}
	var more struct {
		Email    string `json:"email"`
		Verified any    `json:"email_verified"`
	}
	if err := t.Claims(&more); err != nil || t.Subject == "" {
		return identity.Claims{}, errs.New(errs.Unauthenticated, "TOKEN_INVALID", "the access token is not valid here").WithCause(err)
	}
	return identity.Claims{Issuer: t.Issuer, Subject: t.Subject, Email: more.Email, EmailVerified: more.Verified == true,
		IssuedAt: t.IssuedAt, ExpiresAt: t.Expiry}, nil
}

// discover finds the issuer at the first use, and after a failure at the next.
func (v *Verifier) discover(ctx context.Context) (*oidc.IDTokenVerifier, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.verifier != nil {
		return v.verifier, nil
	}
	// Its keys are fetched by this client for as long as the process lives.
	client := oidc.ClientContext(context.WithoutCancel(ctx), &http.Client{Transport: v.kept, Timeout: fetchTimeout,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }})
	provider, err := oidc.NewProvider(client, v.issuer)
	if err != nil {
		return nil, unavailable(err)
	}
	v.verifier = provider.VerifierContext(client, &oidc.Config{ClientID: v.audience, SupportedSigningAlgs: algorithms()})
	return v.verifier, nil
}

func unavailable(cause error) error {
	return errs.New(errs.Unavailable, "ISSUER_UNAVAILABLE", "the external issuer's keys cannot be had at the moment").
		WithRetryAfter(fetchTimeout).WithCause(cause)
}
