package grpcapi_test

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/dynamicpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/sametick/sametick/pkg/auth"
	"github.com/sametick/sametick/pkg/errs"
	"github.com/sametick/sametick/pkg/idempotency"
	"github.com/sametick/sametick/pkg/rpc"
	webhooksv1 "github.com/sametick/sametick/proto/gen/go/sametick/webhooks/v1"
)

// closedToPortals are the methods that no portal link is for.
func closedToPortals() []string {
	return []string{"CreatePortalLink", "TryEndpoint", "ReplayEndpoint", "CancelReplay", "ExportEndpoints"}
}

func TestCreatePortalLink(t *testing.T) {
	a := start(t)
	one, two := a.create(nil).GetEndpoint().GetId(), a.create(nil).GetEndpoint().GetId()
	for name, c := range map[string]struct {
		ctx  context.Context
		req  *webhooksv1.CreatePortalLinkRequest
		want time.Duration
		ids  string
	}{
		"an hour":  {a.as(orgA), &webhooksv1.CreatePortalLinkRequest{}, time.Hour, "[]"},
		"a day":    {a.as(orgA), &webhooksv1.CreatePortalLinkRequest{Ttl: proto.Int64(86400), EndpointIds: []int64{two, one}}, 24 * time.Hour, fmt.Sprintf("[%d,%d]", two, one)},
		"a minute": {a.as(orgA), &webhooksv1.CreatePortalLinkRequest{Ttl: proto.Int64(60)}, time.Minute, "[]"},
		"its maker's end": {rpc.WithCaller(t.Context(), rpc.Caller{OrgID: orgA, Subject: "api_key:5", Scopes: auth.WebhooksManage, ExpiresAt: in(10 * time.Minute)}),
			&webhooksv1.CreatePortalLinkRequest{}, 10 * time.Minute, "[]"},
		"before its maker's end": {rpc.WithCaller(t.Context(), rpc.Caller{OrgID: orgA, Subject: "api_key:5", Scopes: auth.WebhooksManage, ExpiresAt: in(3 * time.Hour)}),
			&webhooksv1.CreatePortalLinkRequest{}, time.Hour, "[]"},
	} {
		link, err := a.client.CreatePortalLink(c.ctx, c.req)
		require.NoError(t, err, name)
		require.WithinDuration(t, time.Now().Add(c.want), link.GetExpiresAt().AsTime(), 20*time.Second, name)
		require.Zero(t, link.GetExpiresAt().GetNanos(), "tokens end at whole seconds")
		require.Empty(t, link.GetUrl())
		var id int64
		var payload string
		require.NoError(t, a.admin.QueryRow(t.Context(), `SELECT aggregate_id, payload::text FROM sametick.events WHERE event_type = 'webhook_portal.post_create' ORDER BY id DESC LIMIT 1`).Scan(&id, &payload))
		e := recorded{Payload: payload}
		require.Equal(t, link.GetExpiresAt().AsTime().Format("2006-01-02T15:04:05.000Z"), e.field(t, "expires_at"))
		ids, err := json.Marshal(e.field(t, "endpoint_ids"))
		require.NoError(t, err)
		require.Equal(t, c.ids, string(ids))
		require.Equal(t, 1, a.count(`SELECT count(*) FROM sametick.audit_entries WHERE aggregate_type = 'webhook_portal' AND aggregate_id = $1 AND action = 'create' AND outcome = 'applied'`, id))
	}
	before := a.count(`SELECT count(*) FROM sametick.events`)
	for want, req := range map[string]*webhooksv1.CreatePortalLinkRequest{
		"ttl OUT_OF_RANGE":  {Ttl: proto.Int64(59)},
		"ttl OUT_OF_RANGE ": {Ttl: proto.Int64(86401)},
		"endpoint_ids TOO_MANY": {EndpointIds: slices.Collect(func(yield func(int64) bool) {
			for i := range int64(51) {
				if !yield(i + 1) {
					return
				}
			}
		})},
		"endpoint_ids[1] DUPLICATE":    {EndpointIds: []int64{one, one}},
		"endpoint_ids[0] OUT_OF_RANGE": {EndpointIds: []int64{0}},
	} {
		_, err := a.client.CreatePortalLink(a.as(orgA), req)
		e := errs.From(err)
		require.Len(t, e.Fields, 1, want)
		require.Contains(t, want, e.Fields[0].Field+" "+e.Fields[0].Reason)
	}
	_, err := a.client.CreatePortalLink(a.as(orgB), &webhooksv1.CreatePortalLinkRequest{EndpointIds: []int64{one}})
	require.True(t, errs.HasReason(errs.From(err), "ENDPOINT_NOT_FOUND"))
	require.Equal(t, before, a.count(`SELECT count(*) FROM sametick.events`))
}

func in(d time.Duration) *time.Time {
	at := time.Now().Add(d)
	return &at
}

