package rpc_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/sametick/sametick/pkg/errs"
	"github.com/sametick/sametick/pkg/lifecycle"
	"github.com/sametick/sametick/pkg/lifecycletest"
	"github.com/sametick/sametick/pkg/rpc"
	"github.com/sametick/sametick/pkg/telemetry"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// syncBuffer is a log that tests read while servers write.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

type echo func(ctx context.Context, in string) (string, error)

// desc is a service of one unary and one streaming method, both answered by the same function.
func desc() *grpc.ServiceDesc {
	return &grpc.ServiceDesc{
		ServiceName: "test.Echo",
		HandlerType: (*any)(nil),
		Methods: []grpc.MethodDesc{{MethodName: "Say", Handler: func(srv any, ctx context.Context, dec func(any) error, i grpc.UnaryServerInterceptor) (any, error) {
			in := &wrapperspb.StringValue{}
			if err := dec(in); err != nil {
				return nil, err
			}
			call := func(ctx context.Context, req any) (any, error) {
				out, err := srv.(echo)(ctx, req.(*wrapperspb.StringValue).GetValue())
				return wrapperspb.String(out), err
			}
			return i(ctx, in, &grpc.UnaryServerInfo{Server: srv, FullMethod: "/test.Echo/Say"}, call)
		}}},
		Streams: []grpc.StreamDesc{{StreamName: "Stream", ServerStreams: true, Handler: func(srv any, ss grpc.ServerStream) error {
			in := &wrapperspb.StringValue{}
			if err := ss.RecvMsg(in); err != nil {
				return err
			}
			out, err := srv.(echo)(ss.Context(), in.GetValue())
			if err != nil {
				return err
			}
			return ss.SendMsg(wrapperspb.String(out))
		}}},
	}
}

func options(log *syncBuffer, fn echo) rpc.ServerOptions {
	return rpc.ServerOptions{
		Addr: "127.0.0.1:0", Log: telemetry.NewLogger(log, "test", slog.LevelDebug), Registry: telemetry.NewRegistry(),
		Register: func(r grpc.ServiceRegistrar) { r.RegisterService(desc(), fn) },
	}
}

func start(t *testing.T, o rpc.ServerOptions) *lifecycle.Server {
	s := rpc.NewServer(o)
	require.NoError(t, s.Start(t.Context()))
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		require.NoError(t, s.Stop(ctx))
	})
	return s
}

func dial(t *testing.T, s *lifecycle.Server, o rpc.ClientOptions) *grpc.ClientConn {
	c, err := rpc.Dial(s.Addr(), o)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, c.Close()) })
	return c
}

func say(ctx context.Context, c *grpc.ClientConn, in string, opts ...grpc.CallOption) (string, error) {
	out := &wrapperspb.StringValue{}
	err := c.Invoke(ctx, "/test.Echo/Say", wrapperspb.String(in), out, opts...)
	return out.GetValue(), err
}

func sayStream(ctx context.Context, c *grpc.ClientConn, in string) (string, error) {
	s, err := c.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true}, "/test.Echo/Stream")
	if err != nil {
		return "", err
	}
	if err := errors.Join(s.SendMsg(wrapperspb.String(in)), s.CloseSend()); err != nil {
		return "", err
	}
	out := &wrapperspb.StringValue{}
	if err := s.RecvMsg(out); err != nil {
		return "", err
	}
	if err := s.RecvMsg(&wrapperspb.StringValue{}); !errors.Is(err, io.EOF) {
		return "", err
	}
	return out.GetValue(), nil
}

func TestContract(t *testing.T) {
	lifecycletest.Stress(t, func() lifecycle.Component {
		return rpc.NewServer(options(&syncBuffer{}, nil))
	})
}

// One request id goes from the caller's context through both services' logs and back to the caller.
func TestRequestID(t *testing.T) {
	var log syncBuffer
	c := dial(t, start(t, options(&log, func(ctx context.Context, _ string) (string, error) {
		return telemetry.RequestID(ctx), nil
	})), rpc.ClientOptions{})
	ctx := telemetry.WithRequestID(t.Context(), "req-7")

	var header metadata.MD
	got, err := say(ctx, c, "", grpc.Header(&header))
	require.NoError(t, err)
	require.Equal(t, "req-7", got)
	require.Equal(t, []string{"req-7"}, header.Get(rpc.RequestIDKey))
	got, err = sayStream(ctx, c, "")
	require.NoError(t, err)
	require.Equal(t, "req-7", got)

	got, err = say(t.Context(), c, "")
	require.NoError(t, err)
	require.NotEmpty(t, got, "one is drawn")
}

