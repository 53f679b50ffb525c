package grpcapi

import (
	"context"
	"strings"

	"google.golang.org/protobuf/types/known/timestamppb"

	webhooksv1 "github.com/sametick/sametick/proto/gen/go/sametick/webhooks/v1"
	wirev1 "github.com/sametick/sametick/proto/gen/go/sametick/wire/v1"
	"github.com/sametick/sametick/services/webhook-worker/internal/endpoints"
	"github.com/sametick/sametick/services/webhook-worker/internal/signing"
)

// GetEndpointStats implements WebhookService.
func (s *Server) GetEndpointStats(ctx context.Context, req *webhooksv1.GetEndpointStatsRequest) (*webhooksv1.EndpointStats, error) {
	return as(ctx, func(call endpoints.Call) (*webhooksv1.EndpointStats, error) {
		st, err := s.of(call).Stats(ctx, call.OrgID, req.GetId(), instant(req.GetSince()))
		return to(st, err, toStats)
	})
}

func toStats(s *endpoints.Stats) *webhooksv1.EndpointStats {
	m := &webhooksv1.EndpointStats{Attempts: s.Attempts, Delivered: s.Delivered, FailedAttempts: s.Failed,
		LatencyP50: s.P50, LatencyP95: s.P95, LatencyP99: s.P99, Backlog: s.Backlog, Oldest: stamp(s.Oldest)}
	if s.Attempts > 0 {
		rate := float64(s.Delivered) / float64(s.Attempts)
		m.SuccessRate = &rate
	}
	return m
}

// TestEndpoint implements WebhookService.
func (s *Server) TestEndpoint(ctx context.Context, req *webhooksv1.TestEndpointRequest) (*webhooksv1.TestEndpointResponse, error) {
	return as(ctx, func(call endpoints.Call) (*webhooksv1.TestEndpointResponse, error) {
		event, err := s.of(call).Test(ctx, call, req.GetId())
		if err != nil {
			return nil, err
		}
		return &webhooksv1.TestEndpointResponse{EventId: event, WebhookId: signing.MessageID(event, req.GetId())}, nil
	})
}

// TryEndpoint implements WebhookService.
func (s *Server) TryEndpoint(ctx context.Context, req *webhooksv1.TryEndpointRequest) (*webhooksv1.TryEndpointResponse, error) {
	return asManager(ctx, func(call endpoints.Call) (*webhooksv1.TryEndpointResponse, error) {
		refused, body, err := s.of(call).Try(ctx, call.OrgID, endpoints.Trial{ID: req.Id, EventID: req.GetEventId(), EventTypes: req.GetEventTypes(),
			Filter: req.Filter, Transform: req.Transform, Format: req.Format})
		if err != nil {
			return nil, err
		}
		m := &webhooksv1.TryEndpointResponse{Matches: refused == "", RefusedBy: refused}
		if len(body) > 0 {
			m.Body = &wirev1.Json{Text: string(body)}
		}
		return m, nil
	})
}

// RecoverEndpoint implements WebhookService.
func (s *Server) RecoverEndpoint(ctx context.Context, req *webhooksv1.RecoverEndpointRequest) (*webhooksv1.Replay, error) {
	return as(ctx, func(call endpoints.Call) (*webhooksv1.Replay, error) {
		r, err := s.of(call).Recover(ctx, call, req.GetId(), instant(req.GetSince()))
		return to(r, err, toReplay)
	})
}

// ReplayEndpoint implements WebhookService.
func (s *Server) ReplayEndpoint(ctx context.Context, req *webhooksv1.ReplayEndpointRequest) (*webhooksv1.Replay, error) {
	return asManager(ctx, func(call endpoints.Call) (*webhooksv1.Replay, error) {
		r, err := s.of(call).Replay(ctx, call, req.GetId(), req.AfterPosition, instant(req.GetSince()))
		return to(r, err, toReplay)
	})
}

// ListReplays implements WebhookService.
func (s *Server) ListReplays(ctx context.Context, req *webhooksv1.ListReplaysRequest) (*webhooksv1.ListReplaysResponse, error) {
	return as(ctx, func(call endpoints.Call) (*webhooksv1.ListReplaysResponse, error) {
		list, total, err := s.of(call).Replays(ctx, call.OrgID, req.GetEndpointId())
		if err != nil {
			return nil, err
		}
		return &webhooksv1.ListReplaysResponse{Data: each(list, toReplay), Total: total}, nil
	})
}

// CancelReplay implements WebhookService.
func (s *Server) CancelReplay(ctx context.Context, req *webhooksv1.CancelReplayRequest) (*webhooksv1.Replay, error) {
	return asManager(ctx, func(call endpoints.Call) (*webhooksv1.Replay, error) {
		r, err := s.of(call).CancelReplay(ctx, call, req.GetId())
		return to(r, err, toReplay)
	})
}

func toReplay(r *endpoints.Replay) *webhooksv1.Replay {
	return &webhooksv1.Replay{Id: r.ID, EndpointId: r.EndpointID, Kind: r.Kind, Status: r.Status, Scheduled: r.Scheduled,
		CreatedAt: timestamppb.New(r.CreatedAt), FinishedAt: stamp(r.FinishedAt)}
}

