// Command webhooks measures webhook-worker: deliveries a second beside a bare POST loop and River as a webhook worker, the
// time from commit to the receiver, and what many endpoints, waiting retries, dead receivers and a snapshot that is held
// open cost. See ../README.md.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/sametick/sametick/deploy/bench/internal/report"
	"github.com/sametick/sametick/deploy/bench/internal/rig"
)

// options of a run.
type options struct {
	rounds, events, waiting, flying int
	seconds, hold                   time.Duration
	legs                            []string
	out                             string
	profile                         bool
	check                           bool
}

// legs in the order they run.
func allLegs() []string {
	return []string{"drain", "latency", "spread", "waiting", "dead", "snapshot"}
}

func main() { os.Exit(status()) }

// status is the exit code: main itself could defer nothing.
func status() int {
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer cancel()
	if err := run(ctx, os.Args[1:], os.Stdout, os.Stderr); err != nil && !errors.Is(err, flag.ErrHelp) {
		_, _ = fmt.Fprintln(os.Stderr, "bench-webhooks:", err)
		return 1
	}
	return 0
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	if len(args) > 0 && args[0] == contendArg {
		return contend(ctx, args[1:])
	}
	opt, err := parse(args, stderr)
	if err != nil {
		return err
	}
	b, err := build(ctx, opt, stderr)
	if err != nil {
		return err
	}
	err = b.measure(ctx)
	err = errors.Join(err, b.receiver.close(), b.rig.Close())
	// What was measured before a failure is shown too.
	b.judge()
	if err = errors.Join(err, b.report.Print(stdout)); err != nil {
		return err
	}
	files, err := b.report.Save(opt.out, "webhooks")
	if err != nil {
		return err
	}
	_, _ = fmt.Fprintln(stdout, "\nwrote", strings.Join(files, " and "))
	if missed := b.report.Missed(); opt.check && missed > 0 {
		return fmt.Errorf("%d targets missed", missed)
	}
	return nil
}

func parse(args []string, stderr io.Writer) (options, error) {
	var opt options
	var short, long bool
	var legs string
	f := flag.NewFlagSet("bench-webhooks", flag.ContinueOnError)
	f.SetOutput(stderr)
	f.IntVar(&opt.rounds, "rounds", 5, "interleaved rounds of each leg")
	f.IntVar(&opt.events, "events", 50_000, "committed events that each drain begins with; each is one delivery")
	f.IntVar(&opt.waiting, "waiting", 1_000_000, "retries that wait in that leg")
	f.IntVar(&opt.flying, "in-flight", 64, "requests at a time, of every contender")
	f.DurationVar(&opt.seconds, "seconds", 20*time.Second, "length of each latency measurement")
	f.DurationVar(&opt.hold, "hold", time.Minute, "how long a snapshot is held before the drain beside it is measured")
	f.BoolVar(&short, "short", false, "some minutes: 3 rounds, 20,000 events, 100,000 waiting, 5 s of latency, a snapshot of 20 s")
	f.BoolVar(&long, "long", false, "as the targets are quoted: 200,000 events and a snapshot of 10 minutes")
	f.StringVar(&legs, "legs", strings.Join(allLegs(), ","), "which measurements to take")
	f.StringVar(&opt.out, "out", "out/bench", "where webhooks.json and webhooks.svg go")
	f.BoolVar(&opt.profile, "profile", false, "take a CPU profile of webhook-worker in each drain of its leg (the last is kept)")
	f.BoolVar(&opt.check, "check", false, "fail when a target is missed")
	if err := f.Parse(args); err != nil {
		return opt, err
	}
	given := map[string]bool{}
	f.Visit(func(g *flag.Flag) { given[g.Name] = true })
	set := func(name string, to func()) {
		if !given[name] {
			to()
		}
	}
	if short {
		set("rounds", func() { opt.rounds = 3 })
		set("events", func() { opt.events = 20_000 })
		set("waiting", func() { opt.waiting = 100_000 })
		set("seconds", func() { opt.seconds = 5 * time.Second })
		set("hold", func() { opt.hold = 20 * time.Second })
	}
	if long {
		set("events", func() { opt.events = 200_000 })
		set("hold", func() { opt.hold = 10 * time.Minute })
	}
	opt.legs = strings.Split(legs, ",")
	for _, l := range opt.legs {
		if !slices.Contains(allLegs(), l) {
			return opt, fmt.Errorf("--legs: %q is none of %s", l, strings.Join(allLegs(), ", "))
		}
	}
	if opt.rounds < 1 || opt.events < 1000 || opt.flying < 4 || opt.waiting < 1 || opt.seconds < time.Second || opt.hold < time.Second {
		return opt, errors.New("at least 1 round, 1000 events, 4 in flight, 1 waiting, and 1 second")
	}
	return opt, nil
}

