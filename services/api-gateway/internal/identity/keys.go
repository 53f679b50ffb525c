package identity

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/sametick/sametick/pkg/auth"
	"github.com/sametick/sametick/pkg/errs"
	"github.com/sametick/sametick/services/api-gateway/internal/paging"
	"github.com/sametick/sametick/services/api-gateway/internal/records"
)

// prefixLen is how much of a secret is kept readable: enough to tell keys apart, 48 bits of 256.
const prefixLen = len(auth.APIKeyPrefix) + 8

// CreateKey makes an API key for the caller's organisation. The secret is shown this once. Nobody can
// give a scope that they lack.
func (s *Service) CreateKey(ctx context.Context, by auth.Principal, call records.Call, name string, scopes []string, expires *time.Time) (APIKey, string, error) {
	if err := checkKey(by, name, scopes, expires); err != nil {
		return APIKey{}, "", err
	}
	secret, hash := NewKeySecret()
	key, err := s.store.Keys.CreateKey(ctx, call, APIKey{OrgID: call.OrgID, UserID: by.UserID, Name: name, Prefix: KeyPrefix(secret),
		Scopes: auth.ScopesOf(scopes...), ExpiresAt: expires}, hash)
	if err != nil {
		return APIKey{}, "", err
	}
	s.changed()
	return key, secret, nil
}

// ListKeys gives one page of the organisation's keys, newest first, and how many there are.
func (s *Service) ListKeys(ctx context.Context, orgID int64, limit, page *int32) ([]APIKey, int64, error) {
	p, err := paging.Standard.Page(limit, page)
	if err != nil {
		return nil, 0, err
	}
	return s.store.Keys.ListKeys(ctx, orgID, p)
}

// ArchiveKey revokes a key and the access tokens that it was exchanged for: at once here, within
// KeyCacheTTL on other replicas.
func (s *Service) ArchiveKey(ctx context.Context, call records.Call, id int64) (APIKey, error) {
	if _, err := s.store.Keys.GetKey(ctx, call.OrgID, id); err != nil {
		return APIKey{}, err
	}
	if _, err := s.records.Archive(ctx, call, "api_key", id, nil); err != nil {
		return APIKey{}, err
	}
	return s.store.Keys.GetKey(ctx, call.OrgID, id)
}

// MaxOverlap bounds how long a rotated key's old secret works on.
const MaxOverlap = 7 * 24 * time.Hour

// NewKeySecretOf is what takes the place of a key's secret.
type NewKeySecretOf struct {
	Hash    []byte
	Prefix  string
	Overlap time.Duration
}

// RotateKey gives a key a new secret, shown this once; the old one works for overlap seconds more. Only who
// could make such a key can rotate it: else the secret would give scopes that the caller lacks.
func (s *Service) RotateKey(ctx context.Context, by auth.Principal, call records.Call, id, overlap int64) (APIKey, string, error) {
	if overlap < 0 || overlap > int64(MaxOverlap/time.Second) {
		return APIKey{}, "", refuseField("overlap", "OUT_OF_RANGE", fmt.Sprintf("0 to %d seconds", int64(MaxOverlap/time.Second)))
	}
	secret, hash := NewKeySecret()
	key, err := s.store.Keys.RotateKey(ctx, call, id, NewKeySecretOf{hash, KeyPrefix(secret), time.Duration(overlap) * time.Second}, func(k APIKey) error {
		switch end := by.ExpiresAt; {
		case k.ArchivedAt != nil:
			return errs.New(errs.FailedPrecondition, "API_KEY_ARCHIVED", "the API key is archived")
		case k.Scopes&^by.Scopes != 0:
			return notHeld(k.Scopes &^ by.Scopes)
		case strings.HasPrefix(by.Subject, auth.SubjectAPIKey) && !end.IsZero() && (k.ExpiresAt == nil || k.ExpiresAt.After(end)):
			return errs.New(errs.PermissionDenied, "OUTLIVES_ITS_MAKER", "the key would work on after the key that rotates it has ended")
		}
		return nil
	})
	s.revoked() // also after an error: its outcome may be unknown
	if err != nil {
		return APIKey{}, "", err
	}
	s.changed()
	return key, secret, nil
}

