package telemetry_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/sametick/sametick/pkg/errs"
	"github.com/sametick/sametick/pkg/lifecycle"
	"github.com/sametick/sametick/pkg/lifecycletest"
	"github.com/sametick/sametick/pkg/telemetry"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestLoggerKnowsTheRequest(t *testing.T) {
	var out bytes.Buffer
	log := telemetry.NewLogger(&out, "relay", slog.LevelInfo)
	ctx := telemetry.WithRequestID(t.Context(), "r-1")
	ctx = telemetry.WithTraceparent(ctx, "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
	log.With("a", 1).WithGroup("g").InfoContext(ctx, "hello")
	log.DebugContext(ctx, "below the level")
	var line struct {
		Service string `json:"service"`
		G       map[string]string
	}
	require.NoError(t, json.Unmarshal(out.Bytes(), &line), out.String())
	require.Equal(t, "relay", line.Service)
	require.Equal(t, "r-1", line.G["request_id"])
	require.Equal(t, "0af7651916cd43dd8448eb211c80319c", line.G["trace_id"])
}

func TestTakeRequestID(t *testing.T) {
	require.Equal(t, "Ab-1_2.3", telemetry.TakeRequestID("Ab-1_2.3"))
	for _, bad := range []string{"", "a b", "a\nb", "é", strings.Repeat("x", 129), `"`} {
		got := telemetry.TakeRequestID(bad)
		require.NotEqual(t, bad, got)
		require.Regexp(t, `^[A-Z2-7]{26}$`, got)
	}
}

func TestTraceparent(t *testing.T) {
	const tp = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	require.Equal(t, tp, telemetry.Traceparent(telemetry.WithTraceparent(t.Context(), tp)))
	require.Empty(t, telemetry.Traceparent(t.Context()))
	require.Empty(t, telemetry.Traceparent(telemetry.WithTraceparent(t.Context(), "00-zz")))
}

// A trace goes on through a service that exports nothing.
func TestTracingWithoutExporter(t *testing.T) {
	const id = "0af7651916cd43dd8448eb211c80319c"
	tr, err := telemetry.NewTracing(t.Context(), "x", func(string) string { return "" })
	require.NoError(t, err)
	ctx, span := tr.Provider().Tracer("x").Start(telemetry.WithTraceparent(t.Context(), "00-"+id+"-b7ad6b7169203331-01"), "op")
	require.Contains(t, telemetry.Traceparent(ctx), id)
	span.End()
	require.NoError(t, tr.Close(t.Context()))

	_, err = telemetry.NewTracing(t.Context(), "x", func(k string) string {
		return map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_EXPORTER_OTLP_PROTOCOL": "carrier-pigeon"}[k]
	})
	require.ErrorContains(t, err, "carrier-pigeon")
}

func TestTracingExports(t *testing.T) {
	var got atomic.Int64
	collector := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		got.Add(int64(len(b)))
	}))
	defer collector.Close()
	for k, v := range map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": collector.URL, "OTEL_EXPORTER_OTLP_COMPRESSION": "none"} {
		t.Setenv(k, v)
	}
	env := map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": collector.URL}
	for _, off := range []string{"true", ""} {
		env["OTEL_SDK_DISABLED"] = off
		tr, err := telemetry.NewTracing(t.Context(), "x", func(k string) string { return env[k] })
		require.NoError(t, err)
		_, span := tr.Provider().Tracer("x").Start(t.Context(), "op")
		span.End()
		require.NoError(t, tr.Close(t.Context()))
		require.Equal(t, off == "", got.Load() > 0)
	}
	http.DefaultTransport.(*http.Transport).CloseIdleConnections()
}

func status(t *testing.T, r *telemetry.Readiness) (int, telemetry.Status) {
	w := httptest.NewRecorder()
	r.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/readyz", nil))
	var s telemetry.Status
	require.NoError(t, json.Unmarshal(w.Body.Bytes(), &s))
	require.Equal(t, w.Code == http.StatusOK, s.Ready)
	return w.Code, s
}

func TestReadiness(t *testing.T) {
	var r telemetry.Readiness
	var fault error
	r.Add("schema", func(context.Context) error { return fault })
	code, s := status(t, &r)
	require.Equal(t, 503, code)
	require.Equal(t, "starting", s.Checks[0].Reason)

	r.Ready()
	code, _ = status(t, &r)
	require.Equal(t, 200, code)

	fault = errs.New(errs.FailedPrecondition, "SCHEMA_TOO_OLD", "run migrate")
	code, s = status(t, &r)
	require.Equal(t, 503, code)
	require.Equal(t, telemetry.Check{Name: "schema", Reason: "run migrate"}, s.Checks[1])

	fault = errors.New("dial postgres://u:hunter2@h")
	_, s = status(t, &r)
	require.Equal(t, "internal error", s.Checks[1].Reason)

	fault = nil
	r.Draining()
	code, s = status(t, &r)
	require.Equal(t, 503, code)
	require.Equal(t, "draining", s.Checks[0].Reason)
	r.Ready()
	code, _ = status(t, &r)
	require.Equal(t, 503, code, "draining is for good")
}

// A check that hangs must not hang the probe, and says so.
func TestHangingCheck(t *testing.T) {
	var r telemetry.Readiness
	r.Ready()
	r.Add("db", func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() })
	_, s := status(t, &r)
	require.Equal(t, "deadline exceeded", s.Checks[1].Reason)
}

func TestOps(t *testing.T) {
	log := telemetry.NewLogger(io.Discard, "x", slog.LevelInfo)
	ops := func() *lifecycle.Server {
		return telemetry.NewOps("127.0.0.1:0", telemetry.NewRegistry(), &telemetry.Readiness{}, log)
	}
	lifecycletest.Stress(t, func() lifecycle.Component { return ops() })
	s := ops()
	require.NoError(t, s.Start(t.Context()))
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	for path, want := range map[string]struct {
		code int
		body string
	}{
		"/healthz": {200, "ok"}, "/readyz": {503, "starting"}, "/metrics": {200, "go_goroutines"}, "/debug/pprof/": {200, "goroutine"},
	} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+s.Addr()+path, nil)
		require.NoError(t, err)
		res, err := client.Do(req)
		require.NoError(t, err)
		b, err := io.ReadAll(res.Body)
		require.NoError(t, err)
		require.NoError(t, res.Body.Close())
		require.Equal(t, want.code, res.StatusCode, path)
		require.Contains(t, string(b), want.body, path)
	}
	require.NoError(t, s.Stop(t.Context()))
}