// bench is one run.
type bench struct {
	options
	rig      *rig.Rig
	report   *report.Report
	receiver *receiver
	log      io.Writer
}

func build(ctx context.Context, opt options, log io.Writer) (*bench, error) {
	r, err := rig.Start(ctx, log, "outbox-relay", "webhook-worker")
	if err != nil {
		return nil, err
	}
	facts, err := r.Facts(ctx)
	if err != nil {
		return nil, errors.Join(err, r.Close())
	}
	receiver, err := listen(ctx)
	if err != nil {
		return nil, errors.Join(err, r.Close())
	}
	facts = append(facts, report.Fact{Name: "in flight", Value: fmt.Sprint(opt.flying)})
	return &bench{options: opt, rig: r, receiver: receiver, log: log,
		report: &report.Report{Title: "Sametick webhooks bench", At: time.Now().UTC(), Facts: facts}}, nil
}

// measure runs the legs, each in a database of its own.
func (b *bench) measure(ctx context.Context) error {
	legs := map[string]func(context.Context) error{
		"drain": b.drains, "latency": b.latencies, "spread": b.spread, "waiting": b.waitingRetries, "dead": b.deadEndpoints, "snapshot": b.snapshot,
	}
	for _, name := range allLegs() {
		if !slices.Contains(b.legs, name) {
			continue
		}
		b.say("%s", name)
		if err := legs[name](ctx); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	b.report.Facts = append(b.report.Facts, report.Fact{Name: "load after", Value: rig.Load()})
	return nil
}

func (b *bench) say(format string, args ...any) {
	_, _ = fmt.Fprintf(b.log, time.Now().Format(time.TimeOnly)+" "+format+"\n", args...)
}

// judge holds the medians against the targets.
func (b *bench) judge() {
	r := b.report
	ours := r.Median(legDrain, nameOurs)
	ratio := func(leg, with, without string) float64 { return r.Median(leg, with) / r.Median(leg, without) }
	r.AtLeast("drain: ours ÷ bare POST loop ≥ 0.6", ours/r.Median(legDrain, nameBare), 0.6)
	r.AtLeast("drain: ours ÷ River ≥ 4", ours/r.Median(legDrain, nameRiver), 4)
	r.AtMost("commit → received, with Wake, p50 ≤ 8 ms", r.Median(legLatency, "with Wake, p50"), 8)
	r.AtMost("commit → received, with Wake, p99 ≤ 40 ms", r.Median(legLatency, "with Wake, p99"), 40)
	spread := ratio(legSpread, spreadOne, spreadMany)
	r.AtMost("10,000 endpoints in one organisation, or one in each of 10,000: slower by ≤ 25 %", max(spread, 1/spread)-1, 0.25)
	r.AtLeast("waiting retries ÷ none > 0.95", ratio(legWaiting, "waiting", without), 0.95)
	r.AtLeast("30 % dead endpoints, the others ÷ none dead > 0.85", ratio(legDead, "dead", without), 0.85)
	r.AtLeast("a snapshot held ÷ none > 0.8", ratio(legSnapshot, "held", without), 0.8)
}
