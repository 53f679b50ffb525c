package grpcapi

import (
	"context"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/sametick/sametick/pkg/auth"
	"github.com/sametick/sametick/pkg/errs"
	identityv1 "github.com/sametick/sametick/proto/gen/go/sametick/identity/v1"
	"github.com/sametick/sametick/services/api-gateway/internal/identity"
)

// Identity serves IdentityService.
type Identity struct {
	identityv1.UnimplementedIdentityServiceServer
	service *identity.Service
	keys    []auth.PublicKey
}

// NewIdentity makes the server. keys are those that tokens are verified by.
func NewIdentity(s *identity.Service, keys []auth.PublicKey) *Identity {
	return &Identity{service: s, keys: keys}
}

// Login implements IdentityService.
func (s *Identity) Login(ctx context.Context, req *identityv1.LoginRequest) (*identityv1.TokenResponse, error) {
	return tokens(s.service.Login(ctx, callerOf(ctx).call, req.GetEmail(), req.GetPassword()))
}

// Refresh implements IdentityService.
func (s *Identity) Refresh(ctx context.Context, req *identityv1.RefreshRequest) (*identityv1.TokenResponse, error) {
	if err := given("refresh_token", req.GetRefreshToken()); err != nil {
		return nil, err
	}
	return tokens(s.service.Refresh(ctx, callerOf(ctx).call, req.GetRefreshToken()))
}

// Logout implements IdentityService.
func (s *Identity) Logout(ctx context.Context, req *identityv1.LogoutRequest) (*identityv1.LogoutResponse, error) {
	if err := given("refresh_token", req.GetRefreshToken()); err != nil {
		return nil, err
	}
	return &identityv1.LogoutResponse{}, s.service.Logout(ctx, callerOf(ctx).call, req.GetRefreshToken(), req.GetAll())
}

// CreateApiKey implements IdentityService.
func (s *Identity) CreateApiKey(ctx context.Context, req *identityv1.CreateApiKeyRequest) (*identityv1.CreateApiKeyResponse, error) { //nolint:revive // the generated interface has the name
	var expires *time.Time
	if req.GetExpiresAt() != nil {
		if err := req.GetExpiresAt().CheckValid(); err != nil {
			return nil, invalid("expires_at", "INVALID_TIME", "a time of the years 1 to 9999").WithCause(err)
		}
		t := req.GetExpiresAt().AsTime().Truncate(time.Millisecond)
		expires = &t
	}
	c := callerOf(ctx)
	key, secret, err := s.service.CreateKey(ctx, c.principal, c.call, req.GetName(), req.GetScopes(), expires)
	if err != nil {
		return nil, err
	}
	return &identityv1.CreateApiKeyResponse{ApiKey: toKey(&key), Secret: secret}, nil
}

// ListApiKeys implements IdentityService.
func (s *Identity) ListApiKeys(ctx context.Context, req *identityv1.ListApiKeysRequest) (*identityv1.ListApiKeysResponse, error) { //nolint:revive // the generated interface has the name
	list, total, err := s.service.ListKeys(ctx, callerOf(ctx).call.OrgID, req.Limit, req.Page)
	if err != nil {
		return nil, err
	}
	res := &identityv1.ListApiKeysResponse{Total: total, Data: make([]*identityv1.ApiKey, len(list))}
	for i := range list {
		res.Data[i] = toKey(&list[i])
	}
	return res, nil
}

// ArchiveApiKey implements IdentityService.
func (s *Identity) ArchiveApiKey(ctx context.Context, req *identityv1.ArchiveApiKeyRequest) (*identityv1.ApiKey, error) { //nolint:revive // the generated interface has the name
	key, err := s.service.ArchiveKey(ctx, callerOf(ctx).call, req.GetId())
	if err != nil {
		return nil, err
	}
	return toKey(&key), nil
}

// RotateApiKey implements IdentityService.
func (s *Identity) RotateApiKey(ctx context.Context, req *identityv1.RotateApiKeyRequest) (*identityv1.CreateApiKeyResponse, error) { //nolint:revive // the generated interface has the name
	c := callerOf(ctx)
	key, secret, err := s.service.RotateKey(ctx, c.principal, c.call, req.GetId(), req.GetOverlap())
	if err != nil {
		return nil, err
	}
	return &identityv1.CreateApiKeyResponse{ApiKey: toKey(&key), Secret: secret}, nil
}

// ExchangeApiKey implements IdentityService.
func (s *Identity) ExchangeApiKey(ctx context.Context, req *identityv1.ExchangeApiKeyRequest) (*identityv1.TokenResponse, error) { //nolint:revive // the generated interface has the name
	return tokens(s.service.ExchangeKey(ctx, req.GetSecret()))
}

func tokens(t identity.Tokens, err error) (*identityv1.TokenResponse, error) {
	if err != nil {
		return nil, err
	}
	return &identityv1.TokenResponse{AccessToken: t.Access, RefreshToken: t.Refresh, TokenType: "Bearer",
		ExpiresIn: int64(t.TTL / time.Second)}, nil
}

func toKey(k *identity.APIKey) *identityv1.ApiKey {
	return &identityv1.ApiKey{Id: k.ID, Name: k.Name, Prefix: k.Prefix, Scopes: k.Scopes.Names(),
		CreatedAt: timestamppb.New(k.CreatedAt), ExpiresAt: timestamp(k.ExpiresAt), ArchivedAt: timestamp(k.ArchivedAt),
		LastUsedAt: timestamp(k.LastUsedAt)}
}

func given(field, value string) error {
	if value == "" {
		return invalid(field, "REQUIRED", "what /api/auth/login or /api/auth/refresh gave")
	}
	return nil
}

func invalid(field, reason, allowed string) *errs.Error {
	return errs.New(errs.Invalid, "INVALID_REQUEST", "the request has invalid fields").WithField(field, reason, allowed)
}