// ListDeliveries implements WebhookService.
func (s *Server) ListDeliveries(ctx context.Context, req *webhooksv1.ListDeliveriesRequest) (*webhooksv1.ListDeliveriesResponse, error) {
	return as(ctx, func(call endpoints.Call) (*webhooksv1.ListDeliveriesResponse, error) {
		list, next, err := s.of(call).Deliveries(ctx, call.OrgID, endpoints.Filter{EndpointID: req.EndpointId, EventID: req.EventId, EventType: req.GetEventType(),
			Status: req.GetStatus(), From: instant(req.GetFrom()), To: instant(req.GetTo())}, req.Limit, req.GetCursor())
		if err != nil {
			return nil, err
		}
		return &webhooksv1.ListDeliveriesResponse{Data: each(list, toDelivery), NextCursor: cursor(next)}, nil
	})
}

func cursor(c *endpoints.Cursor) *string {
	if c == nil {
		return nil
	}
	text := c.String()
	return &text
}

// GetDelivery implements WebhookService.
func (s *Server) GetDelivery(ctx context.Context, req *webhooksv1.GetDeliveryRequest) (*webhooksv1.Delivery, error) {
	return as(ctx, func(call endpoints.Call) (*webhooksv1.Delivery, error) {
		d, err := s.of(call).Delivery(ctx, call.OrgID, req.GetId())
		return to(d, err, toDelivery)
	})
}

// RedeliverDelivery implements WebhookService.
func (s *Server) RedeliverDelivery(ctx context.Context, req *webhooksv1.RedeliverDeliveryRequest) (*webhooksv1.Delivery, error) {
	return as(ctx, func(call endpoints.Call) (*webhooksv1.Delivery, error) {
		d, err := s.of(call).Redeliver(ctx, call, req.GetId())
		return to(d, err, toDelivery)
	})
}

// SkipDelivery implements WebhookService.
func (s *Server) SkipDelivery(ctx context.Context, req *webhooksv1.SkipDeliveryRequest) (*webhooksv1.Delivery, error) {
	return as(ctx, func(call endpoints.Call) (*webhooksv1.Delivery, error) {
		d, err := s.of(call).Skip(ctx, call, req.GetId())
		return to(d, err, toDelivery)
	})
}

func toDelivery(d *endpoints.Delivery) *webhooksv1.Delivery {
	return &webhooksv1.Delivery{Id: d.ID, EndpointId: d.EndpointID, EventId: d.EventID, EventType: d.EventType,
		WebhookId: signing.MessageID(d.EventID, d.EndpointID), Trigger: d.Trigger, Status: d.Status, Attempts: d.Attempts,
		DueAt: stamp(d.DueAt), Cause: d.Cause, CreatedAt: timestamppb.New(d.CreatedAt), FinishedAt: stamp(d.FinishedAt)}
}

// ListAttempts implements WebhookService.
func (s *Server) ListAttempts(ctx context.Context, req *webhooksv1.ListAttemptsRequest) (*webhooksv1.ListAttemptsResponse, error) {
	return as(ctx, func(call endpoints.Call) (*webhooksv1.ListAttemptsResponse, error) {
		list, next, err := s.of(call).Attempts(ctx, call.OrgID, endpoints.Filter{DeliveryID: req.DeliveryId, EndpointID: req.EndpointId, EventID: req.EventId,
			Status: req.GetOutcome(), From: instant(req.GetFrom()), To: instant(req.GetTo())}, req.Limit, req.GetCursor())
		if err != nil {
			return nil, err
		}
		return &webhooksv1.ListAttemptsResponse{Data: each(list, toAttempt), NextCursor: cursor(next)}, nil
	})
}

// GetAttempt implements WebhookService.
func (s *Server) GetAttempt(ctx context.Context, req *webhooksv1.GetAttemptRequest) (*webhooksv1.Attempt, error) {
	return as(ctx, func(call endpoints.Call) (*webhooksv1.Attempt, error) {
		a, err := s.of(call).Attempt(ctx, call.OrgID, req.GetId())
		return to(a, err, toAttempt)
	})
}

func toAttempt(a *endpoints.Attempt) *webhooksv1.Attempt {
	return &webhooksv1.Attempt{Id: a.ID, DeliveryId: a.DeliveryID, EndpointId: a.EndpointID, EventId: a.EventID, EventType: a.EventType, Attempt: a.Attempt,
		Outcome: a.Outcome, Cause: a.Cause, Error: a.Error, Status: a.Status, Latency: float64(a.Latency.Microseconds()) / 1000,
		RequestHeaders: &wirev1.Json{Text: string(a.RequestHeaders)}, ResponseHeaders: &wirev1.Json{Text: string(a.ResponseHeaders)},
		ResponseBody: strings.ToValidUTF8(string(a.Body), "\uFFFD"), ResponseTruncated: a.Truncated,
		CreatedAt: timestamppb.New(a.CreatedAt), NextAt: stamp(a.NextAt)}
}
