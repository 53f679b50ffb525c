// Package harness runs a torture from an empty directory to a verdict: servers, the suite's real
// binaries (or a double), writers, listeners, chaos; then healing, draining and the judge.
package harness

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/sametick/sametick/deploy/torture/internal/double"
	"github.com/sametick/sametick/pkg/event"
)

// Real is the name of the service itself, which is under test.
const Real = "real"

// Right is the name of the doubles that are right.
const Right = "right"

// Options of a run.
type Options struct {
	// Duration of the storm; what comes after it (healing, draining, judging) takes a minute or so.
	Duration time.Duration
	// Seed repeats a run: the same faults in the same order, the same writers, the same clients.
	Seed uint64
	// Relay is Real, or the name of a double. Gateway is Real or Right, the double; there is none beside
	// a double of the relay, which has no LogService.
	Relay, Gateway string
	// Worker is Real, or the name of a double. Beside a double of the relay only a double works.
	Worker string
	// Prompter is Real, or the name of a double. Beside a double of the relay only a double works.
	Prompter string
	// Relays, Gateways, Workers and Prompters are how many replicas run.
	Relays, Gateways, Workers, Prompters int
	// Writers and Clients are how many work at a time; Think is a writer's mean pause.
	Writers, Clients int
	Think            time.Duration
	// Bulk is the greatest number of events in a transaction, roughly.
	Bulk int
	// Pace stretches the pauses between faults; 0 means no chaos at all.
	Pace float64
	// Root is the workspace, for building; Dir takes all files of the run.
	Root, Dir string
	// Out gets the progress and the report.
	Out io.Writer
}

// Defaults are those of the command line.
func Defaults() Options {
	return Options{
		Duration: 2 * time.Minute, Relay: Real, Gateway: Real, Worker: Real, Prompter: Real, Relays: 2, Gateways: 2, Workers: 3, Prompters: 3, Writers: 12, Clients: 18,
		Think: 40 * time.Millisecond, Bulk: 3000, Pace: 1,
	}
}

// check finds what cannot work.
func (o *Options) check() error {
	var all []error
	if o.Relay != Real && !slices.Contains(double.Kinds(), o.Relay) {
		all = append(all, fmt.Errorf("--relay %s: must be %s or %s", o.Relay, Real, strings.Join(double.Kinds(), ", ")))
	}
	if o.Gateway != Real && o.Gateway != Right {
		all = append(all, fmt.Errorf("--gateway %s: must be %s or %s", o.Gateway, Real, Right))
	}
	if o.Worker != Real && !slices.Contains(double.WorkerKinds(), o.Worker) {
		all = append(all, fmt.Errorf("--worker %s: must be %s or %s", o.Worker, Real, strings.Join(double.WorkerKinds(), ", ")))
	}
	if o.Prompter != Real && !slices.Contains(double.PrompterKinds(), o.Prompter) {
		all = append(all, fmt.Errorf("--prompter %s: must be %s or %s", o.Prompter, Real, strings.Join(double.PrompterKinds(), ", ")))
	}
	for name, n := range map[string]int{"--relays": o.Relays, "--writers": o.Writers, "--clients": o.Clients, "--bulk": o.Bulk} {
		if n < 1 {
			all = append(all, fmt.Errorf("%s %d: must be at least 1", name, n))
		}
	}
	if o.Gateways < 0 || o.Workers < 0 || o.Prompters < 0 {
		all = append(all, errors.New("--gateways, --workers and --prompters must not be negative"))
	}
	if o.Duration <= 0 || o.Think < 0 || o.Pace < 0 {
		all = append(all, errors.New("--duration must be positive, --think and --pace not negative"))
	}
	return errors.Join(all...)
}

// webhooks tells whether there are workers: a real one needs a real relay's LogService.
func (o *Options) webhooks() bool { return o.Workers > 0 && (o.Relay == Real || o.Worker != Real) }

// prompts tells whether there are prompters, under the same condition.
func (o *Options) prompts() bool { return o.Prompters > 0 && (o.Relay == Real || o.Prompter != Real) }

// reviews tells whether writes are reviewed, which doubles do not do.
func (o *Options) reviews() bool { return o.prompts() && o.Prompter == Real }

// hot is how many entities of each type and organisation all writers contend for.
const hot = 12

// orgs are four organisations and two more of the first one's shard.
func orgs() []int64 {
	list := []int64{1, 2, 3, 4}
	for org := int64(5); len(list) < 6; org++ {
		if event.ShardOf(org) == event.ShardOf(1) {
			list = append(list, org)
		}
	}
	return list
}

func types() []string { return []string{"task", "employee", "team"} }
