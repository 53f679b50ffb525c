package app

import (
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sametick/sametick/pkg/stream"
	"github.com/sametick/sametick/services/prompt-worker/internal/feed"
	"github.com/sametick/sametick/services/prompt-worker/internal/hooks"
	"github.com/sametick/sametick/services/prompt-worker/internal/review"
	"github.com/sametick/sametick/services/prompt-worker/internal/runs"
)

// metrics are what Prometheus sees.
type metrics struct {
	runs       runs.Stats
	feed       feed.Stats
	ended      *prometheus.CounterVec
	verdicts   *prometheus.CounterVec
	attempts   *prometheus.CounterVec
	latency    *prometheus.HistogramVec
	tokens     *prometheus.CounterVec
	cost       *prometheus.CounterVec
	failedOpen prometheus.Counter
	skipped    prometheus.Counter
}

func newMetrics(reg *prometheus.Registry) *metrics {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		c := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "sametick_prompt_" + name, Help: help}, labels)
		reg.MustRegister(c)
		return c
	}
	m := &metrics{
		ended:    counter("runs_total", "Runs that have ended, by mode, status and cause.", "mode", "status", "cause"),
		verdicts: counter("verdicts_total", "What review hooks have said: approve, reject, failed, superseded.", "verdict"),
		attempts: counter("attempts_total", "Attempts of async runs: ended, retrying or unknown.", "outcome"),
		tokens:   counter("tokens_total", "Tokens of models: input, cached, output.", "kind"),
		cost:     counter("cost_total", "Cost of models, in millionths.", "mode"),
		latency: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "sametick_prompt_run_seconds", Help: "Time of a review hook or of an attempt of an async run.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 300}}, []string{"mode"}),
		failedOpen: prometheus.NewCounter(prometheus.CounterOpts{Name: "sametick_prompt_failed_open_total", Help: "Failures of review hooks that let a write pass."}),
		skipped:    prometheus.NewCounter(prometheus.CounterOpts{Name: "sametick_prompt_trimmed_total", Help: "Stretches of events that retention dropped unread. It should be 0."}),
	}
	reg.MustRegister(m.latency, m.failedOpen, m.skipped)
	for name, v := range map[string]*atomic.Int64{"scheduled": &m.feed.Scheduled, "loops": &m.feed.Loops, "too_deep": &m.feed.Deep, "late": &m.runs.Late} {
		m.total(reg, name, v)
	}
	for name, v := range map[string]*atomic.Int64{"in_hand": &m.runs.Flying, "hooks_waiting": &m.runs.Lanes, "shards": &m.runs.Shards} {
		reg.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "sametick_prompt_" + name, Help: "Of this replica: " + name + "."},
			func() float64 { return float64(v.Load()) }))
	}
	return m
}

func (m *metrics) total(reg *prometheus.Registry, name string, v *atomic.Int64) {
	reg.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{Name: "sametick_prompt_" + name + "_total", Help: "Async runs: " + name + "."},
		func() float64 { return float64(v.Load()) }))
}

func (m *metrics) dropped(reg *prometheus.Registry, v *atomic.Int64) {
	reg.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{Name: "sametick_prompt_dropped_runs_total",
		Help: "Runs of reviews that were not kept; their verdicts stand in the events."}, func() float64 { return float64(v.Load()) }))
}

// trimmed counts what retention dropped unread.
func (m *metrics) trimmed(*stream.TrimmedError) { m.skipped.Inc() }

// finished is runs.Config's Observe.
func (m *metrics) finished(o *runs.Outcome) {
	outcome := "ended"
	switch {
	case o.Unknown:
		outcome = "unknown"
	case !o.RetryAt.IsZero():
		outcome = "retrying"
	}
	m.attempts.WithLabelValues(outcome).Inc()
	if o.RetryAt.IsZero() {
		m.ended.WithLabelValues(hooks.ModeAsync, o.Run.Status, o.Run.Cause).Inc()
	}
	m.spent(o.Run)
}

// reviewed is reviewing.Recorder's Observe.
func (m *metrics) reviewed(in *review.Run, out *runs.Run) {
	m.ended.WithLabelValues(hooks.ModeReview, out.Status, out.Cause).Inc()
	m.verdicts.WithLabelValues(in.Verdict.Verdict).Inc()
	if in.Verdict.FailedOpen {
		m.failedOpen.Inc()
	}
	m.spent(out)
}

func (m *metrics) spent(r *runs.Run) {
	m.latency.WithLabelValues(r.Mode).Observe(r.Latency.Seconds())
	m.tokens.WithLabelValues("input").Add(float64(r.Usage.Input))
	m.tokens.WithLabelValues("cached").Add(float64(r.Usage.Cached))
	m.tokens.WithLabelValues("output").Add(float64(r.Usage.Output))
	m.cost.WithLabelValues(r.Mode).Add(float64(r.Cost))
}
