// Command api measures GET /api/events over a large history: every filter, the first page, page 1,000 and a
// page by cursor, each with its exact total, beside a plain SELECT of the same rows; or, when asked to, the export of
// many records, or GET /api/audit over many entries. See ../README.md.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/sametick/sametick/deploy/bench/internal/report"
	"github.com/sametick/sametick/deploy/bench/internal/rig"
)

type options struct {
	events int
	// export and audit, when not 0, are measured instead of events.
	export, audit int

	asks  int
	out   string
	check bool
}

func main() { os.Exit(status()) }

// status is the exit code: main itself could defer nothing.
func status() int {
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer cancel()
	if err := run(ctx, os.Args[1:], os.Stdout, os.Stderr); err != nil && !errors.Is(err, flag.ErrHelp) {
		_, _ = fmt.Fprintln(os.Stderr, "bench-api:", err)
		return 1
	}
	return 0
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	var opt options
	long := false
	f := flag.NewFlagSet("bench-api", flag.ContinueOnError)
	f.SetOutput(stderr)
	f.IntVar(&opt.events, "events", 1_000_000, "events in the history")
	f.BoolVar(&long, "long", false, "the long form: 10 million events")
	f.IntVar(&opt.export, "export", 0, "measure the export of so many records instead")
	f.IntVar(&opt.audit, "audit", 0, "measure GET /api/audit over so many entries instead")
	f.IntVar(&opt.asks, "asks", 60, "requests of each cell")
	f.StringVar(&opt.out, "out", "out/bench", "where the results go")
	f.BoolVar(&opt.check, "check", false, "fail when a target is missed")
	if err := f.Parse(args); err != nil {
		return err
	}
	if long {
		opt.events = 10_000_000
	}
	if opt.events < 100_000 || opt.asks < 20 || opt.export < 0 || opt.audit < 0 || opt.export > 0 && opt.audit > 0 {
		return errors.New("at least 100,000 events and 20 requests; one of --export and --audit")
	}
	b, err := build(ctx, opt, stderr)
	if err != nil {
		return err
	}
	measure, name := b.measure, "api"
	switch {
	case opt.export > 0:
		measure, name = b.exports, "api-export"
	case opt.audit > 0:
		measure, name = b.auditList, "api-audit"
	}
	err = errors.Join(measure(ctx), b.close())
	if err = errors.Join(err, b.report.Print(stdout)); err != nil {
		return err
	}
	files, err := b.report.Save(opt.out, name)
	if err != nil {
		return err
	}
	_, _ = fmt.Fprintln(stdout, "\nwrote", strings.Join(files, " and "))
	if missed := b.report.Missed(); opt.check && missed > 0 {
		return fmt.Errorf("%d targets missed", missed)
	}
	return nil
}

// bench is one run.
type bench struct {
	options
	rig     *rig.Rig
	report  *report.Report
	log     io.Writer
	history *history      // of events
	pool    *pgxpool.Pool // of what is measured instead
	gateway *rig.Process
	tokens  *rig.Tokens
}

func build(ctx context.Context, opt options, log io.Writer) (_ *bench, err error) {
	r, err := rig.Start(ctx, log, "outbox-relay", "api-gateway")
	if err != nil {
		return nil, err
	}
	b := &bench{options: opt, rig: r, log: log}
	defer func() {
		if err != nil {
			err = errors.Join(err, b.close())
		}
	}()
	facts, err := r.Facts(ctx)
	if err != nil {
		return nil, err
	}
	b.report = &report.Report{Title: "Sametick API bench", At: time.Now().UTC(), Facts: append(facts, b.subject())}
	admin, err := r.Database(ctx, "events_api", "outbox-relay", "api-gateway")
	if err != nil {
		return nil, err
	}
	if err := b.fill(ctx, admin); err != nil {
		return nil, err
	}
	database, err := r.As(ctx, admin, "sametick_api")
	if err != nil {
		return nil, err
	}
	if b.tokens, err = rig.NewTokens(); err != nil {
		return nil, err
	}
	if b.gateway, err = r.Service("api-gateway", "DATABASE_URL="+database, "TOKEN_SIGNING_KEY="+b.tokens.SigningKey,
		"TOKEN_PUBLIC_KEYS="+b.tokens.PublicKeys); err != nil {
		return nil, err
	}
	return b, b.gateway.Ready(ctx)
}

// subject is what the database holds.
func (b *bench) subject() report.Fact {
	switch {
	case b.export > 0:
		return report.Fact{Name: "records", Value: fmt.Sprintf("%d of one type and %d of another", b.export, few)}
	case b.audit > 0:
		return report.Fact{Name: "audit log", Value: fmt.Sprintf("%d entries of %d organisations, half of them organisation 1's", b.audit, auditOrgs)}
	default:
		return report.Fact{Name: "history", Value: fmt.Sprintf("%d events of %d organisations, half of them organisation 1's", b.events, orgs)}
	}
}

// fill makes what is asked for.
func (b *bench) fill(ctx context.Context, url string) (err error) {
	switch {
	case b.export > 0:
		return b.fillRecords(ctx, url, b.export)
	case b.audit > 0:
		return b.fillAudit(ctx, url, b.audit)
	default:
		b.history, err = load(ctx, url, b.events, b.log)
		return err
	}
}

func (b *bench) close() error {
	var err error
	if b.gateway != nil {
		err = b.gateway.Stop()
	}
	if b.history != nil {
		b.history.pool.Close()
	}
	if b.pool != nil {
		b.pool.Close()
	}
	return errors.Join(err, b.rig.Close())
}