// ExchangeKey gives an access token for an API key, which ends no later than the key.
func (s *Service) ExchangeKey(ctx context.Context, secret string) (Tokens, error) {
	p, err := s.cache.Fresh(ctx, secret)
	if err != nil {
		return Tokens{}, err
	}
	ttl := s.settings.KeyTTL
	if !p.ExpiresAt.IsZero() {
		ttl = min(ttl, time.Until(p.ExpiresAt).Truncate(time.Second))
	}
	return s.tokens(p, "", ttl)
}

// StreamToken gives an access token of this suite for any token that opens a stream: sse-gateway, which
// verifies it, knows neither API keys nor external issuers, nor what was revoked before it looked. Empty
// for none.
func (s *Service) StreamToken(ctx context.Context, token string) (string, error) {
	switch {
	case token == "":
		return "", nil
	case strings.HasPrefix(token, auth.APIKeyPrefix):
		t, err := s.ExchangeKey(ctx, token)
		return t.Access, err
	}
	verify := s.checker.Verify
	if s.checker.isExternal(token) {
		verify = s.checker.external.fresh // the token given is a new one
	}
	p, err := verify(ctx, token)
	switch {
	case err != nil:
		return "", err
	case !p.Scopes.Has(auth.EventsRead):
		return "", errs.New(errs.PermissionDenied, "SCOPE_MISSING", "the token lacks a scope that this needs").WithMeta("scope", auth.EventsRead)
	case !s.checker.isExternal(token):
		return token, nil
	}
	t, err := s.tokens(p, "", min(s.settings.KeyTTL, time.Until(p.ExpiresAt).Truncate(time.Second)))
	return t.Access, err
}

// NewKeySecret makes a key's secret and the hash that is stored of it.
func NewKeySecret() (secret string, hash []byte) {
	secret = auth.NewSecret(auth.APIKeyPrefix)
	return secret, auth.HashSecret(secret)
}

// KeyPrefix is what stays readable of a secret.
func KeyPrefix(secret string) string { return secret[:prefixLen] }

func checkKey(by auth.Principal, name string, scopes []string, expires *time.Time) error {
	err := errs.New(errs.Invalid, "INVALID_REQUEST", "the request has invalid fields")
	if bad := records.CheckName(name); bad != nil {
		err.Fields = errs.From(bad).Fields
	}
	err = checkScopes(err, scopes, by.Scopes)
	end := by.ExpiresAt // of the key that makes this one; a user's own keys outlive the login
	switch {
	case expires != nil && !expires.After(time.Now()):
		err = err.WithField("expires_at", "IN_THE_PAST", "a time to come")
	case strings.HasPrefix(by.Subject, auth.SubjectAPIKey) && !end.IsZero() && (expires == nil || expires.After(end)):
		err = err.WithField("expires_at", "OUTLIVES_ITS_MAKER", "at the latest "+end.UTC().Format(time.RFC3339)+", when the key that makes it ends")
	}
	if len(err.Fields) == 0 {
		return nil
	}
	return err
}

// checkScopes adds the faults of a list of scopes of which only those in allowed may be given.
func checkScopes(err *errs.Error, scopes []string, allowed auth.Scopes) *errs.Error {
	if len(scopes) == 0 {
		err = err.WithField("scopes", "REQUIRED", "at least one of: "+strings.Join(auth.AllScopes(), ", "))
	}
	for i, scope := range scopes {
		field := fmt.Sprintf("scopes[%d]", i)
		switch {
		case i >= len(auth.AllScopes()) || slices.Contains(scopes[:i], scope):
			err = err.WithField(field, "DUPLICATE", "each scope once")
		case !slices.Contains(auth.AllScopes(), scope):
			err = err.WithField(field, "UNKNOWN_SCOPE", "one of: "+strings.Join(auth.AllScopes(), ", "))
		case !allowed.Has(scope):
			err = err.WithField(field, "SCOPE_NOT_HELD", "a scope that the caller has: "+strings.Join(allowed.Names(), ", "))
		}
	}
	return err
}

// notHeld is the refusal to give, or to take over, more than the caller may do.
func notHeld(lacking auth.Scopes) error {
	return errs.New(errs.PermissionDenied, "SCOPE_NOT_HELD", "that has scopes which the caller lacks").WithMeta("scopes", lacking.String())
}
