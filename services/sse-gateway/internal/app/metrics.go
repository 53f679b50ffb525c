package app

import (
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sametick/sametick/services/sse-gateway/internal/resume"
)

// newMetrics shows what the streams count.
func newMetrics(reg prometheus.Registerer, s *resume.Streams) {
	counter := func(name, help string, labels prometheus.Labels, v *atomic.Int64) {
		reg.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{Name: "sametick_sse_" + name, Help: help, ConstLabels: labels},
			func() float64 { return float64(v.Load()) }))
	}
	gauge := func(name, help string, v func() int64) {
		reg.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "sametick_sse_" + name, Help: help},
			func() float64 { return float64(v()) }))
	}
	gauge("connections", "Open streams, of both transports.", s.Stats.Open.Load)
	gauge("ring_bytes", "Bytes of all organisations' rings.", s.Hub.RingBytes)
	counter("delivered_total", "Events written to clients.", nil, &s.Stats.Delivered)
	counter("dropped_slow_total", "Streams ended because the client read too slowly.", nil, &s.Stats.Slow)
	counter("resets_total", "Resumes that could not be continued without a gap.", nil, &s.Stats.Resets)
	const resumes = "Resumes served, by source; one may need several."
	counter("resumes_total", resumes, prometheus.Labels{"source": "ring"}, &s.Stats.Ring)
	counter("resumes_total", resumes, prometheus.Labels{"source": "redis"}, &s.Stats.Redis)
	counter("resumes_total", resumes, prometheus.Labels{"source": "log"}, &s.Stats.Log)
}
