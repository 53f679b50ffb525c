package grpcapi

import (
	"context"
	"crypto/subtle"
	"net"
	"strconv"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/sametick/sametick/pkg/auth"
	"github.com/sametick/sametick/pkg/errs"
	"github.com/sametick/sametick/pkg/telemetry"
	auditv1 "github.com/sametick/sametick/proto/gen/go/sametick/audit/v1"
	eventsv1 "github.com/sametick/sametick/proto/gen/go/sametick/events/v1"
	identityv1 "github.com/sametick/sametick/proto/gen/go/sametick/identity/v1"
	recordsv1 "github.com/sametick/sametick/proto/gen/go/sametick/records/v1"
	typesv1 "github.com/sametick/sametick/proto/gen/go/sametick/types/v1"
	webhooksv1 "github.com/sametick/sametick/proto/gen/go/sametick/webhooks/v1"
	workflowv1 "github.com/sametick/sametick/proto/gen/go/sametick/workflow/v1"
	"github.com/sametick/sametick/services/api-gateway/internal/records"
)

// Metadata by which the REST side of this process says who its caller is. Believed only beside the
// secret that the process has drawn at its start: other callers can set metadata too.
const (
	GatewayKey   = "sametick-gateway"
	ClientIPKey  = "sametick-client-ip"
	UserAgentKey = "sametick-user-agent"
	// IfMatchKey is a version, or empty.
	IfMatchKey = "sametick-if-match"
	// OriginKey is the address that the call came to, as its client wrote it: https://api.example.com.
	OriginKey = "sametick-origin"
)

const (
	// anyone marks the methods that need no token: their argument is the credential.
	anyone = ""
	// signedIn marks those that need a token of any scope.
	signedIn = "*"
)

// Requirements gives the scope that each method needs, by full method name; empty for the public ones, "*"
// where any token does.
// A method that is not in it can be called by nobody.
func Requirements() map[string]string {
	return withForwarded(map[string]string{
		recordsv1.RecordService_CreateRecord_FullMethodName:  auth.RecordsWrite,
		recordsv1.RecordService_GetRecord_FullMethodName:     auth.RecordsRead,
		recordsv1.RecordService_ListRecords_FullMethodName:   auth.RecordsRead,
		recordsv1.RecordService_UpdateRecord_FullMethodName:  auth.RecordsWrite,
		recordsv1.RecordService_ArchiveRecord_FullMethodName: auth.RecordsWrite,
		recordsv1.RecordService_RestoreRecord_FullMethodName: auth.RecordsWrite,
		recordsv1.RecordService_BatchRecords_FullMethodName:  auth.RecordsWrite,
		recordsv1.RecordService_ExportRecords_FullMethodName: auth.RecordsRead,

		auditv1.AuditService_GetEntry_FullMethodName:            auth.AuditRead,
		auditv1.AuditService_ListEntries_FullMethodName:         auth.AuditRead,
		auditv1.AuditService_ExportEntries_FullMethodName:       auth.AuditRead,
		auditv1.AuditService_GetHead_FullMethodName:             auth.AuditRead,
		auditv1.AuditService_GetInclusionProof_FullMethodName:   auth.AuditRead,
		auditv1.AuditService_GetConsistencyProof_FullMethodName: auth.AuditRead,

		workflowv1.WorkflowService_StartWorkflow_FullMethodName:     auth.RecordsWrite,
		workflowv1.WorkflowService_GetWorkflow_FullMethodName:       auth.RecordsRead,
		workflowv1.WorkflowService_CancelWorkflow_FullMethodName:    auth.RecordsWrite,
		workflowv1.WorkflowService_PassStep_FullMethodName:          auth.RecordsWrite,
		workflowv1.WorkflowService_FailStep_FullMethodName:          auth.RecordsWrite,
		workflowv1.WorkflowService_ApproveStep_FullMethodName:       auth.RecordsWrite,
		workflowv1.WorkflowService_CreateDefinition_FullMethodName:  auth.RecordsWrite,
		workflowv1.WorkflowService_ListDefinitions_FullMethodName:   auth.RecordsRead,
		workflowv1.WorkflowService_GetDefinition_FullMethodName:     auth.RecordsRead,
		workflowv1.WorkflowService_UpdateDefinition_FullMethodName:  auth.RecordsWrite,
		workflowv1.WorkflowService_ArchiveDefinition_FullMethodName: auth.RecordsWrite,

		typesv1.TypeService_CreateType_FullMethodName:  auth.OrgAdmin,
		typesv1.TypeService_GetType_FullMethodName:     auth.RecordsRead,
		typesv1.TypeService_ListTypes_FullMethodName:   auth.RecordsRead,
		typesv1.TypeService_UpdateType_FullMethodName:  auth.OrgAdmin,
		typesv1.TypeService_ArchiveType_FullMethodName: auth.OrgAdmin,

		eventsv1.EventService_ListEvents_FullMethodName:       auth.EventsRead,
		eventsv1.EventService_ListEntityEvents_FullMethodName: auth.EventsRead,

		identityv1.IdentityService_Login_FullMethodName:          anyone,
		identityv1.IdentityService_Refresh_FullMethodName:        anyone,
		identityv1.IdentityService_Logout_FullMethodName:         anyone,
		identityv1.IdentityService_ExchangeApiKey_FullMethodName: anyone,
		identityv1.IdentityService_CreateApiKey_FullMethodName:   auth.OrgAdmin,
		identityv1.IdentityService_ListApiKeys_FullMethodName:    auth.OrgAdmin,
		identityv1.IdentityService_ArchiveApiKey_FullMethodName:  auth.OrgAdmin,

		identityv1.IdentityService_RotateApiKey_FullMethodName:     auth.OrgAdmin,
		identityv1.IdentityService_ChangePassword_FullMethodName:   signedIn,
		identityv1.IdentityService_ResetPassword_FullMethodName:    anyone,
		identityv1.IdentityService_AcceptInvitation_FullMethodName: anyone,
		identityv1.IdentityService_ListSessions_FullMethodName:     signedIn,
		identityv1.IdentityService_EndSession_FullMethodName:       signedIn,
		identityv1.IdentityService_EndSessions_FullMethodName:      signedIn,
		identityv1.IdentityService_ListSigningKeys_FullMethodName:  anyone,

		identityv1.DirectoryService_CreateUser_FullMethodName:          auth.OrgAdmin,
		identityv1.DirectoryService_InviteUser_FullMethodName:          auth.OrgAdmin,
		identityv1.DirectoryService_ListUsers_FullMethodName:           auth.OrgAdmin,
		identityv1.DirectoryService_GetUser_FullMethodName:             auth.OrgAdmin,
		identityv1.DirectoryService_UpdateUser_FullMethodName:          auth.OrgAdmin,
		identityv1.DirectoryService_ArchiveUser_FullMethodName:         auth.OrgAdmin,
		identityv1.DirectoryService_StartPasswordReset_FullMethodName:  auth.OrgAdmin,
		identityv1.DirectoryService_CreateRole_FullMethodName:          auth.OrgAdmin,
		identityv1.DirectoryService_ListRoles_FullMethodName:           auth.OrgAdmin,
		identityv1.DirectoryService_GetRole_FullMethodName:             auth.OrgAdmin,
		identityv1.DirectoryService_UpdateRole_FullMethodName:          auth.OrgAdmin,
		identityv1.DirectoryService_ArchiveRole_FullMethodName:         auth.OrgAdmin,
		identityv1.DirectoryService_GetOrganization_FullMethodName:     signedIn,
		identityv1.DirectoryService_UpdateOrganization_FullMethodName:  auth.OrgAdmin,
		identityv1.DirectoryService_ArchiveOrganization_FullMethodName: auth.OrgAdmin,
	})
}

