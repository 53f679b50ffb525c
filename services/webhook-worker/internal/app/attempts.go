package app

import (
	"context"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"github.com/sametick/sametick/pkg/condition"
	"github.com/sametick/sametick/pkg/telemetry"
	"github.com/sametick/sametick/services/webhook-worker/internal/delivery"
	"github.com/sametick/sametick/services/webhook-worker/internal/schedule"
)

// poster signs a body and sends it (httpsend.Sender).
type poster interface {
	Send(ctx context.Context, e *delivery.Endpoint, d *delivery.Delivery, body []byte) delivery.Result
}

// attempts makes a delivery's body and sends it, in a span of the event's own trace. It implements delivery.Sender.
type attempts struct {
	sender   poster
	compiler *condition.Compiler
	// tracer is nil where nobody keeps spans: the event's trace context is then passed on as it is.
	tracer trace.Tracer
}

// Send makes one attempt.
func (a *attempts) Send(ctx context.Context, e *delivery.Endpoint, d *delivery.Delivery) delivery.Result {
	if e.Fault != "" {
		return delivery.Result{Cause: delivery.CauseConfig, Error: "a secret of the endpoint cannot be opened: " + e.Fault, Began: time.Now()}
	}
	body, err := schedule.Build(ctx, e, d, a.compiler)
	if err != nil {
		return delivery.Result{Cause: delivery.CauseTransform, Error: err.Error(), Began: time.Now()}
	}
	if a.tracer == nil {
		return a.sender.Send(ctx, e, d, body)
	}
	ctx, span := a.tracer.Start(telemetry.WithTraceparent(ctx, d.Traceparent), "webhook attempt", trace.WithSpanKind(trace.SpanKindClient))
	defer span.End()
	r := a.sender.Send(ctx, e, d, body)
	if span.IsRecording() {
		span.SetAttributes(attribute.Int64("sametick.org_id", d.OrgID), attribute.Int64("sametick.endpoint_id", d.EndpointID),
			attribute.Int64("sametick.event_id", d.EventID), attribute.String("sametick.event_type", d.EventType),
			attribute.Int("sametick.attempt", d.Attempts+1), attribute.Int("http.response.status_code", r.Status))
		if r.Cause != "" {
			span.SetStatus(codes.Error, r.Cause)
		}
	}
	return r
}
