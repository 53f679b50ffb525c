package main

import (
	"context"
	"errors"
	"fmt"
	"time"
)

const (
	legDrainQueued = "drain of runs that were queued"

	// fewRuns is what many are held against: enough to fill whatever the worker keeps in memory.
	fewRuns   = 20_000
	fewQueued = "few queued"
)

func (b *bench) manyQueued() string { return fmt.Sprintf("%d queued", b.queued) }

// queue lets runs pile up while the provider stands still, and drains them: once few, once many. It is not about time, so
// one round will do.
func (b *bench) queue(ctx context.Context) (err error) {
	w, err := b.newWorld(ctx, "queued", 2, "prompt-worker")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.close()) }()
	w.orgs = orgs
	if err := w.hooks(ctx, orgs); err != nil {
		return err
	}
	for _, c := range []struct {
		name string
		n    int
	}{{fewQueued, fewRuns}, {b.manyQueued(), b.queued}} {
		if err := w.pileUp(ctx, c.name, c.n); err != nil {
			return fmt.Errorf("%s: %w", c.name, err)
		}
	}
	return nil
}

func (w *world) pileUp(ctx context.Context, name string, n int) (err error) {
	b := w.bench
	if err := w.reset(ctx); err != nil {
		return err
	}
	b.model.taken.Store(0)
	b.model.stand()
	defer b.model.goOn()
	p, err := ready(ctx)(w.worker(ctx))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.Stop()) }()
	idle, err := p.Memory()
	if err != nil {
		return err
	}
	if err := w.fill(ctx, n, orgs); err != nil {
		return err
	}
	err = until(ctx, p, 10*time.Minute, "the queue does not fill", func() (bool, error) {
		m, err := metrics(ctx, p)
		return m[`sametick_prompt_scheduled_total`] >= float64(n), err
	})
	if err != nil {
		return err
	}
	waiting, err := p.PeakMemory()
	if err != nil {
		return err
	}
	if calls := b.model.taken.Load(); calls != 0 {
		return fmt.Errorf("the model has answered %d calls while it stood still", calls)
	}
	b.model.goOn()
	rate, err := w.rate(ctx, p, n)
	if err != nil {
		return err
	}
	peak, err := p.PeakMemory()
	if err != nil {
		return err
	}
	after, err := p.Memory()
	if err != nil {
		return err
	}
	mib := func(bytes int64) float64 { return float64(bytes) / (1 << 20) }
	b.say("  %s: %.0f MiB before, at most %.0f while they waited, %.0f in all, %.0f after; drained at %.0f runs/s", name, mib(idle), mib(waiting), mib(peak), mib(after), rate)
	b.report.Add(legMemory, name, "MiB", mib(peak))
	b.report.Add(legMemory, name+", before", "MiB", mib(idle))
	b.report.Add(legMemory, name+", while they waited", "MiB", mib(waiting))
	b.report.Add(legMemory, name+", after", "MiB", mib(after))
	b.report.Add(legDrainQueued, name, "runs/s", rate)
	return w.checkRuns(ctx, n)
}
