package delivery

import (
	"time"

	"github.com/sametick/sametick/pkg/backoff"
)

// breakAfter is how many attempts in a row must fail for an endpoint's breaker to open.
const breakAfter = 5

// opens is how long it stays open, growing with each probe that fails.
var opens = backoff.Policy{Base: 5 * time.Second, Cap: 5 * time.Minute, Floor: 5 * time.Second}

// breaker keeps a receiver that fails from being asked all the time. While it is open nothing is sent; when its time
// is over one attempt probes, and the others wait for what comes of it.
type breaker struct {
	failures int
	opened   int // how often in a row
	until    time.Time
}

// isOpen tells whether it has opened and no probe has succeeded yet.
func (b *breaker) isOpen() bool { return b.opened > 0 }

// allows tells whether an attempt may begin while `flying` others are under way, and if not, when the next may; zero:
// after one of these has ended.
func (b *breaker) allows(now time.Time, flying int) (ok bool, at time.Time) {
	switch {
	case !b.isOpen():
		return true, time.Time{}
	case now.Before(b.until):
		return false, b.until
	default:
		return flying == 0, time.Time{}
	}
}

// succeeded closes it.
func (b *breaker) succeeded() { *b = breaker{} }

// failed counts a failure; spread, in [0, 1), draws how long it stays open. Attempts that were under way when it
// opened do not prolong it.
func (b *breaker) failed(now time.Time, spread float64) {
	b.failures++
	if b.failures < breakAfter || b.isOpen() && now.Before(b.until) {
		return
	}
	b.opened++
	b.until = now.Add(opens.Wait(b.opened, spread))
}

// probe lets the next attempt begin at once.
func (b *breaker) probe() { b.until = time.Time{} }
