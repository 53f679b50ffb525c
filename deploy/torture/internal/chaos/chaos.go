// Package chaos does harm by plan: seeded campaigns, each against one target, that run at the same
// time and write down what they did and when. The same seed draws the same faults in the same order
// with the same pauses; what they hit is the machine's to decide.
package chaos

import (
	"context"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
)

// Fault is one way to do harm. Do returns when the harm is undone, and undoes it too when ctx ends.
type Fault struct {
	Name   string
	Weight int
	// Kills is how many processes or sessions of a server die or are stopped by it.
	Kills int
	// Do draws whatever it needs from rng, and tells what it did.
	Do func(ctx context.Context, rng *rand.Rand) (detail string, err error)
}

// Campaign is a sequence of faults against one target.
type Campaign struct {
	Name string
	// Every is the mean time between the end of a fault and the next.
	Every  time.Duration
	Faults []Fault
}

// Journal is what was done. It is safe for concurrent use.
type Journal struct {
	mu     sync.Mutex
	w      io.Writer
	began  time.Time
	counts map[string]int
	kills  int
	failed []string
}

// NewJournal writes to w, with times since now.
func NewJournal(w io.Writer) *Journal {
	return &Journal{w: w, began: time.Now(), counts: map[string]int{}}
}

// Note writes one line.
func (j *Journal) Note(format string, args ...any) {
	j.mu.Lock()
	defer j.mu.Unlock()
	_, _ = fmt.Fprintf(j.w, "%9.3f  %s\n", time.Since(j.began).Seconds(), fmt.Sprintf(format, args...)) // a journal on a full disk is no reason to stop
}

// Counts gives the faults by name and the sum of kills.
func (j *Journal) Counts() (byName map[string]int, kills int) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return maps.Clone(j.counts), j.kills
}

// Failed tells which faults could not be done or undone, or found the target misbehaving.
func (j *Journal) Failed() []string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return slices.Clone(j.failed)
}

func (j *Journal) record(c *Campaign, f *Fault, detail string, err error) {
	j.mu.Lock()
	j.counts[c.Name+" "+f.Name]++
	j.kills += f.Kills
	if err != nil {
		j.failed = append(j.failed, fmt.Sprintf("%s %s: %v", c.Name, f.Name, err))
	}
	j.mu.Unlock()
	if err != nil {
		detail += " FAILED: " + err.Error()
	}
	j.Note("%s: %s done %s", c.Name, f.Name, detail)
}

// Run runs all campaigns until ctx ends and every fault is undone.
func Run(ctx context.Context, seed uint64, j *Journal, campaigns []Campaign) {
	var group errgroup.Group
	for i := range campaigns {
		rng := rand.New(rand.NewPCG(seed, 0xc4a05+uint64(i)))
		group.Go(func() error { campaigns[i].run(ctx, rng, j); return nil })
	}
	_ = group.Wait() // no campaign fails; faults do, into the journal
}

func (c *Campaign) run(ctx context.Context, rng *rand.Rand, j *Journal) {
	for {
		Pause(ctx, c.Every/2+time.Duration(rng.Int64N(int64(c.Every)+1)))
		if ctx.Err() != nil {
			return
		}
		f := c.pick(rng)
		// Each fault draws from a source of its own: how much it draws does not move the plan.
		own := rand.New(rand.NewPCG(rng.Uint64(), rng.Uint64()))
		j.Note("%s: %s", c.Name, f.Name)
		detail, err := f.Do(ctx, own)
		j.record(c, f, detail, err)
	}
}

func (c *Campaign) pick(rng *rand.Rand) *Fault {
	sum := 0
	for i := range c.Faults {
		sum += c.Faults[i].Weight
	}
	n := rng.IntN(sum)
	for i := range c.Faults {
		if n -= c.Faults[i].Weight; n < 0 {
			return &c.Faults[i]
		}
	}
	panic("unreachable: the weights sum up")
}

// Pause waits for d or the end of ctx.
func Pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}

// Between draws a time.
func Between(rng *rand.Rand, least, most time.Duration) time.Duration {
	return least + time.Duration(rng.Int64N(int64(most-least)+1))
}
