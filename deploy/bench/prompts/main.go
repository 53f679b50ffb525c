// Command prompts measures prompt hooks: what writes cost when no hook matches, what a review by rules adds to a write,
// async runs a second with a provider that answers at once, and the memory of a long queue. See ../README.md.
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
	rounds, pairs, clients, runs, queued int
	slice, seconds                       time.Duration
	legs                                 []string
	out                                  string
	profile                              bool
	check                                bool
}

// allLegs in the order they run.
func allLegs() []string { return []string{"overhead", "review", "async", "queued"} }

func main() { os.Exit(status()) }

// status is the exit code: main itself could defer nothing.
func status() int {
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer cancel()
	if err := run(ctx, os.Args[1:], os.Stdout, os.Stderr); err != nil && !errors.Is(err, flag.ErrHelp) {
		_, _ = fmt.Fprintln(os.Stderr, "bench-prompts:", err)
		return 1
	}
	return 0
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	opt, err := parse(args, stderr)
	if err != nil {
		return err
	}
	b, err := build(ctx, opt, stderr)
	if err != nil {
		return err
	}
	err = errors.Join(b.measure(ctx), b.model.close(), b.rig.Close())
	// What was measured before a failure is shown too.
	b.judge()
	if err = errors.Join(err, b.report.Print(stdout)); err != nil {
		return err
	}
	files, err := b.report.Save(opt.out, "prompts")
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
	var short bool
	var legs string
	f := flag.NewFlagSet("bench-prompts", flag.ContinueOnError)
	f.SetOutput(stderr)
	f.IntVar(&opt.rounds, "rounds", 5, "interleaved rounds of each leg but overhead")
	f.IntVar(&opt.pairs, "pairs", 10, "pairs of slices of the overhead leg")
	f.DurationVar(&opt.slice, "slice", 2*time.Second, "length of a slice of the overhead leg")
	f.IntVar(&opt.clients, "clients", 8, "how many clients write at a time in the overhead leg")
	f.DurationVar(&opt.seconds, "seconds", 10*time.Second, "length of each measurement of the review leg")
	f.IntVar(&opt.runs, "runs", 20_000, "committed events that each async drain begins with; each is one run")
	f.IntVar(&opt.queued, "queued", 100_000, "runs that are queued while the provider stands still")
	f.BoolVar(&short, "short", false, "some minutes: 3 rounds, 5 pairs, 5 s of review, 10,000 runs, 30,000 queued")
	f.StringVar(&legs, "legs", strings.Join(allLegs(), ","), "which measurements to take")
	f.StringVar(&opt.out, "out", "out/bench", "where prompts.json and prompts.svg go")
	f.BoolVar(&opt.profile, "profile", false, "keep a CPU profile of prompt-worker in each async drain, and of api-gateway and prompt-worker in each review (the last of each)")
	f.BoolVar(&opt.check, "check", false, "fail when a target is missed")
	if err := f.Parse(args); err != nil {
		return opt, err
	}
	given := map[string]bool{}
	f.Visit(func(g *flag.Flag) { given[g.Name] = true })
	set := func(name string, to func()) {
		if short && !given[name] {
			to()
		}
	}
	set("rounds", func() { opt.rounds = 3 })
	set("pairs", func() { opt.pairs = 5 })
	set("seconds", func() { opt.seconds = 5 * time.Second })
	set("runs", func() { opt.runs = 10_000 })
	set("queued", func() { opt.queued = 30_000 })
	opt.legs = strings.Split(legs, ",")
	for _, l := range opt.legs {
		if !slices.Contains(allLegs(), l) {
			return opt, fmt.Errorf("--legs: %q is none of %s", l, strings.Join(allLegs(), ", "))
		}
	}
	if opt.rounds < 1 || opt.pairs < 1 || opt.clients < 1 || opt.runs < 1000 || opt.queued < fewRuns || opt.slice < time.Second || opt.seconds < time.Second {
		return opt, errors.New("at least 1 round, 1 pair, 1 client, 1000 runs, 20,000 queued, and 1 second")
	}
	return opt, nil
}

// bench is one run.
type bench struct {
	options
	rig    *rig.Rig
	report *report.Report
	model  *model
	tokens *rig.Tokens
	log    io.Writer
}

func build(ctx context.Context, opt options, log io.Writer) (*bench, error) {
	r, err := rig.Start(ctx, log, "outbox-relay", "api-gateway", "prompt-worker")
	if err != nil {
		return nil, err
	}
	facts, err := r.Facts(ctx)
	if err != nil {
		return nil, errors.Join(err, r.Close())
	}
	tokens, err := rig.NewTokens()
	if err != nil {
		return nil, errors.Join(err, r.Close())
	}
	m, err := listen(ctx)
	if err != nil {
		return nil, errors.Join(err, r.Close())
	}
	return &bench{options: opt, rig: r, model: m, tokens: tokens, log: log,
		report: &report.Report{Title: "Sametick prompts bench", At: time.Now().UTC(), Facts: facts}}, nil
}

// measure runs the legs, each in databases of its own.
func (b *bench) measure(ctx context.Context) error {
	legs := map[string]func(context.Context) error{"overhead": b.overhead, "review": b.reviews, "async": b.async, "queued": b.queue}
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
	r.AtMost("no hook matches: writes slower by ≤ 3 % than without prompt-worker (median of pairs)", r.Median(legSlower, "rate"), 0.03)
	r.AtMost(fmt.Sprintf("review by rules at %d writes/s: p99 higher by ≤ 2 ms (median of pairs)", writesPerSecond), r.Median(legAdded, "p99"), 2)
	r.AtLeast("async runs ≥ 1,000/s with an instant provider", r.Median(legRuns, spreadOrgs), 1000)
	few, many := r.Median(legMemory, fewQueued), r.Median(legMemory, b.manyQueued())
	r.AtMost(fmt.Sprintf("memory with %d queued ÷ with %d ≤ 1.25", b.queued, fewRuns), many/few, 1.25)
}
