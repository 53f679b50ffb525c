package reviewing

import (
	"context"

	"github.com/sametick/sametick/services/prompt-worker/internal/hooks"
	"github.com/sametick/sametick/services/prompt-worker/internal/prompting"
	"github.com/sametick/sametick/services/prompt-worker/internal/review"
	"github.com/sametick/sametick/services/prompt-worker/internal/runs"
	"github.com/sametick/sametick/services/prompt-worker/internal/store"
)

// Trier tries review hooks on writes of the past, as a review would: the same engine, the same budgets. Safe for
// concurrent use.
type Trier struct {
	Store    *store.Store
	Executor *runs.Executor
	Recorder *Recorder
	Mask     *prompting.Mask
}

// Try gives what one hook, enabled or not, says of a write; nil when it does not match it. The run is not kept yet.
func (t *Trier) Try(ctx context.Context, s *hooks.Setup, actorID *int64, w review.Write) (*runs.Run, error) {
	found := NewHooks(t.Store, t.Executor.Compiler)
	return t.TryBy(ctx, s, actorID, w, &Runner{Hooks: found, Store: t.Store, Executor: t.Executor, Recorder: t.Recorder})
}

// TryBy is Try with models asked by another: all that it has asked has ended when it returns.
func (t *Trier) TryBy(ctx context.Context, s *hooks.Setup, actorID *int64, w review.Write, by review.Runner) (*runs.Run, error) {
	c := &captured{recorder: t.Recorder}
	engine := review.New(alone{NewHooks(t.Store, t.Executor.Compiler).hook(s)}, by, c, t.Mask)
	defer engine.Close()
	ctx, cancel := context.WithTimeout(ctx, s.Timeout()+review.DefaultReserve)
	defer cancel()
	if _, err := engine.Review(ctx, review.Request{OrgID: s.OrgID, ActorID: actorID, Writes: []review.Write{w}}); err != nil {
		return nil, err
	}
	return c.run, nil
}

// alone is a hook without others.
type alone struct{ hook *review.Hook }

// ReviewHooks implements review.Hooks.
func (a alone) ReviewHooks(context.Context, int64, *int64) ([]*review.Hook, error) {
	return []*review.Hook{a.hook}, nil
}

// captured implements review.Recorder for a review of one write by one hook.
type captured struct {
	recorder *Recorder
	run      *runs.Run
}

// Record implements review.Recorder.
func (c *captured) Record(in review.Run) int64 {
	c.run = c.recorder.run(&in)
	c.run.Trigger = runs.ByDryRun
	return 0
}
