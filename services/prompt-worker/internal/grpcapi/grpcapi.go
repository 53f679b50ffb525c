package grpcapi

import (
	"context"
	"encoding/json"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/sametick/sametick/pkg/auth"
	"github.com/sametick/sametick/pkg/errs"
	"github.com/sametick/sametick/pkg/idempotency"
	"github.com/sametick/sametick/pkg/outbox"
	"github.com/sametick/sametick/pkg/rpc"
	"github.com/sametick/sametick/pkg/telemetry"
	promptsv1 "github.com/sametick/sametick/proto/gen/go/sametick/prompts/v1"
	wirev1 "github.com/sametick/sametick/proto/gen/go/sametick/wire/v1"
	"github.com/sametick/sametick/services/prompt-worker/internal/hooks"
	"github.com/sametick/sametick/services/prompt-worker/internal/managing"
)

// Prompts serves PromptService to api-gateway, which has authenticated who calls. It has no rules of its own.
type Prompts struct {
	promptsv1.UnimplementedPromptServiceServer
	Service *managing.Service
}

// Register registers the service.
func (s *Prompts) Register(r grpc.ServiceRegistrar) { promptsv1.RegisterPromptServiceServer(r, s) }

// Unary are the interceptors that both services rest on: the suite's token and with it the caller, then keys.
func Unary(token string, once idempotency.Once) []grpc.UnaryServerInterceptor {
	guard, _ := rpc.InternalAuth(token)
	return []grpc.UnaryServerInterceptor{guard, idempotency.Unary(idempotency.Options{
		Once: once,
		Caller: func(ctx context.Context) (int64, string) {
			c, _ := rpc.CallerOf(ctx)
			return c.OrgID, c.Subject
		},
		// A key's transaction is open for as long as its call, and a model may take minutes.
		Refused: map[string]string{promptsv1.PromptService_DryRunHook_FullMethodName: "a model is asked each time"},
	})}
}

// callOf gives who calls, of those that may.
func callOf(ctx context.Context) (call hooks.Call, err error) {
	c, ok := rpc.CallerOf(ctx)
	if !ok {
		return call, errs.New(errs.Unauthenticated, "CALLER_MISSING", "nobody is said to call")
	}
	if !auth.ScopesOf(strings.Fields(c.Scopes)...).Has(auth.PromptsManage) {
		return call, errs.New(errs.PermissionDenied, "SCOPE_MISSING", "the token lacks a scope that this needs").WithMeta("scope", auth.PromptsManage)
	}
	return hooks.Call{OrgID: c.OrgID, Context: outbox.Context{ActorID: c.UserID, RequestID: telemetry.RequestID(ctx), IP: c.IP,
		UserAgent: c.UserAgent, Traceparent: telemetry.Traceparent(ctx)}}, nil
}

// as does a call as its caller.
func as[T any](ctx context.Context, do func(hooks.Call) (T, error)) (out T, err error) {
	call, err := callOf(ctx)
	if err != nil {
		return out, err
	}
	return do(call)
}

// to turns a result into a message.
func to[T, M any](v T, err error, message func(T) M) (none M, _ error) {
	if err != nil {
		return none, err
	}
	return message(v), nil
}

func each[T, M any](list []T, message func(T) M) []M {
	out := make([]M, len(list))
	for i := range list {
		out[i] = message(list[i])
	}
	return out
}

// setFields are the fields of a request that are set, but for those that say what is changed and from when.
func setFields(m protoreflect.Message) (mask []string) {
	m.Range(func(f protoreflect.FieldDescriptor, _ protoreflect.Value) bool {
		if name := string(f.Name()); name != "id" && name != "version" {
			mask = append(mask, name)
		}
		return true
	})
	return mask
}

func stamp(t *time.Time) *timestamppb.Timestamp {
	if t == nil {
		return nil
	}
	return timestamppb.New(*t)
}

func instant(t *timestamppb.Timestamp) *time.Time {
	if t == nil {
		return nil
	}
	at := t.AsTime()
	return &at
}

// toJSON shows nothing for null.
func toJSON(text json.RawMessage) *wirev1.Json {
	if len(text) == 0 || string(text) == "null" {
		return nil
	}
	return &wirev1.Json{Text: string(text)}
}

func fromJSON(j *wirev1.Json) json.RawMessage {
	if j.GetText() == "" {
		return nil
	}
	return json.RawMessage(j.GetText())
}

func query(limit *int32, cursor string, archived bool) managing.Query {
	return managing.Query{Limit: limit, Cursor: cursor, IncludeArchived: archived}
}
