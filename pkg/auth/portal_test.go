package auth_test

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sametick/sametick/pkg/auth"
	"github.com/sametick/sametick/pkg/errs"
)

// A portal token says for what and for whom it is, has no scope, and is nothing to who verifies access tokens; an access
// token is nothing to who verifies portal tokens, whatever prefix it is given. What was verified once changes nothing.
func TestPortalTokens(t *testing.T) {
	signer, public := keys(t, "k1")
	now := time.Now()
	v := verifier(t, public, auth.WithClock(func() time.Time { return now }))
	user, until := int64(7), now.Add(time.Hour).Truncate(time.Second)
	maker := auth.Principal{OrgID: 3, UserID: &user, Subject: "user:7", SessionID: "s1", Scopes: auth.ScopesOf(auth.AllScopes()...)}
	_, err := signer.SignPortal(maker, until)
	require.Error(t, err, "for nothing")
	maker.Portal = &auth.Portal{Endpoints: []int64{4, 5}}
	token, err := signer.SignPortal(maker, until)
	require.NoError(t, err)
	require.True(t, auth.IsPortal(token))
	access, _, err := signer.Sign(auth.Principal{OrgID: 3, UserID: &user, Subject: "user:7", Scopes: auth.ScopesOf(auth.AllScopes()...)}, time.Hour)
	require.NoError(t, err)
	require.False(t, auth.IsPortal(access))
	for range 2 { // the second time they are known
		p, err := v.VerifyPortal(t.Context(), token)
		require.NoError(t, err)
		require.Equal(t, &auth.Portal{Endpoints: []int64{4, 5}}, p.Portal)
		require.Zero(t, p.Scopes)
		require.Equal(t, []any{int64(3), int64(7), "user:7", "s1"}, []any{p.OrgID, *p.UserID, p.Subject, p.SessionID})
		require.True(t, p.ExpiresAt.Equal(until))
		require.NotEmpty(t, p.TokenID)
		_, err = v.Verify(t.Context(), access)
		require.NoError(t, err)
		bare := strings.TrimPrefix(token, auth.PortalPrefix)
		for reason, refuse := range map[string]func() (auth.Principal, error){
			"TOKEN_MALFORMED":  func() (auth.Principal, error) { return v.Verify(t.Context(), token) },
			"TOKEN_INVALID":    func() (auth.Principal, error) { return v.Verify(t.Context(), bare) },
			"TOKEN_INVALID ":   func() (auth.Principal, error) { return v.VerifyPortal(t.Context(), auth.PortalPrefix+access) },
			"TOKEN_MALFORMED ": func() (auth.Principal, error) { return v.VerifyPortal(t.Context(), bare) },
		} {
			p, err := refuse()
			require.True(t, errs.HasReason(err, strings.TrimSpace(reason)), "%s: %v", reason, err)
			require.Zero(t, p)
		}
	}
	now = until.Add(time.Minute)
	_, err = v.VerifyPortal(t.Context(), token)
	require.True(t, errs.HasReason(err, "TOKEN_EXPIRED"))
}
