package grpcapi_test

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/sametick/sametick/pkg/errs"
	"github.com/sametick/sametick/pkg/event"
	webhooksv1 "github.com/sametick/sametick/proto/gen/go/sametick/webhooks/v1"
	"github.com/sametick/sametick/services/webhook-worker/internal/endpoints"
	"github.com/sametick/sametick/services/webhook-worker/internal/store"
)

// queue puts a delivery into the queue, as the scheduler does, and gives its id.
func (a *api) queue(endpoint, event int64, attempts int) (id int64) {
	a.t.Helper()
	require.NoError(a.t, a.admin.QueryRow(a.t.Context(), `INSERT INTO sametick.webhook_queue (id, org_id, shard, endpoint_id, event_id, position, event_type, attempts, due_at, created_at, cause)
		VALUES (nextval('sametick.webhook_delivery_ids'), $1, sametick.shard_of($1), $2, $3, $3, 'task.post_create', $4, now() + interval '1 hour', now(), 'status') RETURNING id`,
		int64(orgA), endpoint, event, attempts).Scan(&id))
	return id
}

// attempt writes one of a delivery, as the engine does; delivery 0 is a new one.
func (a *api) attempt(endpoint, event, delivery int64, n int, outcome, cause string) (id, of int64) {
	a.t.Helper()
	require.NoError(a.t, a.admin.QueryRow(a.t.Context(), `INSERT INTO sametick.webhook_attempts (org_id, endpoint_id, delivery_id, event_id, position, event_type, trigger, attempt,
			outcome, cause, status, latency_us, request_headers, response_body, scheduled_at, created_at)
		VALUES ($1, $2, CASE WHEN $3 = 0 THEN nextval('sametick.webhook_delivery_ids') ELSE $3 END, $4, $4, 'task.post_create', 'event', $5, $6, $7, 500, 1500,
			'{"webhook-id":["x"]}', '\x6f6bff', now(), now()) RETURNING id, delivery_id`, int64(orgA), endpoint, delivery, event, n, outcome, cause).Scan(&id, &of))
	return id, of
}

func (a *api) deliveries(change func(*webhooksv1.ListDeliveriesRequest)) (ids []int64, pages int) {
	a.t.Helper()
	req := &webhooksv1.ListDeliveriesRequest{Limit: proto.Int32(2)}
	change(req)
	for {
		page, err := a.client.ListDeliveries(a.as(orgA), req)
		require.NoError(a.t, err)
		require.LessOrEqual(a.t, len(page.GetData()), 2)
		pages++
		for _, d := range page.GetData() {
			ids = append(ids, d.GetId())
		}
		if page.NextCursor == nil {
			return ids, pages
		}
		req.Cursor = page.GetNextCursor()
	}
}

