package redis_test

import (
	"context"
	"testing"

	"github.com/redis/rueidis"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/sametick/sametick/pkg/errs"
	"github.com/sametick/sametick/pkg/redisconn"
	"github.com/sametick/sametick/pkg/redistest"
	"github.com/sametick/sametick/services/outbox-relay/internal/redis"
)

// A closed cluster client's last look at its nodes sleeps out its second.
func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("github.com/redis/rueidis.(*call).DelayDo.func1"))
}

// A cluster is refused with an error that says so; a single server, and one that is away, are not.
func TestAClusterIsRefused(t *testing.T) {
	for _, c := range []struct {
		what   string
		args   []string
		killed bool
		reason bool
	}{
		{what: "single"},
		{what: "away", killed: true},
		{what: "cluster", args: []string{"--cluster-enabled", "yes"}, reason: true},
	} {
		t.Run(c.what, func(t *testing.T) {
			red := redistest.New(t, c.args...)
			if c.killed {
				require.NoError(t, red.Kill())
			}
			s := redis.New(func(ctx context.Context) (rueidis.Client, error) {
				return redisconn.Open(ctx, red.URL, redisconn.Options{})
			}, false)
			defer s.Close()
			err := s.Check(t.Context())
			require.Equal(t, c.reason, errs.HasReason(err, redis.ReasonCluster), "%v", err)
			if c.reason {
				_, err = s.Add(t.Context(), nil)
				require.True(t, errs.HasReason(err, redis.ReasonCluster), "later calls are refused, too: %v", err)
			}
		})
	}
}
