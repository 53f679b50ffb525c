package grpcapi

import (
	"context"
	"encoding/base64"

	"google.golang.org/protobuf/types/known/timestamppb"

	identityv1 "github.com/sametick/sametick/proto/gen/go/sametick/identity/v1"
)

// ChangePassword implements IdentityService.
func (s *Identity) ChangePassword(ctx context.Context, req *identityv1.ChangePasswordRequest) (*identityv1.ChangePasswordResponse, error) {
	c := callerOf(ctx)
	return &identityv1.ChangePasswordResponse{}, s.service.ChangePassword(ctx, c.principal, c.call, req.GetCurrentPassword(), req.GetNewPassword())
}

// ResetPassword implements IdentityService.
func (s *Identity) ResetPassword(ctx context.Context, req *identityv1.ResetPasswordRequest) (*identityv1.ResetPasswordResponse, error) {
	return &identityv1.ResetPasswordResponse{}, s.service.ResetPassword(ctx, callerOf(ctx).call, req.GetToken(), req.GetPassword())
}

// AcceptInvitation implements IdentityService.
func (s *Identity) AcceptInvitation(ctx context.Context, req *identityv1.AcceptInvitationRequest) (*identityv1.TokenResponse, error) {
	return tokens(s.service.AcceptInvitation(ctx, callerOf(ctx).call, req.GetToken(), req.GetPassword()))
}

// ListSessions implements IdentityService.
func (s *Identity) ListSessions(ctx context.Context, req *identityv1.ListSessionsRequest) (*identityv1.ListSessionsResponse, error) {
	by := callerOf(ctx).principal
	list, total, err := s.service.ListSessions(ctx, by, req.Limit, req.Page)
	if err != nil {
		return nil, err
	}
	res := &identityv1.ListSessionsResponse{Total: total, Data: make([]*identityv1.Session, len(list))}
	for i := range list {
		v := &list[i]
		res.Data[i] = &identityv1.Session{Id: v.ID, Current: v.ID == by.SessionID, UserAgent: v.UserAgent, Ip: v.IP,
			CreatedAt: timestamppb.New(v.CreatedAt), LastUsedAt: timestamppb.New(v.LastUsedAt), ExpiresAt: timestamppb.New(v.ExpiresAt)}
	}
	return res, nil
}

// EndSession implements IdentityService.
func (s *Identity) EndSession(ctx context.Context, req *identityv1.EndSessionRequest) (*identityv1.EndSessionResponse, error) {
	if req.GetId() == "" {
		return nil, invalid("id", "REQUIRED", "the id of a session")
	}
	c := callerOf(ctx)
	return &identityv1.EndSessionResponse{}, s.service.EndSessions(ctx, c.principal, c.call, req.GetId())
}

// EndSessions implements IdentityService.
func (s *Identity) EndSessions(ctx context.Context, _ *identityv1.EndSessionsRequest) (*identityv1.EndSessionsResponse, error) {
	c := callerOf(ctx)
	return &identityv1.EndSessionsResponse{}, s.service.EndSessions(ctx, c.principal, c.call, "")
}

// ListSigningKeys implements IdentityService.
func (s *Identity) ListSigningKeys(context.Context, *identityv1.ListSigningKeysRequest) (*identityv1.JsonWebKeySet, error) {
	set := &identityv1.JsonWebKeySet{}
	for _, k := range s.keys {
		set.Keys = append(set.Keys, &identityv1.JsonWebKey{Kty: "OKP", Crv: "Ed25519", Kid: k.ID, Alg: "EdDSA", Use: "sig",
			X: base64.RawURLEncoding.EncodeToString(k.Key)})
	}
	return set, nil
}
