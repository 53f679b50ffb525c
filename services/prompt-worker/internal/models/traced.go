package models

import (
	"context"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"github.com/sametick/sametick/services/prompt-worker/internal/prompting"
	"github.com/sametick/sametick/services/prompt-worker/internal/provider"
	"github.com/sametick/sametick/services/prompt-worker/internal/runs"
)

// traced makes a span of each call, with the attributes of OpenTelemetry's semantic conventions for generative AI
// (https://opentelemetry.io/docs/specs/semconv/gen-ai/gen-ai-spans/). They are written out here: Go's semconv packages
// have had none since v1.42. No text of a prompt or of an answer is among them.
type traced struct {
	provider.Model
	tracer trace.Tracer
	kind   string
}

// Complete implements prompting.Model.
func (t traced) Complete(ctx context.Context, r prompting.Request) (prompting.Response, error) {
	ctx, span := t.tracer.Start(ctx, "chat "+r.Model, trace.WithSpanKind(trace.SpanKindClient), trace.WithAttributes(
		attribute.String("gen_ai.operation.name", "chat"),
		attribute.String("gen_ai.provider.name", t.kind),
		attribute.String("gen_ai.request.model", r.Model),
		attribute.Int("gen_ai.request.max_tokens", r.MaxTokens),
	))
	defer span.End()
	out, err := t.Model.Complete(ctx, r)
	usage := out.Usage
	if failure := runs.Failure(err); failure != nil {
		usage = failure.Usage
		span.SetStatus(codes.Error, failure.Cause)
		span.SetAttributes(attribute.String("error.type", failure.Cause))
	}
	span.SetAttributes(
		attribute.Int64("gen_ai.usage.input_tokens", usage.Input+usage.Cached), // the convention counts both
		attribute.Int64("gen_ai.usage.output_tokens", usage.Output),
	)
	return out, err
}
