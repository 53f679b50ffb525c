package harness

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/sametick/sametick/deploy/torture/internal/chaos"
	"github.com/sametick/sametick/deploy/torture/internal/double"
	"github.com/sametick/sametick/deploy/torture/internal/follow"
	"github.com/sametick/sametick/deploy/torture/internal/judge"
	"github.com/sametick/sametick/deploy/torture/internal/ledger"
	"github.com/sametick/sametick/deploy/torture/internal/load"
	"github.com/sametick/sametick/deploy/torture/internal/rig"
	"github.com/sametick/sametick/pkg/event"
	"github.com/sametick/sametick/pkg/outbox"
)

// run is one torture.
type run struct {
	o       *Options
	servers *rig.Servers
	suite   *suite
	ledger  *ledger.Ledger
	load    *load.Load
	crowd   *follow.Crowd
	hooks   *webhooks
	prompts *farPrompts
	journal *chaos.Journal
	report  *Report
}

// Run does a whole torture. The error is the harness' own; what the judge found is in the report.
func Run(ctx context.Context, o Options) (report *Report, err error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(o.Dir, 0o755); err != nil {
		return nil, fmt.Errorf("make the run's directory: %w", err)
	}
	r := &run{o: &o, report: &Report{Options: o}}
	journal, err := os.Create(filepath.Join(o.Dir, "chaos.log"))
	if err != nil {
		return nil, fmt.Errorf("make the journal: %w", err)
	}
	defer func() { err = errors.Join(err, journal.Close()) }()
	r.journal = chaos.NewJournal(journal)

	r.say("starting Postgres and Redis in %s", o.Dir)
	if r.servers, err = rig.StartServers(ctx, o.Dir); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, r.servers.Stop()) }()
	if err := r.migrate(ctx); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, r.hooks.close(), r.prompts.close()) }()
	if r.suite, err = r.newSuite(ctx); err != nil {
		return nil, err
	}
	err = r.torture(ctx)
	r.report.Unclean = append(r.report.Unclean, r.suite.stop()...)
	return r.report, err
}

func (r *run) say(format string, args ...any) {
	_, _ = fmt.Fprintf(r.o.Out, format+"\n", args...) // nobody to tell when the output is gone
	r.journal.Note(format, args...)
}

// migrate makes the suite's tables and those of the harness.
func (r *run) migrate(ctx context.Context) error {
	if err := outbox.Migrate(ctx, r.servers.PostgresURL, slog.New(slog.DiscardHandler)); err != nil {
		return err
	}
	conn, err := r.servers.Postgres(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(ctx) }()
	statements := load.Schema
	if r.o.Relay != Real {
		statements += "; " + double.Schema
	}
	if _, err := conn.Exec(ctx, statements); err != nil {
		return fmt.Errorf("make the harness' tables: %w", err)
	}
	return nil
}

// torture is storm, healing, calm, judgement.
func (r *run) torture(ctx context.Context) (err error) {
	if err := errors.Join(r.suite.start(ctx), r.suite.awaitReady(ctx), r.makeEndpoints(ctx), r.makeHooks(ctx)); err != nil {
		return err
	}
	path := filepath.Join(r.o.Dir, "ledger")
	if r.ledger, err = ledger.Create(path); err != nil {
		return err
	}
	o := r.o
	r.load = load.New(load.Options{URL: r.servers.PostgresURL, Orgs: orgs(), Types: types(), Hot: hot,
		Writers: o.Writers, Think: o.Think, Bulk: o.Bulk, Seed: o.Seed}, r.ledger)
	listeners, stopListening := r.listen(ctx)
	defer stopListening()

	r.say("storm for %s, seed %d, relay %s", o.Duration, o.Seed, o.Relay)
	began := time.Now()
	if err := r.storm(ctx); err != nil {
		return errors.Join(err, r.ledger.Close())
	}
	r.report.Storm = time.Since(began)
	if err := r.calm(ctx); err != nil {
		return errors.Join(err, r.ledger.Close())
	}
	if err := r.ledger.Close(); err != nil {
		return err
	}
	r.report.Ledger = r.ledger.Counts()
	r.report.Faults, r.report.Kills = r.journal.Counts()
	r.report.Unclean = append(r.report.Unclean, r.journal.Failed()...)
	return r.judge(ctx, path, func() error { stopListening(); return listeners.Wait() })
}

