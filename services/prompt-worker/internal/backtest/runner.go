package backtest

import (
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/sametick/sametick/pkg/condition"
	"github.com/sametick/sametick/pkg/errs"
	"github.com/sametick/sametick/pkg/event"
	"github.com/sametick/sametick/services/prompt-worker/internal/hooks"
	"github.com/sametick/sametick/services/prompt-worker/internal/prompting"
	"github.com/sametick/sametick/services/prompt-worker/internal/review"
	"github.com/sametick/sametick/services/prompt-worker/internal/runs"
)

// Queue is the tables of backtests. Safe for concurrent use.
type Queue interface {
	// Claim gives a backtest that waits, or whose holder's lease is over, and takes it for a minute; nil for none.
	Claim(ctx context.Context, holder string) (*Job, error)
	// Window gives past events of a job's patterns before an id, newest first, of so many of all events, and how far it looked;
	// 0 for to the end. It prolongs the lease. Errors: ErrLost.
	Window(ctx context.Context, j *Job, before int64) (list []event.Event, next int64, err error)
	// Select keeps the events of a job, newest first. Errors: ErrLost.
	Select(ctx context.Context, j *Job, events []int64) error
	// Waiting gives the cases of a job that are not done, newest first. Errors: ErrLost.
	Waiting(ctx context.Context, j *Job, limit int) ([]Case, error)
	// Load gives what a case needs. Errors: reason EVENT_NOT_FOUND.
	Load(ctx context.Context, j *Job, c Case) (Loaded, error)
	// Begin marks an attempt as begun and holds its worst case, of the job's budget and the organisation's.
	Begin(ctx context.Context, j *Job, b Beginning) (Answer, error)
	// Finish keeps a case's result with its run, and settles what its attempt took; once, and only if nobody else has taken
	// the case over.
	Finish(ctx context.Context, j *Job, f Finishing) error
	// End ends a job. One that was cancelled stays so.
	End(ctx context.Context, j *Job, status, text, exhausted string) error
	// Release lets another worker go on at once.
	Release(ctx context.Context, j *Job) error
}

// ErrLost is that a job is not its holder's any more: it was cancelled, or taken over.
var ErrLost = errors.New("backtest: the job is not this worker's any more")

// Loaded is what a case needs.
type Loaded struct {
	Setup *hooks.Setup
	Event event.Event
	// Baseline is the run of then; nil where none is kept.
	Baseline *runs.Run
}

// Beginning is the wish to make an attempt, which is its worker's until then.
type Beginning struct {
	Case
	Worst prompting.Amount
	Until time.Time
}

// Answer to a Beginning. Refused names whose budget does not cover it: "backtest" or "organisation".
type Answer struct {
	Begun   bool
	Refused string
}

// Finishing is a case that is done. Took is nil where no model was asked; Run where there is none.
type Finishing struct {
	Case
	Result *Result
	Run    *runs.Run
	Took   *prompting.Amount
}

// Reviews judges writes of the past.
type Reviews interface {
	TryBy(ctx context.Context, s *hooks.Setup, actorID *int64, w review.Write, by review.Runner) (*runs.Run, error)
}

// Runner works backtests off. Safe for concurrent use.
type Runner struct {
	Queue    Queue
	Executor *runs.Executor
	Reviews  Reviews
	Log      *slog.Logger
	Holder   string
	// AtOnce are jobs, each of which asks for 4 events at once; 0 is 2.
	AtOnce int
	// Poll is how often it looks for jobs; 0 is a second.
	Poll time.Duration
	// Stub makes the tools of an attempt; nil is those that call none. For the control of its test alone.
	Stub func(t runs.Tools, calls []runs.ToolCall) runs.Tools
}

const (
	parallel = 4
	// maxAttempts is how often an event is tried whose outcome nobody knows.
	maxAttempts = 3
	lastWord    = 2 * time.Second
)

// Run works off jobs until take ends: what is under way is finished, and the job left to another. It is a
// lifecycle.RunFunc.
func (r *Runner) Run(take, work context.Context) error {
	me := *r
	if me.Stub == nil {
		me.Stub = func(t runs.Tools, calls []runs.ToolCall) runs.Tools { return recorded{t.Granted, calls} }
	}
	if me.Poll <= 0 {
		me.Poll = time.Second
	}
	if me.AtOnce <= 0 {
		me.AtOnce = 2
	}
	var all sync.WaitGroup
	for range me.AtOnce {
		all.Go(func() { me.loop(take, work) })
	}
	all.Wait()
	return nil
}

func (r *Runner) loop(take, work context.Context) {
	tick := time.NewTicker(r.Poll)
	defer tick.Stop()
	for take.Err() == nil {
		// A name of its own for each claim: nobody of the same replica is taken for who let the lease go.
		j, err := r.Queue.Claim(take, r.Holder+" "+rand.Text())
		if j != nil {
			err = r.work(take, work, j)
		}
		if err != nil && take.Err() == nil && !errors.Is(err, ErrLost) {
			r.Log.WarnContext(take, "a backtest cannot go on", slog.Any("error", err))
		}
		if j != nil && err == nil {
			continue
		}
		select {
		case <-tick.C:
		case <-take.Done():
		}
	}
}