func TestErrorsAreMappedAndLoggedOnce(t *testing.T) {
	var log syncBuffer
	o := options(&log, func(_ context.Context, in string) (string, error) {
		switch in {
		case "panic":
			panic("hunter2")
		case "plain":
			return "", errors.New("hunter2")
		default:
			return "", errs.New(errs.Invalid, "BAD_LIMIT", "bad limit").WithField("limit", "OUT_OF_RANGE", "1 to 100")
		}
	})
	c := dial(t, start(t, o), rpc.ClientOptions{})
	for _, call := range []func(context.Context, string) error{
		func(ctx context.Context, in string) error { _, err := say(ctx, c, in); return err },
		func(ctx context.Context, in string) error { _, err := sayStream(ctx, c, in); return err },
	} {
		for in, want := range map[string]struct {
			kind errs.Kind
			log  string
		}{
			"panic": {errs.Internal, `"level":"ERROR"`}, "plain": {errs.Internal, `"level":"ERROR"`}, "own": {errs.Invalid, `"level":"INFO"`},
		} {
			before := len(log.String())
			err := call(telemetry.WithRequestID(t.Context(), "req-"+in), in)
			e := errs.From(err)
			require.Equal(t, want.kind, e.Kind)
			require.NotContains(t, err.Error(), "hunter2")
			line := log.String()[before:]
			require.Equal(t, 1, strings.Count(line, "\n"), line)
			require.Contains(t, line, want.log)
			require.Contains(t, line, `"request_id":"req-`+in+`"`)
			require.Equal(t, in == "panic", strings.Contains(line, "runtime/debug.Stack"), "a stack for a panic only")
			if in == "own" {
				require.Equal(t, "BAD_LIMIT", e.Reason)
				require.Equal(t, "limit", e.Fields[0].Field)
			}
		}
	}
	n, err := testutil.GatherAndCount(o.Registry, "sametick_grpc_server_seconds")
	require.NoError(t, err)
	require.Equal(t, 4, n, "two methods, two codes")
}

func TestDeadlines(t *testing.T) {
	var log syncBuffer
	wait := func(ctx context.Context, _ string) (string, error) { <-ctx.Done(); return "", ctx.Err() }
	o := options(&log, wait)
	o.Timeout = 20 * time.Millisecond
	c := dial(t, start(t, o), rpc.ClientOptions{})
	_, err := say(t.Context(), c, "")
	require.Equal(t, errs.DeadlineExceeded, errs.KindOf(err))
	require.Contains(t, log.String(), "DEADLINE_EXCEEDED", "the server's deadline, not the client's")

	short := dial(t, start(t, options(&syncBuffer{}, wait)), rpc.ClientOptions{Timeout: 20 * time.Millisecond})
	_, err = say(t.Context(), short, "")
	require.Equal(t, errs.DeadlineExceeded, errs.KindOf(err))
}

func TestTooLarge(t *testing.T) {
	o := options(&syncBuffer{}, func(context.Context, string) (string, error) { return "", nil })
	o.MaxRecvBytes = 100
	c := dial(t, start(t, o), rpc.ClientOptions{})
	_, err := say(t.Context(), c, strings.Repeat("x", 90))
	require.NoError(t, err)
	_, err = say(t.Context(), c, strings.Repeat("x", 110))
	require.Equal(t, codes.ResourceExhausted, status.Code(err))
}

func TestInternalAuth(t *testing.T) {
	for name, c := range map[string]struct {
		server, client string
		services       []string
		want           errs.Kind
	}{
		"right":            {"secret-secret-sec", "secret-secret-sec", nil, errs.OK},
		"wrong":            {"secret-secret-sec", "secret-secret-sex", nil, errs.Unauthenticated},
		"prefix":           {"secret-secret-sec", "secret", nil, errs.Unauthenticated},
		"none":             {"secret-secret-sec", "", nil, errs.Unauthenticated},
		"unset on server":  {"", "", nil, errs.Unauthenticated},
		"named, none":      {"secret-secret-sec", "", []string{"test.Echo"}, errs.Unauthenticated},
		"other guarded":    {"secret-secret-sec", "", []string{"test.Other"}, errs.OK},
		"unset, any token": {"", "x", nil, errs.Unauthenticated},
	} {
		t.Run(name, func(t *testing.T) {
			o := options(&syncBuffer{}, func(context.Context, string) (string, error) { return "", nil })
			u, s := rpc.InternalAuth(c.server, c.services...)
			o.Unary, o.Stream = []grpc.UnaryServerInterceptor{u}, []grpc.StreamServerInterceptor{s}
			conn := dial(t, start(t, o), rpc.ClientOptions{Token: c.client})
			_, err := say(t.Context(), conn, "")
			require.Equal(t, c.want, errs.KindOf(err))
			_, err = sayStream(t.Context(), conn, "")
			require.Equal(t, c.want, errs.KindOf(err))
			res, err := grpc_health_v1.NewHealthClient(conn).Check(t.Context(), &grpc_health_v1.HealthCheckRequest{})
			require.NoError(t, err, "probes have no token")
			require.Equal(t, grpc_health_v1.HealthCheckResponse_SERVING, res.GetStatus())
		})
	}
}

func TestDrain(t *testing.T) {
	for name, finishes := range map[string]bool{"finishes calls in hand": true, "cancels them after the grace": false} {
		t.Run(name, func(t *testing.T) {
			entered, release := make(chan struct{}), make(chan struct{})
			s := start(t, options(&syncBuffer{}, func(ctx context.Context, _ string) (string, error) {
				close(entered)
				select {
				case <-release:
					return "whole", nil
				case <-ctx.Done():
					return "", ctx.Err()
				}
			}))
			c := dial(t, s, rpc.ClientOptions{})
			type answer struct {
				out string
				err error
			}
			got := make(chan answer, 1)
			go func() { out, err := say(t.Context(), c, ""); got <- answer{out, err} }()
			<-entered
			grace := 20 * time.Millisecond
			if finishes {
				grace = 10 * time.Second
				close(release)
			}
			ctx, cancel := context.WithTimeout(t.Context(), grace)
			defer cancel()
			err := s.Stop(ctx)
			a := <-got
			if finishes {
				require.NoError(t, err)
				require.NoError(t, a.err)
				require.Equal(t, "whole", a.out)
			} else {
				require.ErrorIs(t, err, lifecycle.ErrGrace)
				require.Error(t, a.err)
			}
		})
	}
}
