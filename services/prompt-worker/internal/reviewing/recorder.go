package reviewing

import (
	"context"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/sametick/sametick/pkg/backoff"
	"github.com/sametick/sametick/services/prompt-worker/internal/hooks"
	"github.com/sametick/sametick/services/prompt-worker/internal/prompting"
	"github.com/sametick/sametick/services/prompt-worker/internal/review"
	"github.com/sametick/sametick/services/prompt-worker/internal/runs"
	"github.com/sametick/sametick/services/prompt-worker/internal/store"
)

const (
	// maxUnsaved bounds the runs that wait to be kept; what comes then is dropped and counted.
	maxUnsaved = 10_000
	// saveAt and saveEvery: runs are kept when there are so many, or so long after the first.
	saveAt    = 500
	saveEvery = 20 * time.Millisecond
	// idsAhead are drawn ahead, so that no review waits for one.
	idsAhead = 1000
	// lastSave is how long keeping may take at the end.
	lastSave = 2 * time.Second
)

var again = backoff.Policy{Base: 50 * time.Millisecond, Cap: 2 * time.Second, Floor: 10 * time.Millisecond}

// Recorder implements review.Recorder: it keeps runs after the answer, many in a transaction. A crash may lose some: the
// verdicts stand in the pre_* events. Safe for concurrent use.
type Recorder struct {
	store  *store.Store
	prices runs.Prices
	log    *slog.Logger
	// Dropped counts runs that were not kept.
	Dropped atomic.Int64
	// Observe, if set, is told of each run.
	Observe func(*review.Run, *runs.Run)

	ids  chan int64
	runs chan *runs.Run
	ends chan store.Settlement
}

// NewRecorder makes one, which keeps nothing until its loops run.
func NewRecorder(s *store.Store, p runs.Prices, log *slog.Logger) *Recorder {
	return &Recorder{store: s, prices: p, log: log, ids: make(chan int64, idsAhead), runs: make(chan *runs.Run, maxUnsaved), ends: make(chan store.Settlement, maxUnsaved)}
}

// id gives one that was drawn ahead.
func (r *Recorder) id() (int64, bool) {
	select {
	case id := <-r.ids:
		return id, true
	default:
		return 0, false
	}
}

// settle notes what a call took. One that is dropped counts at its worst case, once its reservation has expired.
func (r *Recorder) settle(t store.Settlement) {
	select {
	case r.ends <- t:
	default:
	}
}

// Record implements review.Recorder.
func (r *Recorder) Record(in review.Run) int64 {
	run := r.run(&in)
	if r.Observe != nil {
		r.Observe(&in, run)
	}
	id, ok := r.id()
	if !ok {
		r.Dropped.Add(1)
		return 0
	}
	run.ID = id
	select {
	case r.runs <- run:
		return id
	default:
		r.Dropped.Add(1)
		return 0
	}
}

func (r *Recorder) run(in *review.Run) *runs.Run {
	out := &runs.Run{
		OrgID: in.OrgID, HookID: in.HookID, HookName: in.Verdict.HookName, Mode: hooks.ModeReview, Trigger: runs.ByReview, Status: runs.Completed,
		EventType: in.Write.EventType, AggregateType: in.Write.AggregateType, AggregateID: in.Write.AggregateID, TemplateVersion: in.Version,
		ProviderID: in.ProviderID, Model: in.Model, Input: in.Input, Output: in.Output, Usage: in.Usage, Latency: in.Latency, Reason: in.Verdict.Reason,
		RuleIDs: in.Verdict.RuleIDs, Suspected: in.Verdict.InjectionSuspected, Cached: in.Cached, Cause: in.Cause, Error: in.Error,
		CreatedAt: in.StartedAt, FinishedAt: in.StartedAt.Add(in.Latency), Traceparent: in.Traceparent,
	}
	out.Cost, _ = r.prices.Cost(in.Model, in.Usage)
	if len(in.Input) > 0 {
		out.Attempts = 1
	}
	switch in.Verdict.Verdict {
	case prompting.Approve, prompting.Reject:
		out.Verdict = in.Verdict.Verdict
	case review.Superseded:
		out.Status = runs.Superseded
	default:
		out.Status = runs.Failed
	}
	return out
}

// Draw draws ids ahead until take ends. It is a lifecycle.RunFunc.
func (r *Recorder) Draw(take, _ context.Context) error {
	for failures := 0; take.Err() == nil; {
		list, err := r.store.RunIDs(take, idsAhead/4)
		if err != nil {
			failures++
			r.pause(take, "ids of runs cannot be drawn", err, failures)
			continue
		}
		failures = 0
		for _, id := range list {
			select {
			case r.ids <- id:
			case <-take.Done():
				return nil
			}
		}
	}
	return nil
}

// Keep keeps runs until take ends and all are kept. It is a lifecycle.RunFunc.
func (r *Recorder) Keep(take, work context.Context) error {
	b := &batch{}
	var due <-chan time.Time // nil while there is nothing to keep: who waits costs nothing
	for {
		if due == nil && len(b.runs)+len(b.ends) > 0 {
			due = time.After(saveEvery)
		}
		select {
		case run := <-r.runs:
			b.runs = append(b.runs, run)
		case t := <-r.ends:
			b.ends = append(b.ends, t)
		case <-due:
			due = nil
			r.save(work, b)
		case <-take.Done():
			r.last(work, b)
			return nil
		}
		if len(b.runs)+len(b.ends) >= saveAt {
			r.save(work, b)
		}
	}
}

type batch struct {
	runs []*runs.Run
	ends []store.Settlement
}

// save keeps a batch, if it takes the database as long as ctx goes on: meanwhile the channels fill.
func (r *Recorder) save(ctx context.Context, b *batch) {
	for failures := 1; len(b.runs)+len(b.ends) > 0; failures++ {
		err := r.store.KeepReviews(ctx, b.runs, b.ends)
		if err == nil {
			b.runs, b.ends = b.runs[:0], b.ends[:0]
			return
		}
		if ctx.Err() != nil {
			return
		}
		r.pause(ctx, "runs of reviews cannot be kept", err, failures)
	}
}

// last keeps what is left.
func (r *Recorder) last(work context.Context, b *batch) {
	for more := true; more; {
		select {
		case run := <-r.runs:
			b.runs = append(b.runs, run)
		case t := <-r.ends:
			b.ends = append(b.ends, t)
		default:
			more = false
		}
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(work), lastSave)
	defer cancel()
	r.save(ctx, b)
	r.Dropped.Add(int64(len(b.runs)))
}

func (r *Recorder) pause(ctx context.Context, text string, err error, failures int) {
	if ctx.Err() != nil {
		return
	}
	r.log.WarnContext(ctx, text, slog.Any("error", err))
	t := time.NewTimer(again.Next(failures))
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