// TokenVerifier tells whose an access token is.
type TokenVerifier interface {
	Verify(ctx context.Context, token string) (auth.Principal, error)
	// VerifyPortal is for the tokens of portal links.
	VerifyPortal(ctx context.Context, token string) (auth.Principal, error)
}

// KeyFinder tells whose an API key is.
type KeyFinder interface {
	Find(ctx context.Context, secret string) (auth.Principal, error)
	// Fresh is Find that believes no earlier answer.
	Fresh(ctx context.Context, secret string) (auth.Principal, error)
}

// Access lets in who may call. Safe for concurrent use.
type Access struct {
	tokens  TokenVerifier
	keys    KeyFinder
	gateway string
	limits  Limits
	needs   map[string]string
}

// NewAccess makes one. gateway is the secret of this process' REST side; limits are nil where there are none.
func NewAccess(tokens TokenVerifier, keys KeyFinder, gateway string, limits Limits) *Access {
	return &Access{tokens: tokens, keys: keys, gateway: gateway, limits: limits, needs: Requirements()}
}

// Unary is the interceptor: it authenticates, takes the call from the caller's budgets, checks the method's scope
// and leaves the caller in the context.
func (a *Access) Unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
	ctx, err := a.admit(ctx, info.FullMethod)
	if err != nil {
		return nil, err
	}
	if err := a.precondition(ctx, req); err != nil {
		return nil, err
	}
	return next(ctx, req)
}

// Stream is the interceptor of streams.
func (a *Access) Stream(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) error {
	ctx, err := a.admit(ss.Context(), info.FullMethod)
	if err != nil {
		return err
	}
	return next(srv, admitted{ss, ctx})
}

// admitted is a stream whose context has the caller.
type admitted struct {
	grpc.ServerStream
	ctx context.Context
}

// Context is the stream's.
func (s admitted) Context() context.Context { return s.ctx }

