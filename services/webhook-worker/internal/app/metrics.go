package app

import (
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sametick/sametick/pkg/stream"
	"github.com/sametick/sametick/pkg/telemetry"
	"github.com/sametick/sametick/services/webhook-worker/internal/delivery"
)

// metrics are the service's own. It implements httpsend.Stats.
type metrics struct {
	registry *prometheus.Registry
	engine   delivery.Stats

	attempts *prometheus.CounterVec
	seconds  prometheus.Histogram
	// delivered, fresh and reused are looked up once: they count at every delivery.
	delivered, fresh, reused prometheus.Counter
	deliveries               prometheus.Counter
	faults                   prometheus.Counter
	trimmed                  prometheus.Counter
	// backlog and lag are of all replicas together, oldest in Unix milliseconds.
	backlog, oldest, lag atomic.Int64
}

const prefix = "sametick_webhooks_"

func newMetrics() *metrics {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: prefix + name, Help: help})
	}
	m := &metrics{
		registry: telemetry.NewRegistry(),
		attempts: prometheus.NewCounterVec(prometheus.CounterOpts{Name: prefix + "attempts_total", Help: "Attempts, by what came of them and why."},
			[]string{"outcome", "cause"}),
		seconds: prometheus.NewHistogram(prometheus.HistogramOpts{Name: prefix + "attempt_seconds", Help: "Time of an attempt, whole.",
			Buckets: []float64{.002, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 15}}),
		deliveries: counter("scheduled_total", "Deliveries scheduled by events."),
		faults:     counter("filter_faults_total", "Deliveries that failed because a filter could not tell."),
		trimmed:    counter("trimmed_total", "Stretches of events that retention dropped before they were scheduled: should stay 0."),
	}
	connections := prometheus.NewCounterVec(prometheus.CounterOpts{Name: prefix + "connections_total", Help: "Connections that attempts went over, by whether they were there already."},
		[]string{"reused"})
	m.delivered, m.fresh, m.reused = m.attempts.WithLabelValues(delivery.Delivered, ""), connections.WithLabelValues("false"), connections.WithLabelValues("true")
	m.registry.MustRegister(m.attempts, m.seconds, connections, m.deliveries, m.faults, m.trimmed)
	gauge := func(name, help string, v *atomic.Int64) {
		m.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: prefix + name, Help: help}, func() float64 { return float64(v.Load()) }))
	}
	gauge("in_flight", "Attempts under way.", &m.engine.Flying)
	gauge("unsaved", "Attempts that have ended and are not persisted.", &m.engine.Unsaved)
	gauge("waiting_in_memory", "Deliveries in memory that wait.", &m.engine.Waiting)
	gauge("event_memory_bytes", "Events in memory.", &m.engine.Bytes)
	gauge("endpoints_in_memory", "Endpoints that something has happened at lately.", &m.engine.Endpoints)
	gauge("breakers_open", "Endpoints whose breaker is open.", &m.engine.Broken)
	gauge("shards", "Shards held by this replica.", &m.engine.Shards)
	gauge("backlog", "Deliveries that wait, of all replicas.", &m.backlog)
	gauge("lag_events", "Events that are not scheduled yet, of all replicas.", &m.lag)
	m.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: prefix + "oldest_seconds", Help: "Age of the oldest delivery that waits, of all replicas."},
		func() float64 {
			if m.oldest.Load() == 0 {
				return 0
			}
			return time.Since(time.UnixMilli(m.oldest.Load())).Seconds()
		}))
	return m
}

func (m *metrics) observe(o *delivery.Outcome) {
	if o.Kind == delivery.Delivered && o.Result.Cause == "" {
		m.delivered.Inc()
	} else {
		m.attempts.WithLabelValues(o.Kind, o.Result.Cause).Inc()
	}
	m.seconds.Observe(o.Result.Latency.Seconds())
}

func (m *metrics) scheduled(deliveries, faults int) {
	m.deliveries.Add(float64(deliveries))
	m.faults.Add(float64(faults))
}

func (m *metrics) lost(*stream.TrimmedError) { m.trimmed.Inc() }

// Connection counts a connection.
func (m *metrics) Connection(reused bool) {
	if reused {
		m.reused.Inc()
	} else {
		m.fresh.Inc()
	}
}

// Attempted does nothing: observe counts attempts.
func (*metrics) Attempted(string, time.Duration) {}
