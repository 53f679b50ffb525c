package grpcapi

import (
	"context"
	"fmt"
	"maps"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"github.com/sametick/sametick/pkg/auth"
	"github.com/sametick/sametick/pkg/errs"
	"github.com/sametick/sametick/pkg/idempotency"
	"github.com/sametick/sametick/pkg/rpc"
	promptsv1 "github.com/sametick/sametick/proto/gen/go/sametick/prompts/v1"
	webhooksv1 "github.com/sametick/sametick/proto/gen/go/sametick/webhooks/v1"
)

// forwarded are the services that other processes of the suite have, and the scope that all methods of each need.
func forwarded() map[string]string {
	return map[string]string{
		webhooksv1.WebhookService_ServiceDesc.ServiceName: auth.WebhooksManage,
		promptsv1.PromptService_ServiceDesc.ServiceName:   auth.PromptsManage,
	}
}

// isForwarded tells whether a method is another process'.
func isForwarded(method string) bool {
	service, _, _ := strings.Cut(strings.TrimPrefix(method, "/"), "/")
	return forwarded()[service] != ""
}

// forwardedRequirements are those of the methods that are forwarded.
func forwardedRequirements() map[string]string {
	needs := map[string]string{}
	for _, desc := range []grpc.ServiceDesc{webhooksv1.WebhookService_ServiceDesc, promptsv1.PromptService_ServiceDesc} {
		for _, m := range desc.Methods {
			needs["/"+desc.ServiceName+"/"+m.MethodName] = forwarded()[desc.ServiceName]
		}
	}
	return needs
}

func withForwarded(needs map[string]string) map[string]string {
	maps.Copy(needs, forwardedRequirements())
	return needs
}

// Forward is a service whose unary methods another process of the suite has: it passes calls on with who calls, and
// answers and errors back as they are.
type Forward struct {
	process string
	conn    grpc.ClientConnInterface
	desc    grpc.ServiceDesc
	// finish completes answers, by full method name.
	finish map[string]func(ctx context.Context, req any, answer proto.Message) error
}

// NewForward makes the service that desc describes. process is the other's name, for callers who find it down. The
// connection must carry the suite's token.
func NewForward(desc grpc.ServiceDesc, process string, conn grpc.ClientConnInterface) (*Forward, error) {
	f := &Forward{process: process, conn: conn, desc: grpc.ServiceDesc{ServiceName: desc.ServiceName, HandlerType: (*any)(nil), Metadata: desc.Metadata}}
	found, err := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName(desc.ServiceName))
	if err != nil {
		return nil, fmt.Errorf("forward %s: %w", desc.ServiceName, err)
	}
	service, ok := found.(protoreflect.ServiceDescriptor)
	if !ok || len(desc.Streams) > 0 {
		return nil, fmt.Errorf("forward %s: it is no service, or has streams", desc.ServiceName)
	}
	for _, m := range desc.Methods {
		method := service.Methods().ByName(protoreflect.Name(m.MethodName))
		in, err := protoregistry.GlobalTypes.FindMessageByName(method.Input().FullName())
		if err != nil {
			return nil, err
		}
		out, err := protoregistry.GlobalTypes.FindMessageByName(method.Output().FullName())
		if err != nil {
			return nil, err
		}
		f.desc.Methods = append(f.desc.Methods, grpc.MethodDesc{MethodName: m.MethodName,
			Handler: f.handler("/"+desc.ServiceName+"/"+m.MethodName, in, out)})
	}
	return f, nil
}

// Register registers it.
func (f *Forward) Register(r grpc.ServiceRegistrar) { r.RegisterService(&f.desc, f) }

func (f *Forward) handler(method string, in, out protoreflect.MessageType) grpc.MethodHandler {
	call := func(ctx context.Context, req any) (any, error) {
		answer := out.New().Interface()
		if err := f.call(ctx, method, req, answer); err != nil {
			return nil, err
		}
		if finish := f.finish[method]; finish != nil {
			if err := finish(ctx, req, answer); err != nil {
				return nil, err
			}
		}
		return answer, nil
	}
	return func(srv any, ctx context.Context, decode func(any) error, i grpc.UnaryServerInterceptor) (any, error) {
		req := in.New().Interface()
		if err := decode(req); err != nil {
			return nil, err
		}
		if i == nil {
			return call(ctx, req)
		}
		return i(ctx, req, &grpc.UnaryServerInfo{Server: srv, FullMethod: method}, call)
	}
}

func (f *Forward) call(ctx context.Context, method string, req any, answer proto.Message) error {
	c := callerOf(ctx)
	caller := rpc.Caller{OrgID: c.call.OrgID, UserID: c.principal.UserID, Subject: c.principal.Subject,
		Scopes: c.principal.Scopes.String(), IP: c.call.IP, UserAgent: c.call.UserAgent, ExpiresAt: endOf(c.principal)}
	if portal := c.principal.Portal; portal != nil {
		caller.Portal = &rpc.Portal{ID: c.principal.TokenID, Endpoints: portal.Endpoints}
	}
	out := rpc.WithCaller(ctx, caller)
	var keys []string
	for _, key := range metadata.ValueFromIncomingContext(ctx, idempotency.Key) {
		keys = append(keys, idempotency.Key, key)
	}
	out = metadata.AppendToOutgoingContext(out, keys...)
	var header metadata.MD
	err := f.conn.Invoke(out, method, req, answer, grpc.Header(&header))
	if replayed := header.Get(idempotency.Replayed); len(replayed) > 0 {
		_ = grpc.SetHeader(ctx, metadata.Pairs(idempotency.Replayed, replayed[0])) // fails only when the call is over
	}
	if err == nil {
		return nil
	}
	e := errs.From(err)
	switch {
	case e.Kind == errs.Unauthenticated: // this process, not who called it
		return errs.New(errs.Internal, "INTERNAL", "internal error").WithCause(fmt.Errorf("%s refuses the token of this process: %w", f.process, err))
	case e.Kind == errs.Unavailable && e.Reason == e.Kind.String(): // no answer of its own
		return errs.New(errs.Unavailable, "SERVICE_DOWN", f.process+" does not answer").
			WithMeta("service", f.process).WithRetryAfter(time.Second).WithCause(err)
	}
	return e
}
