package telemetry

import (
	"context"
	"fmt"
	"strings"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
)

// Tracing makes spans, and sends them away when an endpoint is configured.
type Tracing struct {
	provider *sdktrace.TracerProvider
	exports  bool
}

// NewTracing reads the standard OTEL_* variables. Spans are exported only when
// OTEL_EXPORTER_OTLP_ENDPOINT or OTEL_EXPORTER_OTLP_TRACES_ENDPOINT is set, by OTLP over HTTP, or over
// gRPC when OTEL_EXPORTER_OTLP_PROTOCOL says so; OTEL_SDK_DISABLED=true or OTEL_TRACES_EXPORTER=none
// switch that off. Trace ids exist and travel in any case. (The exporters themselves read the
// process's environment; getenv decides only whether and how they are built.)
func NewTracing(ctx context.Context, service string, getenv func(string) string) (*Tracing, error) {
	res, err := resource.New(ctx, resource.WithAttributes(attribute.String("service.name", service)), resource.WithFromEnv())
	if err != nil {
		return nil, fmt.Errorf("telemetry: OTEL_RESOURCE_ATTRIBUTES: %w", err)
	}
	opts := []sdktrace.TracerProviderOption{sdktrace.WithResource(res)}
	exporter, err := exporter(ctx, getenv)
	if err != nil {
		return nil, err
	}
	if exporter == nil {
		opts = append(opts, sdktrace.WithSampler(sdktrace.NeverSample()))
	} else {
		opts = append(opts, sdktrace.WithBatcher(exporter))
	}
	return &Tracing{sdktrace.NewTracerProvider(opts...), exporter != nil}, nil
}

func exporter(ctx context.Context, getenv func(string) string) (sdktrace.SpanExporter, error) {
	first := func(names ...string) string {
		for _, n := range names {
			if v := getenv(n); v != "" {
				return v
			}
		}
		return ""
	}
	if first("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT") == "" ||
		getenv("OTEL_SDK_DISABLED") == "true" || getenv("OTEL_TRACES_EXPORTER") == "none" {
		return nil, nil
	}
	var client otlptrace.Client
	switch p := first("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"); p {
	case "", "http/protobuf":
		client = otlptracehttp.NewClient()
	case "grpc":
		client = otlptracegrpc.NewClient()
	default:
		return nil, fmt.Errorf("telemetry: OTEL_EXPORTER_OTLP_PROTOCOL is %q: want http/protobuf or grpc", p)
	}
	return otlptrace.New(ctx, client)
}

// Provider makes tracers.
func (t *Tracing) Provider() trace.TracerProvider { return t.provider }

// Exports tells whether spans go anywhere. Where they do not, a hot path may leave them out and pass on the trace context
// that it was given.
func (t *Tracing) Exports() bool { return t.exports }

// Close sends what is left, until ctx ends.
func (t *Tracing) Close(ctx context.Context) error { return t.provider.Shutdown(ctx) }

// Propagator is W3C Trace Context, the one format of this suite.
func Propagator() propagation.TextMapPropagator { return propagation.TraceContext{} }

// Traceparent is the W3C traceparent header (version 00) of ctx's span, empty without one.
func Traceparent(ctx context.Context) string {
	if !trace.SpanContextFromContext(ctx).IsValid() {
		return ""
	}
	c := propagation.MapCarrier{}
	Propagator().Inject(ctx, c)
	return c["traceparent"]
}

// WithTraceparent makes spans of ctx continue the trace in a traceparent; a malformed one is ignored,
// as the standard asks.
func WithTraceparent(ctx context.Context, traceparent string) context.Context {
	return Propagator().Extract(ctx, propagation.MapCarrier{"traceparent": traceparent})
}

// IsTraceparent tells whether a text is a traceparent header of version 00 (W3C Trace Context, section 3.2).
func IsTraceparent(text string) bool {
	const version, traceEnd, spanEnd, size = "00-", 35, 52, 55
	if len(text) != size || text[:len(version)] != version || text[traceEnd] != '-' || text[spanEnd] != '-' {
		return false
	}
	return isID(text[len(version):traceEnd]) && isID(text[traceEnd+1:spanEnd]) && isHex(text[spanEnd+1:])
}

// isID tells hexadecimal digits that are not all zero.
func isID(text string) bool { return isHex(text) && strings.Trim(text, "0") != "" }

func isHex(text string) bool {
	for i := range len(text) {
		if c := text[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}
