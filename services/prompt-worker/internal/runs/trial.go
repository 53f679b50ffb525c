package runs

import (
	"context"

	"github.com/sametick/sametick/services/prompt-worker/internal/hooks"
	"github.com/sametick/sametick/services/prompt-worker/internal/prompting"
)

// DryRun makes one attempt at an item that waits in no queue. hold is asked to hold the worst case of a model's call;
// its error is why there is none. took is what is to be settled, nil where nothing was held. The run is not kept yet.
func (x *Executor) DryRun(ctx context.Context, s *hooks.Setup, i *Item, hold func(worst prompting.Amount) error) (r *Run, took *prompting.Amount) {
	p, err := guarded(func() (*plan, error) { return x.prepare(ctx, s, i) })
	if p == nil {
		p = &plan{run: newRun(s, i)}
	}
	p.run.Trigger = ByDryRun
	if err == nil && p.asking != nil {
		if err = hold(p.asking.Worst); err == nil {
			p.run.Attempts = 1
		}
	}
	if err == nil {
		took, err = guarded(func() (*prompting.Amount, error) { return x.call(ctx, p, i.Event) })
		if took == nil && p.asking != nil { // a panic
			took = &p.asking.Worst
		}
	}
	return ended(p.run, Failure(err), p.run.Attempts).Run, took
}
