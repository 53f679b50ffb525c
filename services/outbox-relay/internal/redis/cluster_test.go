package redis_test

import (
	"context"
	"testing"

	"github.com/redis/rueidis"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/sametick/sametick/pkg/devstack"
	"github.com/sametick/sametick/pkg/errs"
	"github.com/sametick/sametick/pkg/redisconn"
	"github.com/sametick/sametick/services/outbox-relay/internal/redis"
)

// A closed cluster client's last look at its nodes sleeps out its second.
func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("github.com/redis/rueidis.(*call).DelayDo.func1"))
}

// start tries several ports: a cluster also takes the one 10,000 above, which may be taken.
func start(t *testing.T, args ...string) *devstack.Redis {
	var err error
	for range 5 {
		var r *devstack.Redis
		if r, err = devstack.StartRedis(t.Context(), devstack.RedisOptions{Dir: t.TempDir(), Args: args}); err == nil {
			t.Cleanup(func() { require.NoError(t, r.Stop()) })
			return r
		}
	}
	require.NoError(t, err)
	return nil
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
			red := start(t, c.args...)
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