func (a *Access) admit(ctx context.Context, method string) (context.Context, error) {
	if isProbe(method) {
		return ctx, nil
	}
	scope, known := a.needs[method]
	if !known {
		return nil, errs.New(errs.PermissionDenied, "METHOD_CLOSED", "nobody may call this method")
	}
	md, _ := metadata.FromIncomingContext(ctx)
	c := caller{call: a.origin(ctx, md)}
	if a.isGateway(md) {
		c.origin = first(md, OriginKey)
	}
	token := auth.Bearer(first(md, "authorization"))
	switch {
	case auth.IsPortal(token):
		p, err := a.admitPortal(ctx, method, token)
		if err != nil {
			return nil, err
		}
		c.principal, c.call.OrgID, c.call.ActorID = p, p.OrgID, p.UserID
	case scope != anyone:
		p, err := a.caller(ctx, method, token)
		if err != nil {
			return nil, err
		}
		if err := a.spend(ctx, p); err != nil {
			return nil, err
		}
		if scope != signedIn && !p.Scopes.Has(scope) {
			return nil, missing(scope)
		}
		c.principal, c.call.OrgID, c.call.ActorID = p, p.OrgID, p.UserID
	}
	return context.WithValue(ctx, callerKey{}, c), nil
}

// precondition makes the version of an If-Match header the request's, for every method at once: one that forgot it
// would overwrite what it was told to keep.
func (a *Access) precondition(ctx context.Context, req any) error {
	md, _ := metadata.FromIncomingContext(ctx)
	version, err := strconv.ParseInt(first(md, IfMatchKey), 10, 64)
	m, ok := req.(proto.Message)
	if err != nil || !ok || !a.isGateway(md) { // rest has refused what is no version
		return nil
	}
	r := m.ProtoReflect()
	field := r.Descriptor().Fields().ByName("version")
	switch {
	case field == nil || field.Kind() != protoreflect.Int64Kind: // a template's version is none of its own
		return invalid("If-Match", "NOT_SUPPORTED", "no If-Match here, or *")
	case r.Has(field) && r.Get(field).Int() != version:
		return invalid("version", "CONFLICTS_WITH_IF_MATCH", "the version that If-Match has, or none")
	}
	r.Set(field, protoreflect.ValueOfInt64(version))
	return nil
}

// isGateway tells whether this process' own REST side calls.
func (a *Access) isGateway(md metadata.MD) bool {
	return a.gateway != "" && subtle.ConstantTimeCompare([]byte(first(md, GatewayKey)), []byte(a.gateway)) == 1
}

// caller tells whose a bearer token is: an access token or an API key.
func (a *Access) caller(ctx context.Context, method, token string) (auth.Principal, error) {
	if auth.IsAPIKey(token) && method == webhooksv1.WebhookService_CreatePortalLink_FullMethodName {
		return a.keys.Fresh(ctx, token) // the link would live on after a secret that was rotated meanwhile
	}
	if strings.HasPrefix(token, auth.APIKeyPrefix) {
		return a.keys.Find(ctx, token)
	}
	return a.tokens.Verify(ctx, token)
}

func isProbe(method string) bool {
	return strings.HasPrefix(method, "/grpc.health.") || strings.HasPrefix(method, "/grpc.reflection.")
}

func missing(scope string) error {
	return errs.New(errs.PermissionDenied, "SCOPE_MISSING", "the token lacks a scope that this needs").WithMeta("scope", scope)
}

func (a *Access) origin(ctx context.Context, md metadata.MD) records.Call {
	c := records.Call{RequestID: telemetry.RequestID(ctx), Traceparent: telemetry.Traceparent(ctx), UserAgent: first(md, "user-agent")}
	if p, ok := peer.FromContext(ctx); ok {
		c.IP, _, _ = net.SplitHostPort(p.Addr.String())
	}
	if a.isGateway(md) {
		c.IP, c.UserAgent = first(md, ClientIPKey), first(md, UserAgentKey)
	}
	if net.ParseIP(c.IP) == nil { // none, or an IPv6 zone, which the audit log's inet does not know
		c.IP = ""
	}
	c.UserAgent = Printable(c.UserAgent)
	return c
}

// Printable keeps at most 256 bytes of ASCII of what a stranger sent.
func Printable(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return -1
		}
		return r
	}, s)
	return s[:min(len(s), 256)]
}

func first(md metadata.MD, key string) string {
	if values := md.Get(key); len(values) > 0 {
		return values[0]
	}
	return ""
}

type callerKey struct{}

// caller is who calls a method, as Unary found.
type caller struct {
	principal auth.Principal
	call      records.Call
	// origin is the address that the call came to over REST; empty over gRPC.
	origin string
}

func callerOf(ctx context.Context) caller {
	c, _ := ctx.Value(callerKey{}).(caller)
	return c
}

// require asks for one more scope than the method's.
func (c caller) require(scope string) error {
	if !c.principal.Scopes.Has(scope) {
		return missing(scope)
	}
	return nil
}
