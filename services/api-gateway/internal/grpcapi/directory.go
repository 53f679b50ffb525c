package grpcapi

import (
	"context"

	"google.golang.org/protobuf/types/known/fieldmaskpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	identityv1 "github.com/sametick/sametick/proto/gen/go/sametick/identity/v1"
	"github.com/sametick/sametick/services/api-gateway/internal/identity"
	"github.com/sametick/sametick/services/api-gateway/internal/records"
)

// Directory serves DirectoryService.
type Directory struct {
	identityv1.UnimplementedDirectoryServiceServer
	service *identity.Service
	records *records.Service
}

// NewDirectory makes the server.
func NewDirectory(s *identity.Service, r *records.Service) *Directory {
	return &Directory{service: s, records: r}
}

// CreateUser implements DirectoryService.
func (s *Directory) CreateUser(ctx context.Context, req *identityv1.CreateUserRequest) (*identityv1.User, error) {
	c := callerOf(ctx)
	return user(s.service.CreateMember(ctx, c.principal, c.call, identity.NewMember{Email: req.GetEmail(), Name: req.GetName(),
		Password: req.Password, Roles: req.GetRoles()}))
}

// InviteUser implements DirectoryService.
func (s *Directory) InviteUser(ctx context.Context, req *identityv1.InviteUserRequest) (*identityv1.InviteUserResponse, error) {
	c := callerOf(ctx)
	m, token, expires, err := s.service.Invite(ctx, c.principal, c.call, identity.NewMember{Email: req.GetEmail(), Name: req.GetName(), Roles: req.GetRoles()})
	if err != nil {
		return nil, err
	}
	return &identityv1.InviteUserResponse{User: toUser(&m), Token: token, ExpiresAt: timestamppb.New(expires)}, nil
}

// ListUsers implements DirectoryService.
func (s *Directory) ListUsers(ctx context.Context, req *identityv1.ListUsersRequest) (*identityv1.ListUsersResponse, error) {
	list, total, err := s.service.ListMembers(ctx, callerOf(ctx).call.OrgID, req.Limit, req.Page, req.GetIncludeArchived())
	if err != nil {
		return nil, err
	}
	res := &identityv1.ListUsersResponse{Total: total, Data: make([]*identityv1.User, len(list))}
	for i := range list {
		res.Data[i] = toUser(&list[i])
	}
	return res, nil
}

// GetUser implements DirectoryService.
func (s *Directory) GetUser(ctx context.Context, req *identityv1.GetUserRequest) (*identityv1.User, error) {
	return user(s.service.GetMember(ctx, callerOf(ctx).call.OrgID, req.GetId()))
}

// UpdateUser implements DirectoryService.
func (s *Directory) UpdateUser(ctx context.Context, req *identityv1.UpdateUserRequest) (*identityv1.User, error) {
	c := callerOf(ctx)
	return user(s.service.UpdateMember(ctx, c.principal, c.call, identity.MemberUpdate{ID: req.GetId(), Version: req.Version,
		Mask: maskOr(req.GetUpdateMask(), set{req.GetName() != "", "name"}, set{req.GetEmail() != "", "email"}, set{len(req.GetRoles()) > 0, "roles"}),
		Name: req.GetName(), Email: req.GetEmail(), Roles: req.GetRoles()}))
}

// ArchiveUser implements DirectoryService.
func (s *Directory) ArchiveUser(ctx context.Context, req *identityv1.ArchiveUserRequest) (*identityv1.User, error) {
	return user(s.service.ArchiveMember(ctx, callerOf(ctx).call, req.GetId(), req.Version))
}

// StartPasswordReset implements DirectoryService.
func (s *Directory) StartPasswordReset(ctx context.Context, req *identityv1.StartPasswordResetRequest) (*identityv1.StartPasswordResetResponse, error) {
	c := callerOf(ctx)
	token, expires, err := s.service.StartReset(ctx, c.principal, c.call, req.GetId())
	if err != nil {
		return nil, err
	}
	return &identityv1.StartPasswordResetResponse{Token: token, ExpiresAt: timestamppb.New(expires)}, nil
}

// CreateRole implements DirectoryService.
func (s *Directory) CreateRole(ctx context.Context, req *identityv1.CreateRoleRequest) (*identityv1.Role, error) {
	c := callerOf(ctx)
	return role(s.service.CreateRole(ctx, c.principal, c.call, req.GetName(), req.GetScopes()))
}

// ListRoles implements DirectoryService.
func (s *Directory) ListRoles(ctx context.Context, req *identityv1.ListRolesRequest) (*identityv1.ListRolesResponse, error) {
	list, total, err := s.service.ListRoles(ctx, callerOf(ctx).call.OrgID, req.Limit, req.Page, req.GetIncludeArchived())
	if err != nil {
		return nil, err
	}
	res := &identityv1.ListRolesResponse{Total: total, Data: make([]*identityv1.Role, len(list))}
	for i := range list {
		res.Data[i] = toRole(&list[i])
	}
	return res, nil
}

