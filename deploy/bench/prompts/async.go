package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/sametick/sametick/deploy/bench/internal/rig"
)

const (
	legRuns         = "async runs a second, committed events to finished and persisted"
	legOwnCost      = "processor time of a run: prompt-worker"
	legPostgresCost = "processor time of a run: Postgres"
	legCommits      = "transactions of a run"
	legMemory       = "most resident memory of prompt-worker"

	spreadOrgs = "a hook in each of 64 organisations"
	spreadOne  = "one hook"

	// orgs are those of a drain, with a hook each; they cover all shards.
	orgs = 64
)

// drained is what one drain came to.
type drained struct {
	rate float64 // runs/s, steady
	// Processor time in µs a run, from the start of the process.
	own, postgres float64
	// commits of the database a run; a run takes part in three: scheduled, begun, finished.
	commits float64
}

// async drains committed events, of 64 organisations and of one in turn. The first round warms up.
func (b *bench) async(ctx context.Context) (err error) {
	worlds := map[string]*world{}
	defer func() {
		for _, w := range worlds {
			err = errors.Join(err, w.close())
		}
	}()
	names := []string{spreadOrgs, spreadOne}
	for n, name := range names {
		w, err := b.newWorld(ctx, fmt.Sprintf("async%d", n), n, "prompt-worker")
		if err != nil {
			return err
		}
		worlds[name] = w
		among := map[string]int{spreadOrgs: orgs, spreadOne: 1}[name]
		w.orgs = among
		if err := w.hooks(ctx, among); err != nil {
			return err
		}
	}
	for round := range b.rounds + 1 {
		for i := range names {
			name := names[(i+round)%len(names)]
			d, err := worlds[name].drain(ctx, b.runs)
			if err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			b.say("  round %d, %s: %.0f runs/s; processor µs a run: prompt-worker %.0f, Postgres %.0f; commits a run %.2f", round, name, d.rate, d.own, d.postgres, d.commits)
			if round > 0 {
				b.report.Add(legRuns, name, "runs/s", d.rate)
				b.report.Add(legOwnCost, name, "µs", d.own)
				b.report.Add(legPostgresCost, name, "µs", d.postgres)
				b.report.Add(legCommits, name, "commits", d.commits)
			}
		}
	}
	return nil
}

// reset forgets the runs of before. Cursors stay, so that no drain reads what others have recorded.
func (w *world) reset(ctx context.Context) error {
	for _, sql := range []string{
		`TRUNCATE sametick.prompt_queue, sametick.prompt_runs, sametick.prompt_budgets, sametick.prompt_reservations`, `CHECKPOINT`} {
		if _, err := w.pool.Exec(ctx, sql); err != nil {
			return fmt.Errorf("reset: %w", err)
		}
	}
	return nil
}

const completedRuns = `sametick_prompt_runs_total{cause="",mode="async",status="completed"}`

// drain commits n events, lets prompt-worker run on them, times it from the first tenth to the last, and checks that each has
// one finished run and one call of the model.
func (w *world) drain(ctx context.Context, n int) (d drained, err error) {
	if err := w.fill(ctx, n, w.orgs); err != nil {
		return d, err
	}
	if err := w.reset(ctx); err != nil {
		return d, err
	}
	b := w.bench
	b.model.taken.Store(0)
	postgres, _, err := b.rig.ServersCPU()
	if err != nil {
		return d, err
	}
	commits, err := w.commits(ctx)
	if err != nil {
		return d, err
	}
	p, err := w.worker(ctx)
	if err != nil {
		return d, err
	}
	defer func() { err = errors.Join(err, p.Stop()) }()
	group, groupCtx := errgroup.WithContext(ctx)
	if b.profile {
		group.Go(func() error {
			if err := p.Ready(groupCtx); err != nil {
				return err
			}
			return p.Profile(groupCtx, 4, filepath.Join(b.out, "prompt-worker.pprof"))
		})
	}
	if d.rate, err = w.rate(ctx, p, n); err != nil {
		return d, p.Blame(errors.Join(err, group.Wait()))
	}
	own, err := p.CPU()
	if err != nil {
		return d, err
	}
	now, _, err := b.rig.ServersCPU()
	if err != nil {
		return d, err
	}
	d.own, d.postgres = micros(own, n), micros(now-postgres, n)
	commitsNow, err := w.commits(ctx)
	if err != nil {
		return d, err
	}
	d.commits = float64(commitsNow-commits) / float64(n)
	return d, errors.Join(w.checkRuns(ctx, n), group.Wait())
}

// commits counts the database's, as its sessions have told so far: within a second or so.
func (w *world) commits(ctx context.Context) (n int64, err error) {
	err = w.pool.QueryRow(ctx, `SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()`).Scan(&n)
	return n, err
}

func micros(t time.Duration, n int) float64 { return float64(t.Microseconds()) / float64(n) }

// rate times the runs from the first tenth of n to the last, as the worker counts them: once they are persisted.
func (w *world) rate(ctx context.Context, p *rig.Process, n int) (float64, error) {
	if err := p.Ready(ctx); err != nil {
		return 0, err
	}
	var first, have float64
	var began time.Time
	err := until(ctx, p, time.Minute+time.Duration(n)*20*time.Millisecond, "a drain", func() (bool, error) {
		m, err := metrics(ctx, p)
		have = m[completedRuns]
		switch {
		case began.IsZero() && have == float64(n):
			return false, fmt.Errorf("%.0f runs between two looks: too few to measure", have)
		case began.IsZero() && have >= float64(n)/10:
			first, began = have, time.Now()
		}
		return have >= float64(n), err
	})
	if err != nil {
		return 0, fmt.Errorf("%.0f of %d runs have finished: %w", have, n, err)
	}
	return (have - first) / time.Since(began).Seconds(), nil
}

// checkRuns counts what was kept: a run that is missing, double or that has failed would make the rate another thing.
func (w *world) checkRuns(ctx context.Context, n int) error {
	var all, distinct, completed, queued, held int
	err := w.pool.QueryRow(ctx, `SELECT count(*), count(DISTINCT (hook_id, event_id)), count(*) FILTER (WHERE status = 'completed' AND output IS NOT NULL),
		(SELECT count(*) FROM sametick.prompt_queue), (SELECT count(*) FROM sametick.prompt_reservations) FROM sametick.prompt_runs`).Scan(&all, &distinct, &completed, &queued, &held)
	if err != nil {
		return fmt.Errorf("count the runs: %w", err)
	}
	if calls := int(w.bench.model.taken.Load()); all != n || distinct != n || completed != n || queued != 0 || held != 0 || calls != n {
		return fmt.Errorf("of %d events %d runs, %d of different ones, %d completed, %d waiting, %d reservations, %d calls of the model", n, all, distinct, completed, queued, held, calls)
	}
	return nil
}