// listen starts the clients, where there are gateways for them.
func (r *run) listen(ctx context.Context) (*errgroup.Group, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	listeners := &errgroup.Group{}
	if len(r.suite.urls) > 0 {
		r.crowd = follow.NewCrowd(follow.Options{Gateways: r.suite.urls, Token: r.suite.token, Orgs: orgs(), Types: types(), Hot: hot,
			Clients: r.o.Clients, Dir: r.o.Dir, Seed: r.o.Seed, LifeTime: min(40*time.Second, r.o.Duration/4)})
		listeners.Go(func() error { return r.crowd.Run(ctx) })
	}
	return listeners, cancel
}

// reviewedWriters is how many write what is reviewed at a time.
const reviewedWriters = 3

// storm is writers and chaos at once. All faults are undone when it returns.
func (r *run) storm(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, r.o.Duration)
	defer cancel()
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return r.load.Run(ctx) })
	group.Go(func() error { chaos.Run(ctx, r.o.Seed, r.journal, r.campaigns()); return nil })
	group.Go(func() error { r.progress(ctx); return nil })
	if r.prompts != nil && r.prompts.writers != nil {
		group.Go(func() error { r.prompts.writers.Run(ctx, reviewedWriters); return nil })
		group.Go(func() error { return r.burst(ctx) })
	}
	return group.Wait()
}

// progress says every while how it goes.
func (r *run) progress(ctx context.Context) {
	every := max(r.o.Duration/20, 5*time.Second)
	for began := time.Now(); ; {
		chaos.Pause(ctx, every)
		if ctx.Err() != nil {
			return
		}
		counts := r.ledger.Counts()
		_, kills := r.journal.Counts()
		line := fmt.Sprintf("%6s  %d events in %d transactions, %d aborted, %d of unknown outcome, %d kills",
			time.Since(began).Round(time.Second), counts.Events, counts.Committed, counts.Aborted, counts.Unknown, kills)
		if r.crowd != nil {
			c := r.crowd.Counts()
			line += fmt.Sprintf(", %d events to %d clients in %d connections", c.Delivered, c.Lives, c.Reconnects)
		}
		if r.hooks != nil {
			line += fmt.Sprintf(", %d webhooks accepted", r.hooks.record.Counts().Accepted)
		}
		if r.prompts != nil {
			line += fmt.Sprintf(", %d calls of models", r.prompts.record.Counts().Answered)
		}
		r.say("%s", line)
	}
}

// campaigns are the plan of the storm.
func (r *run) campaigns() []chaos.Campaign {
	if r.o.Pace == 0 {
		return nil
	}
	every := func(d time.Duration) time.Duration { return time.Duration(float64(d) * r.o.Pace) }
	shard := func(rng *rand.Rand) string {
		list := orgs()
		return judge.StreamKey(event.ShardOf(list[rng.IntN(len(list))]))
	}
	list := []chaos.Campaign{
		chaos.Database(r.servers, every(40*time.Second)),
		chaos.Sessions(r.servers, every(8*time.Second)),
		chaos.Memory(r.servers, shard, every(6*time.Second)),
		chaos.Extra(r.suite.extra, every(20*time.Second)),
	}
	for _, replica := range r.suite.relays {
		list = append(list, chaos.Relay(replica, every(8*time.Second)))
	}
	for _, replica := range r.suite.gateways {
		list = append(list, chaos.Gateway(replica, every(10*time.Second)))
	}
	list = append(list, r.promptCampaigns(every)...)
	if r.hooks == nil {
		return list
	}
	for _, replica := range r.suite.workers {
		list = append(list, chaos.Worker(replica, every(5*time.Second)))
	}
	return append(list, chaos.FarEnd(r.hooks.receivers, every(4*time.Second)), chaos.Retries(r.servers, every(10*time.Second)))
}
