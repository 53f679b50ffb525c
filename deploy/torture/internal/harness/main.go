package harness

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Main is the command: exit code 0 when the run was clean, 1 when it was not, 2 when there was no run.
func Main(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	fail := func(err error) int {
		_, _ = fmt.Fprintln(stderr, "torture:", err) // nobody to tell when the output is gone
		return 2
	}
	o, keep, err := parse(args, stderr)
	if errors.Is(err, flag.ErrHelp) {
		return 0
	}
	if err != nil {
		return fail(err)
	}
	o.Out = stdout
	if o.Root, err = workspace(ctx); err != nil {
		return fail(err)
	}
	report, err := Run(ctx, o)
	if err != nil {
		return fail(fmt.Errorf("%w (files of the run: %s)", err, o.Dir))
	}
	if err := report.Print(stdout); err != nil {
		return fail(err)
	}
	if !report.Clean() {
		_, _ = fmt.Fprintln(stdout, "Files of the run (chaos.log, ledger, records, logs):", o.Dir)
		return 1
	}
	if !keep {
		if err := os.RemoveAll(o.Dir); err != nil {
			return fail(err)
		}
	}
	return 0
}

func parse(args []string, stderr io.Writer) (o Options, keep bool, err error) {
	o = Defaults()
	flags := flag.NewFlagSet("torture", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.DurationVar(&o.Duration, "duration", o.Duration, "how long the storm lasts")
	flags.Uint64Var(&o.Seed, "seed", 0, "repeats a run; 0 draws one")
	flags.StringVar(&o.Relay, "relay", o.Relay, "real, or a double for the judge: right, wrong-id, wrong-xmin, wrong-direct")
	flags.StringVar(&o.Gateway, "gateway", o.Gateway, "real, or right: a double that knows LogService only")
	flags.IntVar(&o.Relays, "relays", o.Relays, "replicas of the relay, beside one that comes and goes")
	flags.IntVar(&o.Gateways, "gateways", o.Gateways, "replicas of the sse-gateway; 0: none, and no clients")
	flags.StringVar(&o.Worker, "worker", o.Worker, "real, or a double of webhook-worker: right, wrong-cursor")
	flags.IntVar(&o.Workers, "workers", o.Workers, "replicas of webhook-worker; 0: none, and no receivers")
	flags.StringVar(&o.Prompter, "prompter", o.Prompter, "real, or a double of prompt-worker: right, wrong-cursor, wrong-mark")
	flags.IntVar(&o.Prompters, "prompters", o.Prompters, "replicas of prompt-worker; 0: none, and no reviewed writes")
	flags.IntVar(&o.Writers, "writers", o.Writers, "concurrent writers")
	flags.IntVar(&o.Clients, "clients", o.Clients, "concurrent SSE clients")
	flags.DurationVar(&o.Think, "think", o.Think, "mean pause of a writer between two transactions")
	flags.IntVar(&o.Bulk, "bulk", o.Bulk, "events in a bulk transaction")
	flags.Float64Var(&o.Pace, "pace", o.Pace, "stretches the pauses between faults; 0: no faults")
	flags.StringVar(&o.Dir, "dir", "", "directory for all files of the run, kept afterwards (default: a temporary one, kept when something is wrong)")
	if err := flags.Parse(args); err != nil {
		return o, false, err
	}
	if flags.NArg() > 0 {
		return o, false, fmt.Errorf("unknown argument %q", flags.Arg(0))
	}
	if o.Seed == 0 {
		o.Seed = uint64(rand.Uint32())
	}
	keep = o.Dir != ""
	if !keep {
		o.Dir, err = os.MkdirTemp("", "sametick-torture-")
	} else {
		o.Dir, err = filepath.Abs(o.Dir)
	}
	return o, keep, err
}

// workspace is where go.work lies.
func workspace(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, "go", "env", "GOWORK").Output()
	if err != nil {
		return "", fmt.Errorf("look for the workspace: %w", err)
	}
	path := strings.TrimSpace(string(out))
	if path == "" || path == "off" {
		return "", errors.New("no go.work here: run it inside the repository")
	}
	return filepath.Dir(path), nil
}
