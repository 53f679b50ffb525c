package app_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/metadata"

	"github.com/sametick/sametick/pkg/auth"
	"github.com/sametick/sametick/pkg/event"
	"github.com/sametick/sametick/pkg/rpc"
	"github.com/sametick/sametick/pkg/stream/streamtest"
	streamv1 "github.com/sametick/sametick/proto/gen/go/sametick/stream/v1"
)

// TestSubscribeShowsNoOtherOrganisation asks as each of two organisations of one shard, by every filter
// and position, over gRPC; the first gets nothing of the second, which by the same filters gets its own.
func TestSubscribeShowsNoOtherOrganisation(t *testing.T) {
	s := newSuite(t)
	shard := event.ShardOf(s.org)
	other := streamtest.Orgs(shard, 2)[0]
	if other == s.org {
		other = streamtest.Orgs(shard, 2)[1]
	}
	g := s.start("HEARTBEAT_INTERVAL=100ms")
	for range 3 {
		s.log.Append(other, "secret_type", "stolen", 4242, "zq-secret")
		s.log.Append(s.org, "task", "post_create", 7, "mine")
		s.log.Append(other, "task", "post_create", 7, "zq-secret")
	}
	require.NoError(t, s.pub.Publish(t.Context()))
	head := s.log.Head(shard)
	conn, err := rpc.Dial(g.grpc, rpc.ClientOptions{})
	require.NoError(t, err)
	defer func() { require.NoError(t, conn.Close()) }()
	got := func(org int64, r *streamv1.SubscribeRequest) (orgs []int64) {
		token, _, err := s.signer.Sign(auth.Principal{OrgID: org, Subject: "user:7", Scopes: auth.ScopesOf(auth.EventsRead)}, time.Hour)
		require.NoError(t, err)
		ctx, cancel := context.WithTimeout(metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer "+token), 20*time.Second)
		defer cancel()
		c, err := streamv1.NewStreamServiceClient(conn).Subscribe(ctx, r)
		require.NoError(t, err)
		for {
			m, err := c.Recv()
			require.NoError(t, err)
			if e := m.GetDelivery().GetEvent(); e != nil {
				orgs = append(orgs, e.GetOrgId())
			}
			if m.GetDelivery().GetPosition() >= head || m.GetHeartbeat().GetPosition() >= head {
				return orgs
			}
		}
	}
	last := int64(0)
	for _, r := range []*streamv1.SubscribeRequest{
		{}, {AggregateTypes: []string{"secret_type"}}, {AggregateIds: []int64{4242}}, {EventTypes: []string{"secret_type.stolen"}},
		{EventTypes: []string{"*"}}, {EventTypes: []string{"*.stolen", "task.*"}}, {AggregateTypes: []string{"task"}, AggregateIds: []int64{7}},
	} {
		r.LastPosition = &last
		require.NotContains(t, got(s.org, r), other, "%v", r)
		require.Contains(t, got(other, r), other, "%v", r)
	}
}
