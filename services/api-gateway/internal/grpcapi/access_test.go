package grpcapi_test

import (
	"context"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/sametick/sametick/pkg/auth"
	"github.com/sametick/sametick/pkg/errs"
	auditv1 "github.com/sametick/sametick/proto/gen/go/sametick/audit/v1"
	eventsv1 "github.com/sametick/sametick/proto/gen/go/sametick/events/v1"
	identityv1 "github.com/sametick/sametick/proto/gen/go/sametick/identity/v1"
	promptsv1 "github.com/sametick/sametick/proto/gen/go/sametick/prompts/v1"
	recordsv1 "github.com/sametick/sametick/proto/gen/go/sametick/records/v1"
	typesv1 "github.com/sametick/sametick/proto/gen/go/sametick/types/v1"
	webhooksv1 "github.com/sametick/sametick/proto/gen/go/sametick/webhooks/v1"
	workflowv1 "github.com/sametick/sametick/proto/gen/go/sametick/workflow/v1"
	"github.com/sametick/sametick/services/api-gateway/internal/grpcapi"
)

func methods() (list []string) {
	for _, file := range []protoreflect.FileDescriptor{recordsv1.File_sametick_records_v1_records_proto,
		eventsv1.File_sametick_events_v1_events_proto, identityv1.File_sametick_identity_v1_identity_proto,
		identityv1.File_sametick_identity_v1_directory_proto, typesv1.File_sametick_types_v1_types_proto,
		workflowv1.File_sametick_workflow_v1_workflow_proto, auditv1.File_sametick_audit_v1_audit_proto,
		webhooksv1.File_sametick_webhooks_v1_webhooks_proto, promptsv1.File_sametick_prompts_v1_prompts_proto} {
		for i := range file.Services().Len() {
			service := file.Services().Get(i)
			for j := range service.Methods().Len() {
				list = append(list, "/"+string(service.FullName())+"/"+string(service.Methods().Get(j).Name()))
			}
		}
	}
	return list
}

type holder auth.Scopes

func (h holder) Verify(_ context.Context, token string) (auth.Principal, error) {
	if token == "" {
		return auth.Principal{}, auth.ErrMissing()
	}
	return auth.Principal{OrgID: 1, Subject: "user:1", Scopes: auth.Scopes(h)}, nil
}

func (h holder) VerifyPortal(context.Context, string) (auth.Principal, error) {
	return auth.Principal{OrgID: 1, Subject: "user:1", TokenID: "link", Portal: &auth.Portal{}}, nil
}

func (h holder) Fresh(ctx context.Context, secret string) (auth.Principal, error) {
	return h.Verify(ctx, secret)
}

func (h holder) Find(ctx context.Context, secret string) (auth.Principal, error) {
	return h.Verify(ctx, secret)
}

// TestEveryMethodNeedsItsScope walks all methods with every scope but theirs, with theirs alone and
// with no token.
func TestEveryMethodNeedsItsScope(t *testing.T) {
	table := grpcapi.Requirements()
	all := methods()
	require.Len(t, table, len(all), "no method more, none less")
	public := 0
	for _, method := range all {
		scope, known := table[method]
		require.True(t, known, "%s is missing from the table", method)
		call := func(token string, scopes auth.Scopes) error {
			access := grpcapi.NewAccess(holder(scopes), holder(scopes), "secret", nil)
			ctx := metadata.NewIncomingContext(t.Context(), metadata.Pairs("authorization", "Bearer "+token))
			_, err := access.Unary(ctx, nil, &grpc.UnaryServerInfo{FullMethod: method}, func(context.Context, any) (any, error) { return nil, nil })
			return err
		}
		if scope == "" {
			public++
			require.NoError(t, call("", 0), method)
			continue
		}
		if scope == "*" {
			require.Equal(t, errs.Unauthenticated, errs.KindOf(call("", 0)), method)
			require.NoError(t, call("t", 0), method)
			continue
		}
		require.Contains(t, auth.AllScopes(), scope)
		require.Equal(t, errs.Unauthenticated, errs.KindOf(call("", auth.ScopesOf(scope))), method)
		require.Equal(t, errs.PermissionDenied, errs.KindOf(call("t", auth.ScopesOf(auth.AllScopes()...)&^auth.ScopesOf(scope))), method)
		require.NoError(t, call("t", auth.ScopesOf(scope)), method)
	}
	require.Equal(t, 7, public, "login, refresh, logout, exchange, reset, accept, signing keys")
}