func TestDeliveriesAndAttempts(t *testing.T) {
	a := start(t)
	e := a.create(nil).GetEndpoint().GetId()
	other := a.create(nil).GetEndpoint().GetId()
	_, done := a.attempt(e, 101, 0, 1, "delivered", "")
	_, retried := a.attempt(e, 102, 0, 1, "retrying", "status")
	_, _ = a.attempt(e, 102, retried, 2, "failed", "status")
	waiting := a.queue(e, 103, 1)
	first, _ := a.attempt(e, 103, waiting, 1, "retrying", "timeout")
	fresh := a.queue(e, 104, 0)
	elsewhere := a.queue(other, 101, 0)

	all, _ := a.deliveries(func(r *webhooksv1.ListDeliveriesRequest) { r.EndpointId = &e })
	require.Equal(t, []int64{fresh, waiting, retried, done}, all, "what waits, then what has ended")
	for status, want := range map[string][]int64{"pending": {fresh, waiting}, "delivered": {done}, "failed": {retried}, "cancelled": nil} {
		got, _ := a.deliveries(func(r *webhooksv1.ListDeliveriesRequest) { r.EndpointId, r.Status = &e, status })
		require.Equal(t, want, got, status)
	}
	ofEvent, _ := a.deliveries(func(r *webhooksv1.ListDeliveriesRequest) { r.EventId = proto.Int64(103) })
	require.Equal(t, []int64{waiting}, ofEvent)
	none, _ := a.deliveries(func(r *webhooksv1.ListDeliveriesRequest) { r.EndpointId, r.EventType = &e, "task.post_update" })
	require.Empty(t, none)
	past, _ := a.deliveries(func(r *webhooksv1.ListDeliveriesRequest) {
		r.EndpointId, r.To = &e, timestamppb.New(time.Now().Add(-time.Hour))
	})
	require.Empty(t, past)
	now, _ := a.deliveries(func(r *webhooksv1.ListDeliveriesRequest) {
		r.EndpointId, r.From = &e, timestamppb.New(time.Now().Add(-time.Hour))
	})
	require.Len(t, now, 4)

	d, err := a.client.GetDelivery(a.as(orgA), &webhooksv1.GetDeliveryRequest{Id: waiting})
	require.NoError(t, err)
	require.Equal(t, "pending", d.GetStatus())
	require.Equal(t, fmt.Sprintf("msg_103_%d", e), d.GetWebhookId())
	require.NotNil(t, d.GetDueAt())
	require.Nil(t, d.GetFinishedAt())
	d, err = a.client.GetDelivery(a.as(orgA), &webhooksv1.GetDeliveryRequest{Id: retried})
	require.NoError(t, err)
	require.Equal(t, "failed", d.GetStatus())
	require.EqualValues(t, 2, d.GetAttempts())
	require.NotNil(t, d.GetFinishedAt())

	list, err := a.client.ListAttempts(a.as(orgA), &webhooksv1.ListAttemptsRequest{DeliveryId: &retried})
	require.NoError(t, err)
	require.Len(t, list.GetData(), 2)
	require.EqualValues(t, 2, list.GetData()[0].GetAttempt(), "newest first")
	list, err = a.client.ListAttempts(a.as(orgA), &webhooksv1.ListAttemptsRequest{EndpointId: &e, Outcome: "retrying", Limit: proto.Int32(1)})
	require.NoError(t, err)
	require.Equal(t, first, list.GetData()[0].GetId())
	require.NotNil(t, list.NextCursor)
	got, err := a.client.GetAttempt(a.as(orgA), &webhooksv1.GetAttemptRequest{Id: first})
	require.NoError(t, err)
	require.Equal(t, "ok\uFFFD", got.GetResponseBody())
	require.JSONEq(t, `{"webhook-id":["x"]}`, got.GetRequestHeaders().GetText())
	require.Equal(t, "null", got.GetResponseHeaders().GetText())
	require.InDelta(t, 1.5, got.GetLatency(), 0)

	for _, bad := range []*webhooksv1.ListDeliveriesRequest{{}, {EndpointId: &e, Status: "retrying"}, {EndpointId: &e, Cursor: "!"}, {EndpointId: proto.Int64(0)}} {
		_, err := a.client.ListDeliveries(a.as(orgA), bad)
		require.Equal(t, errs.Invalid, errs.KindOf(err), bad)
	}
	_, err = a.client.ListAttempts(a.as(orgA), &webhooksv1.ListAttemptsRequest{})
	require.Equal(t, "REQUIRED", errs.From(err).Fields[0].Reason)
	require.NotZero(t, elsewhere)

	st, err := a.client.GetEndpointStats(a.as(orgA), &webhooksv1.GetEndpointStatsRequest{Id: e})
	require.NoError(t, err)
	require.Equal(t, []int64{4, 1, 3, 2}, []int64{st.GetAttempts(), st.GetDelivered(), st.GetFailedAttempts(), st.GetBacklog()})
	require.InDelta(t, 0.25, st.GetSuccessRate(), 0)
	require.InDelta(t, 1.5, st.GetLatencyP99(), 0.001)
	require.NotNil(t, st.GetOldest())
	st, err = a.client.GetEndpointStats(a.as(orgA), &webhooksv1.GetEndpointStatsRequest{Id: other})
	require.NoError(t, err)
	require.Nil(t, st.SuccessRate)
	require.Nil(t, st.LatencyP50)
}

