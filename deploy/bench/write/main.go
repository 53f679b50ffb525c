// Command write measures the write path: RecordService.CreateRecord over gRPC on loopback against the
// real api-gateway (one row, two events, one audit entry, one commit), beside pgbench running the very
// statements that api-gateway sends, with the same durability. See ../README.md.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/sametick/sametick/deploy/bench/internal/report"
	"github.com/sametick/sametick/deploy/bench/internal/rig"
)

type options struct {
	rounds  int
	seconds int
	clients []int
	out     string
	check   bool
	profile bool
	costs   bool
}

func main() { os.Exit(status()) }

// status is the exit code: main itself could defer nothing.
func status() int {
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer cancel()
	if err := run(ctx, os.Args[1:], os.Stdout, os.Stderr); err != nil && !errors.Is(err, flag.ErrHelp) {
		_, _ = fmt.Fprintln(os.Stderr, "bench-write:", err)
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
	err = errors.Join(b.measure(ctx), b.close())
	// What was measured before a failure is shown too.
	b.judge()
	if err = errors.Join(err, b.report.Print(stdout)); err != nil {
		return err
	}
	files, err := b.report.Save(opt.out, "write")
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
	var clients string
	var short bool
	f := flag.NewFlagSet("bench-write", flag.ContinueOnError)
	f.SetOutput(stderr)
	f.IntVar(&opt.rounds, "rounds", 5, "interleaved rounds")
	f.IntVar(&opt.seconds, "seconds", 8, "length of each measurement, in seconds")
	f.BoolVar(&short, "short", false, "2 s a measurement, unless --seconds says otherwise")
	f.StringVar(&clients, "clients", "1,8,32", "how many clients write at a time")
	f.StringVar(&opt.out, "out", "out/bench", "where write.json and write.svg go")
	f.BoolVar(&opt.profile, "profile", false, "take a CPU profile of api-gateway in each of its measurements (last one is kept)")
	f.BoolVar(&opt.costs, "costs", false, "CreateRecord as it is, without rate limits, and without the indexes that only the API reads by")
	f.BoolVar(&opt.check, "check", false, "fail when a target is missed")
	if err := f.Parse(args); err != nil {
		return opt, err
	}
	given := false
	f.Visit(func(g *flag.Flag) { given = given || g.Name == "seconds" })
	if short && !given {
		opt.seconds = 2
	}
	for c := range strings.SplitSeq(clients, ",") {
		n, err := strconv.Atoi(c)
		if err != nil || n < 1 || n > 250 {
			return opt, fmt.Errorf("--clients: %q is no number from 1 to 250", c)
		}
		opt.clients = append(opt.clients, n)
	}
	if opt.rounds < 1 || opt.seconds < 1 {
		return opt, errors.New("at least 1 round and 1 second")
	}
	return opt, nil
}

// bench is one run.
type bench struct {
	options
	rig      *rig.Rig
	report   *report.Report
	log      io.Writer
	database string // as the role that api-gateway has
	tokens   *rig.Tokens
	gateway  *rig.Process
	pgbench  *pgbench
	variants []variant
}

// contenders of each round: how many transactions a second for so many clients.
func (b *bench) contenders() []contender {
	if b.costs {
		return b.compared()
	}
	return []contender{
		{"CreateRecord", b.gateway, b.create},
		{"pgbench, pipelined", nil, func(ctx context.Context, n int) (float64, error) { return b.pgbench.run(ctx, n, pipelined) }},
		{"pgbench, in turn", nil, func(ctx context.Context, n int) (float64, error) { return b.pgbench.run(ctx, n, inTurn) }},
	}
}

type contender struct {
	name    string
	gateway *rig.Process // nil: it needs none
	run     func(ctx context.Context, clients int) (float64, error)
}

func (b *bench) measure(ctx context.Context) error {
	for round := range b.rounds + 1 { // the first warms up and is thrown away
		for _, clients := range b.clients {
			list := b.contenders()
			for i := range list {
				c := list[(i+round)%len(list)]
				if err := b.rig.Settle(ctx); err != nil {
					return err
				}
				rate, err := b.timed(ctx, c, clients, round > 0)
				if err != nil {
					return fmt.Errorf("%s with %d clients: %w", c.name, clients, err)
				}
				_, _ = fmt.Fprintf(b.log, "%s round %d, %d clients, %s: %.0f/s\n", time.Now().Format(time.TimeOnly), round, clients, c.name, rate)
				if round > 0 {
					b.report.Add(leg(clients), c.name, "records/s", rate)
				}
			}
		}
	}
	b.report.Facts = append(b.report.Facts, report.Fact{Name: "load after", Value: rig.Load()})
	return b.gateway.Failure()
}

func leg(clients int) string { return fmt.Sprintf("record create, %d clients", clients) }

// judge holds api-gateway against the stronger pgbench, the one that pipelines as api-gateway does.
func (b *bench) judge() {
	for _, n := range b.clients {
		b.report.AtLeast(fmt.Sprintf("%d clients: CreateRecord ÷ pgbench ≥ 0.6", n),
			b.report.Median(leg(n), "CreateRecord")/b.report.Median(leg(n), "pgbench, pipelined"), 0.6)
	}
}
