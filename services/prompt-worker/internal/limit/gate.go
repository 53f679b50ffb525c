package limit

import (
	"time"

	"github.com/sametick/sametick/services/prompt-worker/internal/prompting"
)

const (
	// halve is the answer to a 429 or an overload, ease to a call that was much slower than usual.
	halve, ease = 0.5, 0.9
	// slow is how many times the usual latency is a sign of overload, usual its memory, in calls, and known how many
	// must have been seen.
	slow, usual, known = 3, 32, 20
	// heed is how long a server's Retry-After is believed: some name days.
	heed = 10 * time.Minute
)

// gate is one key's state. The Limiter's lock guards it.
type gate struct {
	options Options
	most    int
	// limit of calls at once: additive increase, multiplicative decrease (Chiu and Jain, 1989).
	limit    float64
	inFlight int
	async    int
	waiting  *queue
	// decreased: a call that began before says nothing new about the limit.
	decreased time.Time
	// latency is the moving mean of answered calls, in seconds, of samples ones.
	latency float64
	samples int

	// failures in a row; the gate is shut until shut for why, then lets one probe through.
	failures int
	shut     time.Time
	why      *prompting.ModelError
	open     time.Duration
	probing  bool
	// probed is when the last probe began: one that hangs keeps the gate shut for OpenMax, not for its own time.
	probed time.Time
}

func (g *gate) idle() bool { return g.inFlight == 0 && g.waiting.len() == 0 && g.why == nil }

// refused is why nobody may ask now; nil when somebody may. While one probes, the others are told what the last failure
// was: were they to wait, a provider that hangs would hold them all.
func (g *gate) refused(now time.Time) error {
	if !g.closed(now) {
		return nil
	}
	return &prompting.ModelError{Cause: g.why.Cause, Text: "not asked, since the last call failed: " + g.why.Text, RetryAfter: max(g.shut.Sub(now), g.options.Open)}
}

// closed: nobody may go, because it is not time for a probe or one is under way.
func (g *gate) closed(now time.Time) bool {
	return g.why != nil && (now.Before(g.shut) || g.probing && now.Before(g.probed.Add(g.options.OpenMax)))
}

// dispatch gives turns to who waits, as many as there may be.
func (g *gate) dispatch(now time.Time) {
	for !g.closed(now) {
		w := g.waiting.pop(g.free(Review), g.free(Async))
		if w == nil {
			return
		}
		g.inFlight++
		if w.class == Async {
			g.async++
		}
		if g.why != nil {
			g.probing, g.probed = true, now
		}
		w.turn = &Turn{limiter: w.limiter, gate: g, began: now, class: w.class, probe: g.why != nil, beside: g.inFlight}
		close(w.ready)
	}
}

// free tells whether a call of a class may begin. A probe is let through beside calls that hang, to which the failures
// may have left no slot; an async one leaves the last slot to a review all the same.
func (g *gate) free(c Class) bool {
	if g.why != nil {
		return g.inFlight < g.most && (c == Review || g.async < max(g.most-1, 1))
	}
	slots := max(int(g.limit), 1)
	if c == Review {
		return g.inFlight < slots
	}
	reserved := 0
	if slots > 1 {
		reserved = max(slots/g.options.Reserve, 1)
	}
	return g.inFlight < slots && g.async < slots-reserved
}

type outcome struct {
	err     *prompting.ModelError
	neutral bool
}

func (g *gate) finish(t *Turn, o outcome, now time.Time) {
	if t.done {
		return
	}
	t.done = true
	g.inFlight--
	if t.class == Async {
		g.async--
	}
	if t.probe && t.began.Equal(g.probed) {
		g.probing = false
	}
	switch {
	case o.neutral:
	case o.err == nil, !tells(o.err):
		g.answered(t, now)
	default:
		g.failed(t, o.err, now)
	}
	g.dispatch(now)
}

// tells: the error is about the provider and the account, not about this request or its answer.
func tells(e *prompting.ModelError) bool {
	return e.Retryable() || e.Cause == prompting.CauseQuota || e.Cause == prompting.CauseUnauthorized
}

func (g *gate) answered(t *Turn, now time.Time) {
	// A call from before the gate was shut proves nothing: the provider may have died since.
	if g.why == nil || t.probe {
		g.failures, g.why, g.open = 0, nil, 0
	}
	took := now.Sub(t.began).Seconds()
	congested := g.samples >= known && took > slow*g.latency
	g.samples++
	g.latency += (took - g.latency) / float64(min(g.samples, usual))
	switch {
	case congested:
		g.decrease(t, ease, now)
	case 2*t.beside >= int(g.limit): // it was in use, so more may be of use
		g.limit = min(g.limit+1/g.limit, float64(g.most))
	}
}

func (g *gate) failed(t *Turn, e *prompting.ModelError, now time.Time) {
	g.decrease(t, halve, now)
	if g.why != nil && !t.probe {
		return // it began before the gate was shut
	}
	g.failures++
	// An account that may not call, and a server that names a time, need no second opinion.
	if g.failures < g.options.Failures && e.Retryable() && e.RetryAfter == 0 && !t.probe {
		return
	}
	g.open = min(max(g.open*2, g.options.Open), g.options.OpenMax)
	g.shut, g.why = now.Add(max(g.open, min(e.RetryAfter, heed))), e
	for _, w := range g.waiting.drain() {
		w.err = g.refused(now)
		close(w.ready)
	}
}

func (g *gate) decrease(t *Turn, by float64, now time.Time) {
	if t.began.Before(g.decreased) {
		return
	}
	g.limit, g.decreased = max(g.limit*by, 1), now
}
