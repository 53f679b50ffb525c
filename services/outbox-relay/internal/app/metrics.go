package app

import (
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sametick/sametick/services/outbox-relay/internal/lead"
	"github.com/sametick/sametick/services/outbox-relay/internal/publish"
	"github.com/sametick/sametick/services/outbox-relay/internal/store"
)

// newMetrics shows the counters of both loops.
func newMetrics(reg prometheus.Registerer) (*lead.Stats, *publish.Stats) {
	polls := prometheus.NewHistogram(prometheus.HistogramOpts{
		Name: "sametick_relay_poll_seconds", Help: "Time of a poll.",
		Buckets: []float64{.0002, .0005, .001, .002, .005, .01, .02, .05, .1, .5, 2, 10},
	})
	l := &lead.Stats{Poll: func(d time.Duration) { polls.Observe(d.Seconds()) }}
	p := &publish.Stats{}
	reg.MustRegister(polls)
	counter := func(name, help string, v *atomic.Int64) {
		reg.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{Name: "sametick_relay_" + name, Help: help},
			func() float64 { return float64(v.Load()) }))
	}
	gauge := func(name, help string, v func() int64) {
		reg.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "sametick_relay_" + name, Help: help},
			func() float64 { return float64(v()) }))
	}
	counter("batches_total", "Batches claimed.", &l.Batches)
	counter("events_total", "Events given a position.", &l.Events)
	counter("claims_lost_total", "Claims that another relay won.", &l.ClaimsLost)
	counter("jumps_total", "Jumps past streams that were ahead of Postgres.", &l.Jumps)
	counter("restarts_total", "Sequencing sessions that ended by an error.", &l.Restarts)
	counter("published_total", "Events published as they came.", &p.Added)
	counter("refilled_total", "Events published from the position log.", &p.Refilled)
	counter("rebuilds_total", "Streams deleted and filled anew.", &p.Rebuilt)
	counter("compares_total", "Comparisons of the streams with the log.", &p.Compared)
	counter("dropped_batches_total", "Batches left to be read back from the log, as publishing was behind.", &p.Dropped)
	counter("publish_errors_total", "Failed attempts to publish.", &p.Errors)
	gauge("leading", "1 while this replica is the active relay.", l.Leading.Load)
	gauge("publish_lag_events", "Events that have a position and are not published yet; of the active relay.", func() int64 {
		if l.Leading.Load() == 0 {
			return 0
		}
		return max(0, l.Claimed.Load()-p.Through.Load())
	})
	return l, p
}

// newSealMetrics shows how the audit log is sealed; all 0 on a relay that has not led yet.
func newSealMetrics(reg prometheus.Registerer) *store.SealStats {
	s := &store.SealStats{}
	reg.MustRegister(
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "sametick_relay_audit_sealed_entries", Help: "Audit entries that are sealed."},
			func() float64 { return float64(s.Size.Load()) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "sametick_relay_audit_unsealed_seconds",
			Help: "Since when audit entries may be unsealed: the age of the last time that nothing was left to seal."},
			func() float64 {
				if s.CaughtUp.Load() == 0 {
					return 0
				}
				return time.Since(time.UnixMilli(s.CaughtUp.Load())).Seconds()
			}),
		prometheus.NewCounterFunc(prometheus.CounterOpts{Name: "sametick_relay_audit_heads_total", Help: "Heads signed."},
			func() float64 { return float64(s.Seals.Load()) }),
		prometheus.NewCounterFunc(prometheus.CounterOpts{Name: "sametick_relay_audit_heads_lost_total", Help: "Heads that another relay signed first."},
			func() float64 { return float64(s.Lost.Load()) }),
	)
	return s
}