// work brings a job to its end, or as far as it may. Its error is the database's, or ErrLost.
func (r *Runner) work(take, work context.Context, j *Job) (err error) {
	defer func() {
		if work.Err() == nil && !errors.Is(err, ErrLost) {
			ctx, cancel := context.WithTimeout(context.WithoutCancel(take), lastWord)
			defer cancel()
			err = errors.Join(err, r.Queue.Release(ctx, j))
		}
	}()
	if !j.Selected {
		if err := r.find(take, j); err != nil || take.Err() != nil {
			return err
		}
	}
	for width := parallel; take.Err() == nil; {
		list, err := r.Queue.Waiting(take, j, width)
		if err != nil {
			return err
		}
		if len(list) == 0 {
			return r.Queue.End(take, j, Completed, "", "")
		}
		refused, gone, err := r.batch(work, j, list)
		switch {
		case err != nil || work.Err() != nil:
			return err
		case gone != "":
			return r.Queue.End(take, j, Failed, gone, "")
		case refused != "" && len(list) == 1:
			return r.Queue.End(take, j, Completed, "", refused)
		case refused != "": // what others hold at their worst case may turn out to be free
			width = 1
		}
	}
	return nil
}

// batch works at cases at once. refused is whose budget did not cover one; gone why none can be worked at.
func (r *Runner) batch(work context.Context, j *Job, list []Case) (refused, gone string, err error) {
	attempts := make([]*attempt, len(list))
	failed := make([]error, len(list))
	var all sync.WaitGroup
	for i, c := range list {
		attempts[i] = &attempt{Runner: r, job: j, c: c}
		all.Go(func() { failed[i] = r.one(work, attempts[i]) })
	}
	all.Wait()
	for i, a := range attempts {
		if a.answer.Refused != "" {
			refused = a.answer.Refused
		}
		if s := a.loaded.Setup; s != nil && s.ArchivedAt != nil {
			gone = "the hook was archived"
		}
		err = errors.Join(err, failed[i])
	}
	return refused, gone, err
}

// one works at a case, to its result or to nothing.
func (r *Runner) one(work context.Context, a *attempt) (err error) {
	if a.c.Attempts >= maxAttempts {
		return r.finish(work, a, &runs.Run{Status: runs.Failed, Cause: prompting.CauseUnavailable, Error: "no attempt has come to an end"}, false)
	}
	a.loaded, err = r.Queue.Load(work, a.job, a.c)
	if errs.KindOf(err) == errs.NotFound {
		return r.Queue.Finish(work, a.job, Finishing{Case: a.c, Result: &Result{Baseline: NoBaseline, Verdict: Error, Cause: CauseGone, Reason: "the event is not kept any more"}})
	}
	if err != nil || a.loaded.Setup.ArchivedAt != nil {
		return err
	}
	run, err := a.run(work)
	switch {
	case work.Err() != nil: // killed: what came of it nobody is told
		return work.Err()
	case a.err != nil:
		return a.err
	case a.answer.Refused != "":
		return nil
	case run == nil:
		text := "the hook does not match the event"
		if err != nil {
			text = prompting.Clean(err.Error(), prompting.MaxReason)
		}
		return r.finish(work, a, &runs.Run{Status: runs.Failed, Cause: prompting.CauseCondition, Error: text}, false)
	}
	return r.finish(work, a, run, true)
}

func (r *Runner) finish(work context.Context, a *attempt, run *runs.Run, keep bool) error {
	f := Finishing{Case: a.c, Result: a.result(run), Took: a.took}
	if a.answer.Begun {
		f.Attempts++
	} else {
		f.Took = nil
	}
	if keep {
		f.Run = run
	}
	return r.Queue.Finish(work, a.job, f)
}

// find selects the newest events that the hook matches.
func (r *Runner) find(take context.Context, j *Job) error {
	rules, err := r.Executor.Compiler.Rules(&hooks.Hook{OrgID: j.OrgID, ID: j.HookID, Version: j.HookVersion, Settings: j.Settings})
	if err != nil {
		return r.Queue.End(take, j, Failed, prompting.Clean(err.Error(), prompting.MaxReason), "")
	}
	var found []int64
	for before := int64(0); len(found) < j.Request.Events && take.Err() == nil; {
		list, next, err := r.Queue.Window(take, j, before)
		if err != nil {
			return err
		}
		for i := range list {
			if len(found) < j.Request.Events && matches(take, j, rules, &list[i]) {
				found = append(found, list[i].ID)
			}
		}
		if before = next; next == 0 {
			break
		}
	}
	if take.Err() != nil {
		return nil
	}
	return r.Queue.Select(take, j, found)
}

// matches tells whether the hook runs on an event as far as its patterns and its condition say. One that cannot be
// evaluated is run on, and fails, as it would be then.
func matches(ctx context.Context, j *Job, rules *prompting.Rules, e *event.Event) bool {
	if !hooks.Matches(j.Settings.EventTypes, e.EventType) {
		return false
	}
	var applies bool
	var err error
	if j.Settings.Mode == hooks.ModeReview {
		w, actor, unreadable := review.PastWrite(e)
		if unreadable != nil || !review.IsPre(e) {
			return false
		}
		applies, err = review.Applies(ctx, rules, j.OrgID, actor, &w)
	} else {
		text := e.AppendJSON(nil)
		if !hooks.CausationOf(text).Allows(j.HookID, 1<<29) {
			return false
		}
		subject, unreadable := condition.NewWrite(text)
		if unreadable != nil {
			return false
		}
		applies, err = rules.Matches(ctx, subject)
	}
	var undecided *prompting.ModelError
	return applies || errors.As(err, &undecided)
}
