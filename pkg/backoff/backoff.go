// Package backoff says how long to wait before the next attempt: exponential, capped, with full
// jitter (each wait is uniform in [0, ceiling), which spreads callers that failed together best).
// It neither sleeps nor counts: the caller owns its attempts and its clock.
package backoff

import (
	"math"
	"math/rand/v2"
	"time"
)

// Policy is a schedule of ceilings: Base, Base·2, Base·4, … up to Cap. A value, safe to share.
type Policy struct {
	// Base is the ceiling after the first failure; below 1 ns it counts as 1 ns.
	Base time.Duration
	// Cap is the highest ceiling; below Base it counts as Base.
	Cap time.Duration
	// Floor is added to every wait, for receivers that must be given some rest; never pushes it above Cap.
	Floor time.Duration
}

// Ceiling is the longest wait after `failures` failures in a row (0 counts as 1).
func (p Policy) Ceiling(failures int) time.Duration {
	base := max(p.Base, 1)
	top := max(p.Cap, base)
	shift := max(failures, 1) - 1
	// The shift is compared in logarithms: base << 63 would overflow to a negative wait.
	if shift >= 62 || base > math.MaxInt64>>shift {
		return top
	}
	return min(base<<shift, top)
}

// Wait draws the wait after `failures` failures in a row from r, which must be in [0, 1), e.g.
// rand.Float64().
func (p Policy) Wait(failures int, r float64) time.Duration {
	c := p.Ceiling(failures)
	return min(max(p.Floor, 0)+time.Duration(r*float64(c)), max(p.Cap, p.Base, 1))
}

// Next is Wait with the runtime's random source, which is safe for concurrent use.
func (p Policy) Next(failures int) time.Duration {
	return p.Wait(failures, rand.Float64())
}
