package runs

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"time"

	"github.com/sametick/sametick/pkg/errs"
	"github.com/sametick/sametick/services/prompt-worker/internal/hooks"
	"github.com/sametick/sametick/services/prompt-worker/internal/prompting"
)

// MaxAttempts is how often a run is begun; those that nobody knows the outcome of count.
const MaxAttempts = 6

// maxRetryAfter bounds what a provider may ask for.
const maxRetryAfter = 24 * time.Hour

// waits are between attempts, each jittered upwards by a quarter.
func waits() []time.Duration {
	return []time.Duration{5 * time.Second, 30 * time.Second, 2 * time.Minute, 10 * time.Minute, time.Hour}
}

// RetryAfter tells whether a run is tried again after its attempts so far, and when: never earlier than the provider
// asked for. share, 0 to 1, spreads those that failed together.
func RetryAfter(attempts int, failure *prompting.ModelError, share float64) (time.Duration, bool) {
	if attempts >= MaxAttempts || !failure.Retryable() {
		return 0, false
	}
	wait := waits()[max(attempts, 1)-1]
	wait += time.Duration(share * float64(wait) / 4)
	return max(wait, min(failure.RetryAfter, maxRetryAfter)), true
}

// run works at a loaded item to the end of one attempt, persisted. It gives when the table has the run due again; zero
// for never.
func (e *Engine) run(s *hooks.Setup, i *Item) time.Time {
	o := e.attempt(s, i)
	if o == nil {
		return time.Now().Add(again)
	}
	return e.persist(o)
}

// attempt gives what came of an item; nil when it is another worker's, or nothing may begin any more.
func (e *Engine) attempt(s *hooks.Setup, i *Item) *Outcome {
	if o := stillborn(s, i); o != nil {
		return o
	}
	p, err := guarded(func() (*plan, error) { return e.c.Executor.prepare(e.take, s, i) })
	if e.take.Err() != nil {
		return nil
	}
	if failure := Failure(err); failure != nil {
		if p == nil {
			p = &plan{run: newRun(s, i)}
		}
		return ended(p.run, failure, i.Attempts)
	}
	if p.asking == nil { // rules: nothing is asked, nothing is spent
		_, err := guarded(func() (*prompting.Amount, error) { return e.c.Executor.call(e.work, p, i.Event) })
		return ended(p.run, Failure(err), i.Attempts)
	}
	until := time.Now().Add(p.timeout + e.c.Margin)
	answer, err := e.begins.Do(e.work, Beginning{Item: i, Until: until, Worst: p.asking.Worst, Limits: s.Budget})
	switch {
	case err != nil:
		e.c.Log.WarnContext(e.take, "a run cannot begin", slog.Any("error", err))
		return nil
	case answer.Refused != "":
		text := "the budget of the " + answer.Refused + " for this day does not cover the run"
		return ended(p.run, &prompting.ModelError{Cause: prompting.CauseBudget, Text: text}, i.Attempts)
	case !answer.Begun:
		return nil
	}
	p.run.Attempts++
	return e.call(p, i)
}

// stillborn is the outcome of an item that must not be tried.
func stillborn(s *hooks.Setup, i *Item) *Outcome {
	switch {
	case s == nil || !s.InForce():
		return ended(newRun(s, i), &prompting.ModelError{Cause: CauseCancelled, Text: "the hook was archived or disabled"}, i.Attempts)
	case i.Cause == prompting.CauseCondition:
		return ended(newRun(s, i), &prompting.ModelError{Cause: i.Cause, Text: i.Error}, i.Attempts)
	case i.Attempts >= MaxAttempts:
		return ended(newRun(s, i), &prompting.ModelError{Cause: prompting.CauseUnavailable, Text: "no attempt has come to an end"}, i.Attempts)
	}
	return nil
}

func (e *Engine) call(p *plan, i *Item) *Outcome {
	took, err := guarded(func() (*prompting.Amount, error) { return e.c.Executor.call(e.work, p, i.Event) })
	failure := Failure(err)
	if took == nil { // a panic
		took = &p.asking.Worst
	}
	o := ended(p.run, failure, i.Attempts+1)
	o.Took = took
	if failure == nil {
		return o
	}
	if o.Unknown = failure.Unknown; o.Unknown {
		p.run.Unknown++
	}
	if wait, ok := RetryAfter(p.run.Attempts, failure, rand.Float64()); ok {
		o.RetryAt = time.Now().Add(wait)
	}
	return o
}

// ended is the outcome of a run that ends now.
func ended(r *Run, failure *prompting.ModelError, attempt int) *Outcome {
	r.Status, r.FinishedAt = Completed, time.Now()
	if failure != nil {
		r.Status, r.Cause, r.Error, r.Output = Failed, failure.Cause, prompting.Clean(failure.Text, prompting.MaxReason), nil
	}
	return &Outcome{Run: r, Attempt: attempt}
}

// persist keeps an outcome, if it takes the database as long as work goes on.
func (e *Engine) persist(o *Outcome) (next time.Time) {
	var k kept
	save := func(ctx context.Context) (err error) {
		if k, err = e.finishes.Do(ctx, *o); err == nil {
			err = k.err
		}
		return err
	}
	err := e.retry(e.work, "what came of a run cannot be persisted", save)
	if err != nil { // work has ended
		ctx, cancel := context.WithTimeout(context.WithoutCancel(e.work), lastSave)
		defer cancel()
		err = save(ctx)
	}
	switch {
	case err != nil:
		return time.Now().Add(again)
	case !k.ok:
		e.c.Stats.Late.Add(1)
		return time.Now().Add(again)
	}
	if e.c.Observe != nil {
		e.c.Observe(o)
	}
	return o.RetryAt
}

// kept tells whether an outcome's row was still its attempt's.
type kept struct {
	ok  bool
	err error
}

// finish keeps outcomes together or, when the database refuses them, each alone: one that cannot be kept must not keep the
// others back.
func (e *Engine) finish(ctx context.Context, list []Outcome) ([]kept, error) {
	out := make([]kept, len(list))
	oks, err := e.c.Queue.Finish(ctx, list)
	if err != nil && (len(list) == 1 || errs.KindOf(err) == errs.Unavailable || ctx.Err() != nil) {
		return nil, err
	}
	for i := range list {
		if err == nil {
			out[i].ok = oks[i]
			continue
		}
		alone, err := e.c.Queue.Finish(ctx, list[i:i+1])
		if out[i].err = err; err == nil {
			out[i].ok = alone[0]
		}
	}
	return out, nil
}

// guarded makes a panic that one run's failure.
func guarded[T any](f func() (T, error)) (out T, err error) {
	defer func() {
		if r := recover(); r != nil {
			var none T
			out, err = none, &prompting.ModelError{Cause: prompting.CauseInvalid, Text: fmt.Sprintf("panic: %v", r), Unknown: true}
		}
	}()
	return f()
}
