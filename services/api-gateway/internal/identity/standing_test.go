package identity

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sametick/sametick/pkg/auth"
	"github.com/sametick/sametick/pkg/errs"
)

// register is who stands, and counts what it is asked.
type register struct {
	standing Standing
	err      error
	asked    int
	during   func()
}

func (r *register) FindStanding(context.Context, auth.Principal) (Standing, error) {
	r.asked++
	answer := r.standing
	if r.during != nil {
		r.during()
	}
	return answer, r.err
}

type signed auth.Principal

func (s signed) Verify(context.Context, string) (auth.Principal, error) {
	return auth.Principal(s), nil
}

func (s signed) VerifyPortal(context.Context, string) (auth.Principal, error) {
	p := auth.Principal(s)
	p.Scopes, p.Portal = 0, &auth.Portal{}
	return p, nil
}

func TestPortalStandsWithItsMaker(t *testing.T) {
	now := time.Date(2026, 4, 12, 0, 0, 0, 0, time.UTC)
	p := signed{OrgID: 1, Subject: "user:7", SessionID: "s", IssuedAt: now}
	good := Standing{Active: true, Scopes: auth.ScopesOf(auth.WebhooksManage)}
	for name, change := range map[string]func(*Standing){
		"":          func(*Standing) {},
		"ended":     func(s *Standing) { s.Active = false },
		"scope":     func(s *Standing) { s.Scopes = auth.ScopesOf(auth.AllScopes()...) &^ auth.ScopesOf(auth.WebhooksManage) },
		"not since": func(s *Standing) { s.NotBefore = now.Add(time.Millisecond) },
	} {
		standing := good
		change(&standing)
		got, err := NewChecker(p, nil, &register{standing: standing}, func() time.Time { return now }).VerifyPortal(t.Context(), "")
		if name == "" {
			require.NoError(t, err)
			require.Zero(t, got.Scopes)
			require.NotNil(t, got.Portal)
			continue
		}
		require.True(t, errs.HasReason(err, "TOKEN_REVOKED"), name)
		require.Zero(t, got)
	}
	_, err := NewChecker(p, nil, &register{err: errors.New("down")}, func() time.Time { return now }).VerifyPortal(t.Context(), "")
	require.Error(t, err, "who cannot be asked lets nobody in")
}

func TestStandingIsAskedAgain(t *testing.T) {
	now := time.Date(2026, 4, 12, 0, 0, 0, 0, time.UTC)
	r := &register{standing: Standing{Active: true, Scopes: auth.ScopesOf(auth.EventsRead)}}
	p := signed{OrgID: 1, Subject: "user:7", SessionID: "s", Scopes: auth.ScopesOf(auth.EventsRead, auth.OrgAdmin), IssuedAt: now}
	c := NewChecker(p, nil, r, func() time.Time { return now })
	for range 3 {
		got, err := c.Verify(t.Context(), "")
		require.NoError(t, err)
		require.Equal(t, auth.ScopesOf(auth.EventsRead), got.Scopes, "what both the token and the user have")
	}
	require.Equal(t, 1, r.asked, "no query on the hot path")
	r.standing.Active = false
	now = now.Add(StandingTTL - 1)
	_, err := c.Verify(t.Context(), "")
	require.NoError(t, err)
	now = now.Add(1)
	_, err = c.Verify(t.Context(), "")
	require.Equal(t, "TOKEN_REVOKED", errs.From(err).Reason)
	require.Equal(t, 2, r.asked)

	r.standing = Standing{Active: true, NotBefore: p.IssuedAt.Add(time.Millisecond)}
	c.Clear()
	_, err = c.Verify(t.Context(), "")
	require.Equal(t, "TOKEN_REVOKED", errs.From(err).Reason, "signed before the key had its new secret")
	r.err = errors.New("away")
	c.Clear()
	_, err = c.Verify(t.Context(), "")
	require.ErrorIs(t, err, r.err, "who cannot be asked about is not let in")
}

// An answer that was on its way while a session ended must not be kept.
func TestForgottenStandingStaysForgotten(t *testing.T) {
	r := &register{standing: Standing{Active: true}}
	c := NewChecker(signed{OrgID: 1, Subject: "user:7"}, nil, r, time.Now)
	r.during = func() {
		r.standing.Active, r.during = false, nil
		c.Clear()
	}
	_, err := c.Verify(t.Context(), "") // may pass: it began before
	require.NoError(t, err)
	_, err = c.Verify(t.Context(), "")
	require.Equal(t, "TOKEN_REVOKED", errs.From(err).Reason)
}

func TestAttempts(t *testing.T) {
	a := attemptAt("login", "Ann@Acme.example", "192.0.2.1")
	require.Equal(t, a, attemptAt("login", "ann@acme.example", "::ffff:192.0.2.1"))
	b := attemptAt("login", "ann@acme.example", "192.0.2.2")
	require.Equal(t, a.Account, b.Account)
	require.NotEqual(t, a.Pair, b.Pair)
	require.NotEqual(t, a.Address, b.Address)
	require.NotEqual(t, a.Account, attemptAt("password", "ann@acme.example", "192.0.2.1").Account)
	require.Equal(t, "2001:db8:1:2::/64", network("2001:db8:1:2:3:4:5:6"))
	require.Equal(t, attemptAt("login", "x", "2001:db8::1").Address, attemptAt("login", "x", "2001:db8::ffff:1").Address, "one customer")
	require.Empty(t, network("nonsense"))
}

func TestNewPasswords(t *testing.T) {
	for password, reason := range map[string]string{
		"1234567": "OUT_OF_RANGE", "ééééééé": "OUT_OF_RANGE", "12345678": "TOO_COMMON", "PASSWORD1": "TOO_COMMON", "zzzzzzzzzz": "TOO_COMMON",
		"ann.miller": "GUESSABLE", "ANN.miller@acme.example": "GUESSABLE", "Ann Miller": "GUESSABLE", "with\x00zero": "INVALID_TEXT", "\xff\xfe\xfd12345": "INVALID_TEXT",
		"correct horse": "", "éééééééà": "", "12345679x": "", "密码密码密码密码": "",
	} {
		err := checkNewPassword("password", password, "ann.miller@acme.example", "Ann Miller")
		if reason == "" {
			require.NoError(t, err, password)
			continue
		}
		require.Equal(t, reason, errs.From(err).Fields[0].Reason, password)
		require.NotContains(t, err.Error(), password)
	}
}