// GetRole implements DirectoryService.
func (s *Directory) GetRole(ctx context.Context, req *identityv1.GetRoleRequest) (*identityv1.Role, error) {
	return role(s.service.GetRole(ctx, callerOf(ctx).call.OrgID, req.GetId()))
}

// UpdateRole implements DirectoryService.
func (s *Directory) UpdateRole(ctx context.Context, req *identityv1.UpdateRoleRequest) (*identityv1.Role, error) {
	c := callerOf(ctx)
	return role(s.service.UpdateRole(ctx, c.principal, c.call, identity.RoleUpdate{ID: req.GetId(), Version: req.Version,
		Mask: maskOr(req.GetUpdateMask(), set{req.GetName() != "", "name"}, set{len(req.GetScopes()) > 0, "scopes"}),
		Name: req.GetName(), Scopes: req.GetScopes()}))
}

// ArchiveRole implements DirectoryService.
func (s *Directory) ArchiveRole(ctx context.Context, req *identityv1.ArchiveRoleRequest) (*identityv1.Role, error) {
	return role(s.service.ArchiveRole(ctx, callerOf(ctx).call, req.GetId(), req.Version))
}

// GetOrganization implements DirectoryService.
func (s *Directory) GetOrganization(ctx context.Context, _ *identityv1.GetOrganizationRequest) (*identityv1.Organization, error) {
	org := callerOf(ctx).call.OrgID
	return organization(s.records.Get(ctx, org, "organization", org))
}

// UpdateOrganization implements DirectoryService.
func (s *Directory) UpdateOrganization(ctx context.Context, req *identityv1.UpdateOrganizationRequest) (*identityv1.Organization, error) {
	call := callerOf(ctx).call
	mask := maskOr(req.GetUpdateMask(), set{req.GetName() != "", "name"})
	for _, field := range mask {
		if field != "name" {
			return nil, invalid("update_mask", "UNKNOWN_FIELD", "name")
		}
	}
	return organization(s.records.Update(ctx, call, records.Update{Type: "organization", ID: call.OrgID, Mask: mask, Name: req.GetName(), Version: req.Version}))
}

// ArchiveOrganization implements DirectoryService.
func (s *Directory) ArchiveOrganization(ctx context.Context, req *identityv1.ArchiveOrganizationRequest) (*identityv1.Organization, error) {
	call := callerOf(ctx).call
	return organization(s.records.Archive(ctx, call, "organization", call.OrgID, req.Version))
}

// set is a field of an update and whether it is set.
type set struct {
	is    bool
	field string
}

// maskOr gives the fields to change: the mask's, or without one those that are set.
func maskOr(mask *fieldmaskpb.FieldMask, fields ...set) (names []string) {
	if mask != nil {
		return mask.GetPaths()
	}
	for _, f := range fields {
		if f.is {
			names = append(names, f.field)
		}
	}
	return names
}

func user(m identity.Member, err error) (*identityv1.User, error) {
	if err != nil {
		return nil, err
	}
	return toUser(&m), nil
}

func toUser(m *identity.Member) *identityv1.User {
	return &identityv1.User{Id: m.ID, Name: m.Name, Email: m.Email, Status: m.Status(), Roles: m.Roles, Scopes: m.Scopes.Names(), Version: m.Version,
		CreatedAt: timestamppb.New(m.CreatedAt), UpdatedAt: timestamppb.New(m.UpdatedAt), ArchivedAt: timestamp(m.ArchivedAt)}
}

func role(r identity.Role, err error) (*identityv1.Role, error) {
	if err != nil {
		return nil, err
	}
	return toRole(&r), nil
}

func toRole(r *identity.Role) *identityv1.Role {
	return &identityv1.Role{Id: r.ID, Name: r.Name, Scopes: r.Scopes.Names(), Administrator: r.Administrator, Version: r.Version,
		CreatedAt: timestamppb.New(r.CreatedAt), UpdatedAt: timestamppb.New(r.UpdatedAt), ArchivedAt: timestamp(r.ArchivedAt)}
}

func organization(r records.Record, err error) (*identityv1.Organization, error) {
	if err != nil {
		return nil, err
	}
	return &identityv1.Organization{Id: r.ID, Name: r.Name, Version: r.Version,
		CreatedAt: timestamppb.New(r.CreatedAt), UpdatedAt: timestamppb.New(r.UpdatedAt), ArchivedAt: timestamp(r.ArchivedAt)}, nil
}