func TestRedeliverAndSkip(t *testing.T) {
	a := start(t)
	e := a.create(nil).GetEndpoint().GetId()
	waiting := a.queue(e, 103, 1)
	_, failed := a.attempt(e, 102, 0, 10, "failed", "status")

	d, err := a.client.RedeliverDelivery(a.as(orgA), &webhooksv1.RedeliverDeliveryRequest{Id: waiting})
	require.NoError(t, err)
	require.Equal(t, waiting, d.GetId())
	require.False(t, d.GetDueAt().AsTime().After(time.Now().Add(time.Second)), "due now")
	d, err = a.client.RedeliverDelivery(a.as(orgA), &webhooksv1.RedeliverDeliveryRequest{Id: failed})
	require.NoError(t, err)
	require.NotEqual(t, failed, d.GetId())
	require.Equal(t, []string{"pending", "redeliver", fmt.Sprintf("msg_102_%d", e)}, []string{d.GetStatus(), d.GetTrigger(), d.GetWebhookId()})
	require.Zero(t, d.GetAttempts())

	skipped, err := a.client.SkipDelivery(a.as(orgA), &webhooksv1.SkipDeliveryRequest{Id: waiting})
	require.NoError(t, err)
	require.Equal(t, []string{"cancelled", "skipped"}, []string{skipped.GetStatus(), skipped.GetCause()})
	_, err = a.client.SkipDelivery(a.as(orgA), &webhooksv1.SkipDeliveryRequest{Id: waiting})
	require.True(t, errs.HasReason(errs.From(err), "DELIVERY_ENDED"))
	list := a.eventsOf(e)
	require.Equal(t, []string{"redelivery_requested", "redelivery_requested", "skip_requested"}, types(list)[2:])
	require.EqualValues(t, []any{float64(waiting), float64(d.GetId()), float64(waiting)},
		[]any{list[2].field(t, "delivery_id"), list[3].field(t, "delivery_id"), list[4].field(t, "delivery_id")})

	// An attempt that was under way ends later: the delivery stays given up.
	a.attempt(e, 103, waiting, 2, "retrying", "status")
	skipped, err = a.client.GetDelivery(a.as(orgA), &webhooksv1.GetDeliveryRequest{Id: waiting})
	require.NoError(t, err)
	require.Equal(t, "cancelled", skipped.GetStatus())

	_, err = a.client.DisableEndpoint(a.as(orgA), &webhooksv1.DisableEndpointRequest{Id: e})
	require.NoError(t, err)
	_, err = a.client.RedeliverDelivery(a.as(orgA), &webhooksv1.RedeliverDeliveryRequest{Id: failed})
	require.True(t, errs.HasReason(errs.From(err), "ENDPOINT_DISABLED"))
}

// What was tried and then ended without a request was tried all the same, however its end came about.
func TestAnEndWithoutARequestCountsTheAttemptsBefore(t *testing.T) {
	a := start(t)
	e := a.create(nil).GetEndpoint().GetId()
	tried, fresh := a.queue(e, 101, 2), a.queue(e, 102, 0)
	for n := range 2 {
		a.attempt(e, 101, tried, n+1, "retrying", "status")
	}
	_, gone := a.attempt(e, 103, 0, 1, "retrying", "status")
	a.attempt(e, 103, gone, 0, "failed", "event_gone")
	for _, id := range []int64{tried, fresh} {
		_, err := a.client.SkipDelivery(a.as(orgA), &webhooksv1.SkipDeliveryRequest{Id: id})
		require.NoError(t, err)
	}
	want := map[int64]int32{tried: 2, fresh: 0, gone: 1}
	list, err := a.client.ListDeliveries(a.as(orgA), &webhooksv1.ListDeliveriesRequest{EndpointId: &e})
	require.NoError(t, err)
	require.Len(t, list.GetData(), len(want))
	for _, d := range list.GetData() {
		require.Equal(t, want[d.GetId()], d.GetAttempts(), "%s in the list", d)
		got, err := a.client.GetDelivery(a.as(orgA), &webhooksv1.GetDeliveryRequest{Id: d.GetId()})
		require.NoError(t, err)
		require.Equal(t, want[d.GetId()], got.GetAttempts(), "%s alone", d)
	}
}