// A portal link for some endpoints finds no others, by any id in any method, and changes nothing of them; its own it does.
// Which methods are for links is asked of every method there is.
func TestPortalLimits(t *testing.T) {
	a := start(t)
	a.exec(`ALTER SEQUENCE sametick.webhook_ids RESTART WITH 5000`) // no delivery has the id of an endpoint
	own := a.create(nil).GetEndpoint().GetId()
	ids := plant(a)
	other := ids["endpoint_id"][0]
	before := a.digest(orgA)
	require.Empty(t, differences(a, a.byPortal(own), ids))
	require.Equal(t, before, a.digest(orgA))

	shown := func(ctx context.Context) (out []int64) {
		list, err := a.client.ListEndpoints(ctx, &webhooksv1.ListEndpointsRequest{IncludeArchived: true})
		require.NoError(t, err)
		require.EqualValues(t, len(list.GetData()), list.GetTotal())
		for _, e := range list.GetData() {
			out = append(out, e.GetId())
		}
		return out
	}
	require.Equal(t, []int64{own}, shown(a.byPortal(own)))
	require.Equal(t, []int64{other, own}, shown(a.byPortal(own, other)))
	require.Equal(t, []int64{other, own}, shown(a.byPortal()))

	methods := webhooksv1.File_sametick_webhooks_v1_webhooks_proto.Services().ByName("WebhookService").Methods()
	refused := func(ctx context.Context) (list []string) {
		for i := range methods.Len() {
			m := methods.Get(i)
			err := a.conn.Invoke(ctx, fmt.Sprintf("/%s/%s", m.Parent().FullName(), m.Name()), dynamicpb.NewMessage(m.Input()), dynamicpb.NewMessage(m.Output()))
			if errs.KindOf(err) == errs.PermissionDenied {
				list = append(list, string(m.Name()))
			}
		}
		return list
	}
	require.ElementsMatch(t, closedToPortals(), refused(a.byPortal()))
	require.Empty(t, refused(a.as(orgA)), "the control")
	// A limited link's faults are told first; nothing of a valid request comes of it either.
	require.ElementsMatch(t, closedToPortals(), refused(a.byPortal(own)))
	_, err := a.client.CreateEndpoint(a.byPortal(own), &webhooksv1.CreateEndpointRequest{Url: "https://receiver.example"})
	require.True(t, errs.HasReason(errs.From(err), "PORTAL_LIMITED"))
	_, err = a.client.CreateEndpoint(a.byPortal(), &webhooksv1.CreateEndpointRequest{Url: "https://receiver.example"})
	require.NoError(t, err)

	// The control: what has ids and is for links notices them, when the link is for them.
	found := differences(a, a.byPortal(other), ids)
	for i := range methods.Len() {
		m := methods.Get(i)
		withID := m.Input().Fields().ByName("id") != nil || m.Input().Fields().ByName("endpoint_id") != nil
		open := !slices.Contains(closedToPortals(), string(m.Name()))
		require.Equal(t, withID && open, found[string(m.Name())], "%s of one's own", m.Name())
	}
}

// Deliveries of an event are those of all endpoints, so a limited link must say of which.
func TestPortalLists(t *testing.T) {
	a := start(t)
	own := a.create(nil).GetEndpoint().GetId()
	ids := plant(a)
	event := ids["event_id"][0]
	_, err := a.client.ListDeliveries(a.byPortal(own), &webhooksv1.ListDeliveriesRequest{EventId: &event})
	require.Equal(t, "endpoint_id", errs.From(err).Fields[0].Field)
	_, err = a.client.ListAttempts(a.byPortal(own), &webhooksv1.ListAttemptsRequest{EventId: &event})
	require.Equal(t, "endpoint_id", errs.From(err).Fields[0].Field)
	list, err := a.client.ListAttempts(a.byPortal(own), &webhooksv1.ListAttemptsRequest{EndpointId: &own, DeliveryId: &ids["delivery_id"][1]})
	require.NoError(t, err)
	require.Empty(t, list.GetData(), "both must be met")
	list, err = a.client.ListAttempts(a.byPortal(ids["endpoint_id"][0]), &webhooksv1.ListAttemptsRequest{DeliveryId: &ids["delivery_id"][1]})
	require.NoError(t, err)
	require.Len(t, list.GetData(), 1, "the control")
	_, err = a.client.RecoverEndpoint(a.byPortal(own), &webhooksv1.RecoverEndpointRequest{Id: own, Since: timestamppb.Now()})
	require.NoError(t, err)
}

// An Idempotency-Key of a link's is not its maker's: else it would be given the secret that the maker was.
func TestPortalKeys(t *testing.T) {
	a := start(t)
	req := &webhooksv1.CreateEndpointRequest{Url: "https://receiver.example"}
	made, err := a.client.CreateEndpoint(a.keyed("k"), req)
	require.NoError(t, err)
	again, err := a.client.CreateEndpoint(a.keyed("k"), req)
	require.NoError(t, err)
	require.Equal(t, made.GetSecret(), again.GetSecret(), "the control")
	other, err := a.client.CreateEndpoint(metadata.AppendToOutgoingContext(a.byPortal(), idempotency.Key, "k"), req)
	require.NoError(t, err)
	require.NotEqual(t, made.GetSecret(), other.GetSecret())
}
