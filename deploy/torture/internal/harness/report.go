package harness

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/sametick/sametick/deploy/torture/internal/follow"
	"github.com/sametick/sametick/deploy/torture/internal/judge"
	"github.com/sametick/sametick/deploy/torture/internal/ledger"
)

// Report is what a run found.
type Report struct {
	Options  Options
	Storm    time.Duration
	Ledger   ledger.Counts
	Clients  follow.Counts
	Webhooks judge.DeliveryCounts
	Prompts  judge.RunCounts
	Reviews  judge.ReviewCounts
	Faults   map[string]int
	Kills    int
	Verdicts []*judge.Verdict
	// Unclean tells of replicas that died by themselves or did not end cleanly, of faults that could
	// not be undone and of answers that no client may get.
	Unclean []string
}

// Clean tells whether nothing at all was wrong.
func (r *Report) Clean() bool { return judge.Failures(r.Verdicts) == 0 && len(r.Unclean) == 0 }

// judge reads everything and gives the verdicts. endListening ends the clients' lives.
func (r *run) judge(ctx context.Context, ledgerPath string, endListening func() error) error {
	r.say("judging")
	conn, err := r.servers.Postgres(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(ctx) }()
	facts, err := judge.LoadFacts(ctx, conn)
	if err != nil {
		return err
	}
	commits, err := judgeCommits(ctx, conn, facts, ledgerPath)
	if err != nil {
		return err
	}
	log, positions, err := judge.LoadLog(ctx, conn, facts)
	if err != nil {
		return err
	}
	redis, err := r.servers.Redis()
	if err != nil {
		return err
	}
	defer redis.Close()
	streams, err := judge.Streams(ctx, redis, facts, log)
	if err != nil {
		return err
	}
	verdicts := []*judge.Verdict{commits, positions, streams}
	if r.crowd != nil {
		clients, err := r.judgeClients(ctx, judge.NewClients(facts, log), endListening)
		if err != nil {
			return err
		}
		verdicts = append(verdicts, clients)
	}
	if r.hooks != nil {
		deliveries, err := r.judgeWebhooks(ctx, conn, facts, log)
		if err != nil {
			return err
		}
		verdicts = append(verdicts, deliveries...)
	}
	if r.prompts != nil {
		prompted, err := r.judgePrompts(ctx, conn, facts, log)
		if err != nil {
			return err
		}
		verdicts = append(verdicts, prompted...)
	}
	r.report.Verdicts = append(verdicts, r.report.Verdicts...)
	return nil
}

func judgeCommits(ctx context.Context, conn judge.Querier, facts *judge.Facts, path string) (v *judge.Verdict, err error) {
	writes, err := judge.LoadWrites(ctx, conn)
	if err != nil {
		return nil, err
	}
	audits, err := judge.LoadAudits(ctx, conn, facts)
	if err != nil {
		return nil, err
	}
	file, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open the ledger: %w", err)
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	return judge.Commits(facts, writes, audits, file)
}

func (r *run) judgeClients(ctx context.Context, clients *judge.Clients, endListening func() error) (*judge.Verdict, error) {
	if err := r.awaitClients(ctx, clients); err != nil {
		return nil, err
	}
	if err := endListening(); err != nil {
		r.report.Unclean = append(r.report.Unclean, err.Error())
	}
	r.report.Clients = r.crowd.Counts()
	r.report.Unclean = append(r.report.Unclean, r.crowd.Refused()...)
	for _, life := range r.crowd.Lives() {
		if err := clients.Judge(*life, life.ReadRecord); err != nil {
			return nil, err
		}
	}
	return clients.Verdict(), nil
}

// Print writes the report: what was done, what was found, and how to do it again.
func (r *Report) Print(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "\n%d events in %d committed transactions (%.0f events/s), %d aborted, %d of unknown outcome\n",
		r.Ledger.Events, r.Ledger.Committed, float64(r.Ledger.Events)/r.Storm.Seconds(), r.Ledger.Aborted, r.Ledger.Unknown)
	if r.Clients.Lives > 0 {
		fmt.Fprintf(&b, "%d clients in %d connections received %d events and %d id-only blocks\n",
			r.Clients.Lives, r.Clients.Reconnects, r.Clients.Delivered, r.Clients.Marks)
	}
	if w := r.Webhooks; w.Pairs > 0 {
		fmt.Fprintf(&b, "%d webhooks: %d requests were accepted again, with the same webhook-id, and %d not accepted; %d were saved as delivered by two replicas\n",
			w.Pairs, w.Repeats, w.Refused, w.Twice)
	}
	if p := r.Prompts; p.Pairs > 0 {
		fmt.Fprintf(&b, "%d prompt runs: %d calls of models, %d of them repeated; of %d attempts nobody knows the outcome; %d runs failed, %d of them for a budget\n",
			p.Pairs, p.Calls, p.Repeats, p.Unknown, p.Failed, p.OverBudget)
	}
	if v := r.Reviews; v.Created > 0 {
		fmt.Fprintf(&b, "%d reviewed writes are there, %d of them unreviewed under fail_open; %d were rejected, %d refused because nobody could review them\n",
			v.Created, v.Unreviewed, v.Rejected, v.Unavailable)
	}
	fmt.Fprintf(&b, "%d kills; faults by kind:\n", r.Kills)
	for _, name := range slices.Sorted(maps.Keys(r.Faults)) {
		fmt.Fprintf(&b, "  %5d  %s\n", r.Faults[name], name)
	}
	b.WriteByte('\n')
	if err := judge.Print(&b, r.Verdicts); err != nil {
		return err
	}
	for _, line := range r.Unclean {
		fmt.Fprintf(&b, "  unclean: %s\n", line)
	}
	verdict := "clean"
	if !r.Clean() {
		verdict = "NOT CLEAN"
	}
	fmt.Fprintf(&b, "\n%s. Again: %s\n", verdict, r.command())
	_, err := io.WriteString(w, b.String())
	return err
}

// command repeats the run.
func (r *Report) command() string {
	o := &r.Options
	return fmt.Sprintf("go run ./deploy/torture --seed %d --duration %s --relay %s --gateway %s --worker %s --prompter %s --relays %d --gateways %d --workers %d --prompters %d --writers %d --clients %d --think %s --bulk %d --pace %g",
		o.Seed, o.Duration, o.Relay, o.Gateway, o.Worker, o.Prompter, o.Relays, o.Gateways, o.Workers, o.Prompters, o.Writers, o.Clients, o.Think, o.Bulk, o.Pace)
}