// step works off a shard's replays as the engine does, and gives what is in the queue, in order.
func (a *api) step(events store.Replayer) (queued []string, steps int) {
	a.t.Helper()
	for {
		more := false
		require.NoError(a.t, pgx.BeginFunc(a.t.Context(), a.admin, func(tx pgx.Tx) error {
			_, err := tx.Exec(a.t.Context(), `SET LOCAL ROLE sametick_webhook; SELECT set_config('sametick.every_org', 'on', true)`)
			if err != nil {
				return err
			}
			_, endpoint, err := a.store.StepReplay(a.t.Context(), tx, event.ShardOf(orgA), events)
			more = endpoint != 0
			return err
		}))
		if !more {
			break
		}
		steps++
	}
	rows, err := a.admin.Query(a.t.Context(), `SELECT event_id || ' ' || trigger FROM sametick.webhook_queue ORDER BY id`)
	require.NoError(a.t, err)
	queued, err = pgx.CollectRows(rows, pgx.RowTo[string])
	require.NoError(a.t, err)
	return queued, steps
}

func (a *api) replay(id int64) *webhooksv1.Replay {
	a.t.Helper()
	list, err := a.client.ListReplays(a.as(orgA), &webhooksv1.ListReplaysRequest{EndpointId: id})
	require.NoError(a.t, err)
	return list.GetData()[0]
}

// What failed for good is sent again, once; what has been delivered since, or waits, is not.
func TestRecover(t *testing.T) {
	a := start(t)
	e := a.create(nil).GetEndpoint().GetId()
	other := a.create(nil).GetEndpoint().GetId()
	a.attempt(e, 103, 0, 10, "failed", "status")
	a.attempt(e, 101, 0, 10, "failed", "status")
	a.attempt(e, 102, 0, 10, "failed", "status")
	a.attempt(e, 102, 0, 1, "delivered", "") // by hand, since
	a.attempt(e, 104, 0, 1, "delivered", "")
	a.attempt(e, 105, 0, 10, "failed", "timeout")
	a.queue(e, 105, 0) // asked for already
	a.attempt(e, 106, 0, 10, "failed", "status")
	a.attempt(e, 106, 0, 10, "failed", "status") // twice
	a.attempt(e, 107, 0, 0, "cancelled", "disabled")
	a.attempt(e, 108, 0, 0, "cancelled", "skipped")
	a.attempt(other, 109, 0, 10, "failed", "status")
	_, err := a.client.RecoverEndpoint(a.as(orgA), &webhooksv1.RecoverEndpointRequest{Id: e})
	require.Equal(t, "REQUIRED", errs.From(err).Fields[0].Reason)
	r, err := a.client.RecoverEndpoint(a.as(orgA), &webhooksv1.RecoverEndpointRequest{Id: e, Since: timestamppb.New(time.Now().Add(-time.Hour))})
	require.NoError(t, err)
	require.Equal(t, []string{"recover", "running"}, []string{r.GetKind(), r.GetStatus()})
	a.attempt(e, 110, 0, 10, "failed", "status") // after it was asked for
	last := a.eventsOf(e)[2]
	require.Equal(t, "webhook_endpoint.replay_requested", last.Type)
	require.EqualValues(t, float64(r.GetId()), last.field(t, "replay_id"))

	queued, steps := a.step(nil)
	require.Equal(t, []string{"105 event", "101 recover", "103 recover", "106 recover", "107 recover"}, queued)
	require.Equal(t, 1, steps)
	r = a.replay(e)
	require.Equal(t, "done", r.GetStatus())
	require.EqualValues(t, 4, r.GetScheduled())
	require.NotNil(t, r.GetFinishedAt())

	_, err = a.client.RecoverEndpoint(a.as(orgA), &webhooksv1.RecoverEndpointRequest{Id: e, Since: timestamppb.New(time.Now().Add(time.Hour))})
	require.NoError(t, err)
	queued, _ = a.step(nil)
	require.Len(t, queued, 5, "nothing failed since then")
}