// The token of a portal link calls the methods for webhook endpoints and no other of all that there are, also none that
// needs no token. The control is another token, with every scope.
func TestPortalTokensOpenNothingElse(t *testing.T) {
	access := grpcapi.NewAccess(holder(0xffff), holder(0xffff), "secret", nil)
	call := func(method, token string) error {
		ctx := metadata.NewIncomingContext(t.Context(), metadata.Pairs("authorization", "Bearer "+token))
		_, err := access.Unary(ctx, nil, &grpc.UnaryServerInfo{FullMethod: method}, func(context.Context, any) (any, error) { return nil, nil })
		streamed := access.Stream(nil, quiet{ctx}, &grpc.StreamServerInfo{FullMethod: method}, func(any, grpc.ServerStream) error { return nil })
		require.Equal(t, errs.KindOf(err), errs.KindOf(streamed), method)
		return err
	}
	open := 0
	for _, method := range methods() {
		require.NoError(t, call(method, "t"), "the control: %s", method)
		if slices.Contains(grpcapi.PortalMethods(), method) {
			open++
			require.True(t, strings.HasPrefix(method, "/sametick.webhooks.v1.WebhookService/"))
			require.NoError(t, call(method, auth.PortalPrefix+"t"), method)
			continue
		}
		require.Equal(t, "PORTAL_TOKEN", errs.From(call(method, auth.PortalPrefix+"t")).Reason, method)
	}
	require.Equal(t, len(grpcapi.PortalMethods()), open)
}

// A template's version is a number of its own, not what a change was made from: an If-Match is refused there, as where
// there is no version at all.
func TestIfMatchIsOfVersionsAlone(t *testing.T) {
	access := grpcapi.NewAccess(holder(0xffff), holder(0xffff), "secret", nil)
	call := func(method string, req any) (asked any, err error) {
		ctx := metadata.NewIncomingContext(t.Context(), metadata.Pairs("authorization", "Bearer t", grpcapi.GatewayKey, "secret", grpcapi.IfMatchKey, "3"))
		_, err = access.Unary(ctx, req, &grpc.UnaryServerInfo{FullMethod: method}, func(_ context.Context, got any) (any, error) { asked = got; return nil, nil })
		return asked, err
	}
	for method, req := range map[string]any{promptsv1.PromptService_SetTemplateLabel_FullMethodName: &promptsv1.SetTemplateLabelRequest{},
		promptsv1.PromptService_GetTemplateVersion_FullMethodName: &promptsv1.GetTemplateVersionRequest{Version: 3},
		promptsv1.PromptService_ArchiveTemplate_FullMethodName:    &promptsv1.ArchiveTemplateRequest{}} {
		_, err := call(method, req)
		require.Equal(t, "NOT_SUPPORTED", errs.From(err).Fields[0].Reason, method)
	}
	asked, err := call(promptsv1.PromptService_UpdateHook_FullMethodName, &promptsv1.UpdateHookRequest{})
	require.NoError(t, err)
	require.EqualValues(t, 3, asked.(*promptsv1.UpdateHookRequest).GetVersion(), "the control")
}

func TestUnknownMethodIsClosed(t *testing.T) {
	access := grpcapi.NewAccess(holder(0xffff), holder(0xffff), "", nil)
	_, err := access.Unary(t.Context(), nil, &grpc.UnaryServerInfo{FullMethod: "/sametick.new.v1.NewService/Do"}, nil)
	require.Equal(t, errs.PermissionDenied, errs.KindOf(err))
	require.Error(t, access.Stream(nil, quiet{t.Context()}, &grpc.StreamServerInfo{FullMethod: "/sametick.new.v1.NewService/Do"}, nil))
}

// quiet is a stream that only has a context.
type quiet struct{ ctx context.Context }

func (q quiet) Context() context.Context   { return q.ctx }
func (quiet) SetHeader(metadata.MD) error  { return nil }
func (quiet) SendHeader(metadata.MD) error { return nil }
func (quiet) SetTrailer(metadata.MD)       {}
func (quiet) SendMsg(any) error            { return nil }
func (quiet) RecvMsg(any) error            { return nil }
