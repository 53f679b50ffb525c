package app

import "github.com/prometheus/client_golang/prometheus"

// reviewStats implements review.Stats.
type reviewStats struct {
	reviewed *prometheus.CounterVec
	open     prometheus.Counter
}

func newReviewStats(r *prometheus.Registry) *reviewStats {
	s := &reviewStats{
		reviewed: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "sametick_reviewed_writes_total",
			Help: "Writes that hooks have judged, by outcome: approved, rejected, unavailable."}, []string{"outcome"}),
		open: prometheus.NewCounter(prometheus.CounterOpts{Name: "sametick_review_failed_open_total",
			Help: "Hooks that failed and, by their policy, let a write pass."}),
	}
	r.MustRegister(s.reviewed, s.open)
	return s
}

// Reviewed implements review.Stats.
func (s *reviewStats) Reviewed(outcome string) { s.reviewed.WithLabelValues(outcome).Inc() }

// FailedOpen implements review.Stats.
func (s *reviewStats) FailedOpen() { s.open.Inc() }
