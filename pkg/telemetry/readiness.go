package telemetry

import (
	"context"
	"encoding/json"
	"net/http"
	"sync"
	"time"

	"github.com/sametick/sametick/pkg/errs"
)

// checkTimeout bounds one readiness check: probes give up after a second or a few.
const checkTimeout = 900 * time.Millisecond

// Readiness decides whether this process should get work: after Ready, before Draining, while every
// check passes. Safe for concurrent use.
type Readiness struct {
	mu              sync.Mutex
	names           []string
	checks          []func(context.Context) error
	ready, draining bool
}

// Add adds a check. Its error is shown on the ops port: the public message of an *errs.Error, else
// "internal error" or the like.
func (r *Readiness) Add(name string, check func(context.Context) error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.names, r.checks = append(r.names, name), append(r.checks, check)
}

// Ready says that everything has started.
func (r *Readiness) Ready() { r.mu.Lock(); r.ready = true; r.mu.Unlock() }

// Draining makes the process unready for good.
func (r *Readiness) Draining() { r.mu.Lock(); r.draining = true; r.mu.Unlock() }

// Check is the outcome of one check.
type Check struct {
	Name   string `json:"name"`
	OK     bool   `json:"ok"`
	Reason string `json:"reason,omitempty"`
}

// Status is the body of /readyz.
type Status struct {
	Ready  bool    `json:"ready"`
	Checks []Check `json:"checks"`
}

// Status runs all checks at once; each may take 900 ms.
func (r *Readiness) Status(ctx context.Context) Status {
	r.mu.Lock()
	names, checks, ready, draining := r.names, r.checks, r.ready, r.draining
	r.mu.Unlock()
	s := Status{Ready: ready && !draining, Checks: []Check{{Name: "process", OK: ready && !draining}}}
	switch {
	case draining:
		s.Checks[0].Reason = "draining"
	case !ready:
		s.Checks[0].Reason = "starting"
	}
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	results := make([]Check, len(checks))
	var wg sync.WaitGroup
	for i, check := range checks {
		wg.Go(func() {
			results[i] = Check{Name: names[i], OK: true}
			if err := check(ctx); err != nil {
				results[i].OK, results[i].Reason = false, errs.From(err).Message
			}
		})
	}
	wg.Wait()
	for _, c := range results {
		s.Ready = s.Ready && c.OK
	}
	s.Checks = append(s.Checks, results...)
	return s
}

// ServeHTTP answers 200 or 503 with a Status.
func (r *Readiness) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	s := r.Status(req.Context())
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	if !s.Ready {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	_ = json.NewEncoder(w).Encode(s) // a prober that is gone needs no answer
}