// makeLog makes n positions of org A's, an hour between them; every third belongs to somebody else.
func (a *api) makeLog(n int) {
	for i := range n {
		if i%3 == 2 {
			continue
		}
		at := time.Date(2026, 1, 1, i, 0, 0, 0, time.UTC).Format(event.TimeLayout)
		a.events = append(a.events, endpoints.Event{Position: int64(i + 1), JSON: fmt.Appendf(nil, `{"id":%d,"occurred_at":%q}`, 1000+i, at)})
	}
}

func TestReplay(t *testing.T) {
	a := start(t)
	a.makeLog(100)
	e := a.create(nil).GetEndpoint().GetId()
	replayer := func(_ context.Context, org, endpoint, after int64, since *time.Time, limit int) (list []store.Replayed, through int64, err error) {
		require.EqualValues(t, []int64{orgA, e}, []int64{org, endpoint})
		page, _, _ := a.Read(context.Background(), org, after, 10)
		through = after
		for _, e := range page {
			through = e.Position
			list = append(list, store.Replayed{EventID: 1000 + e.Position, Position: e.Position, EventType: "task.post_create"})
		}
		return list, through, nil
	}
	for _, bad := range []*webhooksv1.ReplayEndpointRequest{{Id: e}, {Id: e, AfterPosition: proto.Int64(-1)}, {Id: e, AfterPosition: proto.Int64(1), Since: timestamppb.Now()}} {
		_, err := a.client.ReplayEndpoint(a.as(orgA), bad)
		require.Equal(t, errs.Invalid, errs.KindOf(err), bad)
	}
	_, err := a.client.ReplayEndpoint(a.as(orgA), &webhooksv1.ReplayEndpointRequest{Id: e, AfterPosition: proto.Int64(70)})
	require.NoError(t, err)
	a.events = append(a.events, endpoints.Event{Position: 101, JSON: []byte(`{}`)}) // after it was asked for: scheduled in any case
	queued, steps := a.step(replayer)
	require.Len(t, queued, 20)
	require.Equal(t, "1071 replay", queued[0])
	require.Equal(t, "1100 replay", queued[19])
	require.Equal(t, 2, steps, "a batch a step")
	require.EqualValues(t, 20, a.replay(e).GetScheduled())
	require.Equal(t, "done", a.replay(e).GetStatus())

	// From a time: nothing of then is before where it begins, and not much that is older after.
	for hour := range 100 {
		since := time.Date(2026, 1, 1, hour, 0, 0, 0, time.UTC)
		r, err := a.client.ReplayEndpoint(a.as(orgA), &webhooksv1.ReplayEndpointRequest{Id: e, Since: timestamppb.New(since)})
		require.NoError(t, err)
		after := a.count(`SELECT after FROM sametick.webhook_replays WHERE id = $1`, r.GetId())
		require.LessOrEqual(t, after, hour, "position %d is of that hour", hour+1)
		require.GreaterOrEqual(t, after, hour-3)
		r, err = a.client.CancelReplay(a.as(orgA), &webhooksv1.CancelReplayRequest{Id: r.GetId()})
		require.NoError(t, err)
		require.Equal(t, "cancelled", r.GetStatus())
	}
	require.Equal(t, []string{"replay_requested", "replay_cancelled"}, types(a.eventsOf(e))[3:5])
	queued, _ = a.step(replayer)
	require.Len(t, queued, 20, "what is cancelled does no more")

	for range 5 {
		_, err = a.client.ReplayEndpoint(a.as(orgA), &webhooksv1.ReplayEndpointRequest{Id: e, AfterPosition: proto.Int64(0)})
		require.NoError(t, err)
	}
	_, err = a.client.ReplayEndpoint(a.as(orgA), &webhooksv1.ReplayEndpointRequest{Id: e, AfterPosition: proto.Int64(0)})
	require.True(t, errs.HasReason(errs.From(err), "TOO_MANY_REPLAYS"))
	_, err = a.client.DisableEndpoint(a.as(orgA), &webhooksv1.DisableEndpointRequest{Id: e})
	require.NoError(t, err)
	queued, _ = a.step(replayer)
	require.Len(t, queued, 20, "an endpoint that takes nothing ends them")
	require.Equal(t, "cancelled", a.replay(e).GetStatus())
}

