// Command relay measures outbox-relay: how fast it drains a backlog beside a bare loop, Watermill-SQL
// and River, how long an event takes from commit to Redis and to an SSE client, and what a large
// backlog, an open transaction and idleness cost. See ../README.md.
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

	"github.com/sametick/sametick/deploy/bench/internal/contender"
	"github.com/sametick/sametick/deploy/bench/internal/report"
	"github.com/sametick/sametick/deploy/bench/internal/rig"
)

// options of a run.
type options struct {
	rounds  int
	events  int
	short   bool
	long    bool
	legs    []string
	only    []string
	out     string
	check   bool
	seconds int
	profile int
}

// legs in the order they run.
func allLegs() []string { return []string{"drain", "latency", "sse", "open", "backlog", "idle"} }

func main() { os.Exit(status()) }

// status is the exit code: main itself could defer nothing.
func status() int {
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer cancel()
	if err := run(ctx, os.Args[1:], os.Stdout, os.Stderr); err != nil && !errors.Is(err, flag.ErrHelp) {
		_, _ = fmt.Fprintln(os.Stderr, "bench-relay:", err)
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
	if closeErr := b.rig.Close(); err == nil {
		err = closeErr
	}
	// What was measured before a failure is shown too.
	b.judge()
	if printErr := b.report.Print(stdout); err == nil {
		err = printErr
	}
	if err != nil {
		return err
	}
	files, err := b.report.Save(opt.out, "relay")
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
	var legs, only string
	f := flag.NewFlagSet("bench-relay", flag.ContinueOnError)
	f.SetOutput(stderr)
	f.IntVar(&opt.rounds, "rounds", 5, "interleaved rounds of each leg")
	f.IntVar(&opt.events, "events", 200_000, "committed events that each drain begins with")
	f.IntVar(&opt.seconds, "seconds", 20, "length of each latency measurement, in seconds")
	f.BoolVar(&opt.short, "short", false, "a few minutes: 50,000 events, 5 s of latency, no backlog of a million")
	f.BoolVar(&opt.long, "long", false, "the long form: also a backlog of 10 million and a transaction open for 10 minutes")
	f.StringVar(&legs, "legs", strings.Join(allLegs(), ","), "which measurements to take")
	f.StringVar(&only, "only", "", "only these contenders of the drain, by comma")
	f.StringVar(&opt.out, "out", "out/bench", "where relay.json and relay.svg go")
	f.IntVar(&opt.profile, "profile", 0, "take a CPU profile of outbox-relay for so many seconds of each drain, and when idle (the last is kept)")
	f.BoolVar(&opt.check, "check", false, "fail when a target is missed")
	if err := f.Parse(args); err != nil {
		return opt, err
	}
	given := func(name string) (set bool) {
		f.Visit(func(g *flag.Flag) { set = set || g.Name == name })
		return set
	}
	opt.legs = strings.Split(legs, ",")
	for _, l := range opt.legs {
		if !slices.Contains(allLegs(), l) {
			return opt, fmt.Errorf("--legs: %q is none of %s", l, strings.Join(allLegs(), ", "))
		}
	}
	if only != "" {
		opt.only = strings.Split(only, ",")
	}
	if opt.short {
		if !given("events") {
			opt.events = 50_000
		}
		if !given("seconds") {
			opt.seconds = 5
		}
		if !given("legs") {
			opt.legs = slices.DeleteFunc(opt.legs, func(l string) bool { return l == "backlog" })
		}
	}
	if opt.rounds < 1 || opt.events < 1000 || opt.seconds < 1 {
		return opt, errors.New("at least 1 round, 1000 events and 1 second")
	}
	return opt, nil
}

// bench is one run.
type bench struct {
	options
	rig    *rig.Rig
	report *report.Report
	log    io.Writer
}

func build(ctx context.Context, opt options, log io.Writer) (*bench, error) {
	services := []string{"outbox-relay"}
	if slices.Contains(opt.legs, "sse") {
		services = append(services, "sse-gateway")
	}
	r, err := rig.Start(ctx, log, services...)
	if err != nil {
		return nil, err
	}
	facts, err := r.Facts(ctx)
	if err != nil {
		return nil, errors.Join(err, r.Close())
	}
	return &bench{options: opt, rig: r, log: log, report: &report.Report{
		Title: "Sametick relay bench", At: time.Now().UTC(), Facts: facts,
	}}, nil
}

// measure runs the legs, each in a database of its own.
func (b *bench) measure(ctx context.Context) error {
	legs := map[string]func(context.Context) error{
		"drain": b.drains, "latency": b.latency, "sse": b.sse, "open": b.openTransaction, "backlog": b.backlogs, "idle": b.idle,
	}
	for _, name := range allLegs() {
		if !slices.Contains(b.legs, name) {
			continue
		}
		_, _ = fmt.Fprintf(b.log, "%s %s\n", time.Now().Format(time.TimeOnly), name)
		if err := legs[name](ctx); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	b.report.Facts = append(b.report.Facts, report.Fact{Name: "load after", Value: rig.Load()})
	return nil
}

// judge holds the medians against the targets.
func (b *bench) judge() {
	r := b.report
	ours := r.Median(legDrain, contender.Ours)
	r.AtLeast("drain: ours ÷ bare loop ≥ 0.85", ours/r.Median(legDrain, contender.Bare), 0.85)
	r.AtLeast("drain: ours ÷ Watermill-SQL ≥ 8", ours/r.Median(legDrain, contender.Watermill), 8)
	r.AtLeast("drain: ours ÷ River ≥ 8", ours/r.Median(legDrain, contender.River), 8)
	r.AtMost("commit → Redis, with Wake, p50 ≤ 3 ms", r.Median(legLatency, "with Wake, p50"), 3)
	r.AtMost("commit → Redis, with Wake, p99 ≤ 10 ms", r.Median(legLatency, "with Wake, p99"), 10)
	r.AtMost("commit → SSE client, p50 ≤ 5 ms", r.Median(legSSE, "with Wake, p50"), 5)
	r.AtMost("commit → SSE client, p99 ≤ 20 ms", r.Median(legSSE, "with Wake, p99"), 20)
	r.AtLeast("open transaction: drain ÷ without ≥ 0.9", r.Median(legOpenRate, "open")/r.Median(legOpenRate, "none"), 0.9)
	r.AtMost("open transaction: p50 ÷ without ≤ 1.1", r.Median(legOpen, "open, p50")/r.Median(legOpen, "none, p50"), 1.1)
	r.AtMost("open transaction: p99 ÷ without ≤ 1.1", r.Median(legOpen, "open, p99")/r.Median(legOpen, "none, p99"), 1.1)
	r.AtLeast("backlog of 1M ÷ small backlog ≥ 0.9", r.Median(legBacklog, "1000000")/r.Median(legBacklog, smallBacklog), 0.9)
	r.AtLeast("backlog of 10M ÷ 1M ≥ 0.9", r.Median(legBacklog, "10000000")/r.Median(legBacklog, "1000000"), 0.9)
	r.AtMost("idle: relay ≤ 1 % of a core", r.Median(legIdle, contender.Ours), 1)
}
