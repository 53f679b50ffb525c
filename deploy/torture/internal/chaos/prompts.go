package chaos

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/sametick/sametick/deploy/torture/internal/prompts"
)

// Models is what the campaign needs of the far end of prompt hooks.
type Models interface{ Put(m prompts.Mood) }

// Model is the campaign against the moody model.
func Model(m Models, every time.Duration) Campaign {
	return Campaign{Name: "model", Every: every, Faults: []Fault{
		{Name: "moody", Weight: 1, Do: func(ctx context.Context, rng *rand.Rand) (string, error) {
			mood := []prompts.Mood{prompts.Failing, prompts.Busy, prompts.Resetting, prompts.Hanging}[rng.IntN(4)]
			d := Between(rng, 500*time.Millisecond, 5*time.Second)
			m.Put(mood)
			Pause(ctx, d)
			m.Put(prompts.Well)
			return mood.String() + " for " + d.String(), nil
		}},
	}}
}

// Prompters are the campaigns against prompt-workers: against each, killed between a call and what is saved of it, stopped
// for longer than its lease lasts; and, less often, against all of them at once, so that nobody is there to review. Those
// never meet at a replica, one of which asks it to go and the other kills it.
func Prompters(list []Replica, each, all time.Duration) (campaigns []Campaign) {
	var turn sync.RWMutex
	for _, r := range list {
		c := Worker(r, each)
		for i := range c.Faults {
			do := c.Faults[i].Do
			c.Faults[i].Do = func(ctx context.Context, rng *rand.Rand) (string, error) {
				turn.RLock()
				defer turn.RUnlock()
				return do(ctx, rng)
			}
		}
		campaigns = append(campaigns, c)
	}
	return append(campaigns, Campaign{Name: "all prompters", Every: all, Faults: []Fault{
		{Name: "SIGKILL", Weight: 1, Kills: len(list), Do: func(ctx context.Context, rng *rand.Rand) (string, error) {
			turn.Lock()
			defer turn.Unlock()
			d := Between(rng, 300*time.Millisecond, 2*time.Second)
			for _, r := range list {
				r.Kill()
			}
			Pause(ctx, d)
			var failed []error
			for _, r := range list {
				failed = append(failed, r.Start(ctx))
			}
			return "back after " + d.String(), errors.Join(failed...)
		}},
	}})
}

// Runs is the campaign that lets time pass for runs that wait to be tried again.
func Runs(p Postgres, every time.Duration) Campaign {
	return Campaign{Name: "prompt retries", Every: every, Faults: []Fault{
		{Name: "due at once", Weight: 1, Do: func(ctx context.Context, _ *rand.Rand) (string, error) {
			ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
			defer cancel()
			n, err := HurryRuns(ctx, p)
			if err != nil {
				return "none: the server is down", nil
			}
			return n + " of them", nil
		}},
	}}
}

// HurryRuns makes all retries of runs due now, and tells what it did. An attempt that has begun keeps its time.
func HurryRuns(ctx context.Context, p Postgres) (string, error) {
	conn, err := p.Postgres(ctx)
	if err != nil {
		return "", err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	tag, err := conn.Exec(ctx, `UPDATE sametick.prompt_queue SET due_at = now() WHERE due_at > now() AND NOT calling`)
	return tag.String(), err
}