func TestTry(t *testing.T) {
	a := start(t)
	e := a.create(nil).GetEndpoint().GetId()
	created := a.count(`SELECT id FROM sametick.events WHERE event_type = 'webhook_endpoint.post_create'`)
	id := int64(created)
	got, err := a.client.TryEndpoint(a.as(orgA), &webhooksv1.TryEndpointRequest{Id: &e, EventId: id})
	require.NoError(t, err)
	require.True(t, got.GetMatches())
	var shown struct {
		Type string
		Data struct{ ID int64 }
	}
	decode(t, got.GetBody().GetText(), &shown)
	require.Equal(t, id, shown.Data.ID)
	require.Equal(t, "webhook_endpoint.post_create", shown.Type)
	got, err = a.client.TryEndpoint(a.as(orgA), &webhooksv1.TryEndpointRequest{EventId: id, Filter: proto.String("event.org_id == 2")})
	require.NoError(t, err)
	require.Equal(t, "filter", got.GetRefusedBy())
	got, err = a.client.TryEndpoint(a.as(orgA), &webhooksv1.TryEndpointRequest{EventId: id, Transform: proto.String(`{"org": event.org_id}`)})
	require.NoError(t, err)
	require.Contains(t, got.GetBody().GetText(), `"data":{"org":1}`)
	_, err = a.client.TryEndpoint(a.as(orgA), &webhooksv1.TryEndpointRequest{EventId: id, Transform: proto.String(`{"none": event.payload.none}`)})
	require.Equal(t, "CEL_FAILED", errs.From(err).Fields[0].Reason)
	got, err = a.client.TryEndpoint(a.as(orgA), &webhooksv1.TryEndpointRequest{EventId: id, EventTypes: []string{"task.*"}})
	require.NoError(t, err)
	require.False(t, got.GetMatches())
	require.Equal(t, "event_types", got.GetRefusedBy())
	for want, req := range map[string]*webhooksv1.TryEndpointRequest{
		"EVENT_NOT_FOUND": {EventId: 1 << 40}, "ENDPOINT_NOT_FOUND": {Id: proto.Int64(1 << 40), EventId: id}} {
		_, err := a.client.TryEndpoint(a.as(orgA), req)
		require.True(t, errs.HasReason(errs.From(err), want), err)
	}
	_, err = a.client.TryEndpoint(a.as(orgB), &webhooksv1.TryEndpointRequest{EventId: id})
	require.True(t, errs.HasReason(errs.From(err), "EVENT_NOT_FOUND"), "another organisation's")
	_, err = a.client.TryEndpoint(a.as(orgA), &webhooksv1.TryEndpointRequest{EventId: id, Filter: proto.String("event.")})
	require.Equal(t, "INVALID_CEL", errs.From(err).Fields[0].Reason)
	require.False(t, slices.Contains(types(a.eventsOf(e)), "test"))
}
