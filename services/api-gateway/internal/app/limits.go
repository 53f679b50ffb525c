package app

import (
	"context"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sametick/sametick/pkg/lifecycle"
	"github.com/sametick/sametick/pkg/ratelimit"
	"github.com/sametick/sametick/pkg/redisconn"
	"github.com/sametick/sametick/services/api-gateway/internal/grpcapi"
)

// limits are the budgets of calls, which all replicas share in Redis. Calls pass while Redis does not answer:
// a lost limit harms less than a lost API. The loop connects, for the process starts without Redis.
type limits struct {
	*lifecycle.Loop
	leases      atomic.Pointer[ratelimit.Leases] // nil until Redis has answered
	org, caller ratelimit.Limit
	refused     *prometheus.CounterVec
	unknown     prometheus.Counter
}

// Whose a budget is, as clients and metrics read it.
const ofOrg, ofCaller = "organization", "caller"

func newLimits(c *Config, registry *prometheus.Registry, log *slog.Logger) *limits {
	perSecond := func(rate int) ratelimit.Limit {
		return ratelimit.Limit{Rate: rate, Period: time.Second, Burst: 2 * rate}
	}
	l := &limits{org: perSecond(c.RateLimitOrg), caller: perSecond(c.RateLimitCaller),
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "sametick_api_rate_limited_total",
			Help: "Calls refused because a budget was used up, by whose."}, []string{"of"}),
		unknown: prometheus.NewCounter(prometheus.CounterOpts{Name: "sametick_api_rate_limit_unknown_total",
			Help: "Calls that passed uncounted because Redis did not answer."}),
	}
	registry.MustRegister(l.refused, l.unknown)
	l.Loop = lifecycle.NewLoop("rate limits", func(take, work context.Context) error {
		client, err := redisconn.Open(take, c.RedisURL.Reveal(), redisconn.Options{Name: service, Log: log})
		if take.Err() != nil {
			err = nil // stopped before Redis answered
		}
		if client == nil {
			return err
		}
		defer client.Close()
		l.leases.Store(ratelimit.NewLeases(ratelimit.New(client, ratelimit.Options{Timeout: c.RateLimitTimeout}), time.Now))
		<-take.Done()
		return err
	})
	return l
}

// Take implements grpcapi.Limits.
func (l *limits) Take(ctx context.Context, orgID int64, caller string) *grpcapi.Budget {
	leases := l.leases.Load()
	if leases == nil {
		l.unknown.Inc()
		return nil
	}
	org := fmt.Sprintf("sametick:calls:{%d}", orgID)
	got, err := leases.Allow(ctx, ratelimit.Budget{Key: org, Limit: l.org}, ratelimit.Budget{Key: org + ":" + caller, Limit: l.caller})
	if err != nil {
		l.unknown.Inc()
		return nil
	}
	b := &grpcapi.Budget{Of: ofCaller, Allowed: got.Allowed, Limit: got.Budget.Burst, Remaining: got.Remaining, Retry: got.RetryAfter, Reset: got.ResetAfter}
	if got.Budget.Key == org {
		b.Of = ofOrg
	}
	if !got.Allowed {
		l.refused.WithLabelValues(b.Of).Inc()
	}
	return b
}
