package delivery

import "time"

// Outcomes of an attempt, and so of its delivery: all but Retrying are final.
const (
	Delivered = "delivered"
	Retrying  = "retrying"
	Failed    = "failed"
	Cancelled = "cancelled"
)

// Outcome is what came of an attempt, as history keeps it.
type Outcome struct {
	// Delivery is as it was before the attempt.
	Delivery Delivery
	Result   Result
	// Kind is Delivered, Retrying, Failed or Cancelled.
	Kind string
	// Attempt is its number from 1; 0 when no request was made.
	Attempt int
	// Next is when the next attempt is due; zero unless Retrying.
	Next time.Time
}

// retries are the waits after the first, second, … failed attempt. After the tenth the delivery has failed.
var retries = [...]time.Duration{
	5 * time.Second, 5 * time.Minute, 30 * time.Minute, 2 * time.Hour, 5 * time.Hour,
	10 * time.Hour, 14 * time.Hour, 20 * time.Hour, 24 * time.Hour,
}

const (
	// jitter spreads what failed together: a wait is up to so much shorter or longer.
	jitter = 0.1
	// maxRetryAfter bounds what a receiver may ask for.
	maxRetryAfter = 24 * time.Hour
	// disableAfter is how long an endpoint may fail without a success in between.
	disableAfter = 5 * 24 * time.Hour
)

// Decide tells what follows from an attempt at d, when closed is the endpoint's Endpoint.Closed and spread, in [0, 1),
// draws the jitter.
func Decide(d *Delivery, r *Result, closed string, now time.Time, spread float64) Outcome {
	o := Outcome{Delivery: *d, Result: *r, Attempt: d.Attempts + 1}
	switch {
	case r.Cause == "":
		o.Kind = Delivered
	case !requested(r.Cause):
		o.Kind, o.Attempt = Failed, 0
	case r.Cause == CauseGone, d.Attempts >= len(retries):
		o.Kind = Failed
	case closed != "":
		o.Kind = Cancelled
	default:
		o.Kind, o.Next = Retrying, now.Add(wait(d.Attempts, r.RetryAfter, spread))
	}
	return o
}

// wait is how long after failed attempt number made+1 the next is due: what the receiver asked for, but never sooner
// than the schedule has it.
func wait(made int, retryAfter time.Duration, spread float64) time.Duration {
	own := time.Duration(float64(retries[made]) * (1 - jitter + 2*jitter*spread))
	return max(own, min(retryAfter, maxRetryAfter))
}

// requested tells whether an attempt with this cause reached for the receiver.
func requested(cause string) bool {
	switch cause {
	case CauseEventGone, CauseFilter, CauseTransform, CauseSkipped, CauseArchived, CauseDisabled:
		return false
	}
	return true
}

// blames tells whether a cause is the receiver's: what counts towards its breaker and its end.
func blames(cause string) bool {
	return cause != "" && cause != CauseProxy && cause != CauseConfig && requested(cause)
}

// Change is what attempts change of their endpoint.
type Change struct {
	OrgID, EndpointID int64
	// FailingSince is zero when the newest attempt has not failed.
	FailingSince time.Time
	// Disable is Gone or Failing when it is to be disabled; empty to leave it.
	Disable string
}

// health is how an endpoint has been doing.
type health struct{ failingSince time.Time }

// note takes an attempt in, and tells whether the endpoint changes by it: it begins or ceases to fail, or has to be
// disabled, with the reason.
func (h *health) note(r *Result, now time.Time) (changed bool, disable string) {
	switch {
	case r.Cause == "":
		changed = !h.failingSince.IsZero()
		h.failingSince = time.Time{}
	case !blames(r.Cause):
	case h.failingSince.IsZero():
		changed, h.failingSince = true, now
	}
	switch {
	case r.Cause == CauseGone:
		return true, Gone
	case blames(r.Cause) && now.Sub(h.failingSince) >= disableAfter:
		return true, Failing
	}
	return changed, ""
}
