package oidc

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"github.com/stretchr/testify/require"

	"github.com/sametick/sametick/pkg/errs"
)

// keySet finds each signature good, or gives err.
type keySet func() (payload []byte, err error)

func (f keySet) VerifySignature(context.Context, string) ([]byte, error) { return f() }

// TestExpiredWhileIssuerFails for somebody else: who has an expired token is told to get another, not to wait.
func TestExpiredWhileIssuerFails(t *testing.T) {
	v := New("https://id.example.com", "sametick")
	payload := fmt.Appendf(nil, `{"iss":"https://id.example.com","aud":"sametick","sub":"x","exp":%d}`, time.Now().Add(-time.Minute).Unix())
	var away error
	v.verifier = oidc.NewVerifier("https://id.example.com", keySet(func() ([]byte, error) {
		v.kept.failures.Add(1) // another's, in the middle of it
		return payload, away
	}), &oidc.Config{ClientID: "sametick"})
	part := base64.RawURLEncoding.EncodeToString
	token := part([]byte(`{"alg":"RS256"}`)) + "." + part(payload) + ".eA"
	_, err := v.Verify(t.Context(), token)
	require.True(t, errs.HasReason(err, "TOKEN_EXPIRED"), "%v", err)
	away = errors.New("away")
	_, err = v.Verify(t.Context(), token)
	require.True(t, errs.HasReason(err, "ISSUER_UNAVAILABLE"), "the control: %v", err)
}
