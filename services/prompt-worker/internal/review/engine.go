package review

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/sametick/sametick/pkg/errs"
	"github.com/sametick/sametick/services/prompt-worker/internal/prompting"
)

// The times of a review.
const (
	// DefaultTimeout is a hook's, and a whole review's when its caller has no deadline.
	DefaultTimeout = 2 * time.Second
	// MaxTimeout bounds both.
	MaxTimeout = 10 * time.Second
	// DefaultReserve is what is kept of the caller's time for the write, when it does not say.
	DefaultReserve = 100 * time.Millisecond
)

// maxParallel bounds the hooks of one request that run at once.
const maxParallel = 64

// Engine judges writes. Safe for concurrent use.
type Engine struct {
	hooks    Hooks
	runner   Runner
	recorder Recorder
	mask     *prompting.Mask
	answers  *answers
}

// New makes an engine. The mask hides fields from templates; nil hides none. Close it after its last review.
func New(hooks Hooks, runner Runner, recorder Recorder, mask *prompting.Mask) *Engine {
	return &Engine{hooks, runner, recorder, mask, newAnswers()}
}

// Close cancels calls of models that are still under way and waits until they have ended.
func (e *Engine) Close() { e.answers.close() }

// Request is what is to be judged.
type Request struct {
	OrgID   int64
	ActorID *int64
	// Writes are 1 to MaxWrites.
	Writes []Write
	// Reserve is what the caller keeps of its deadline for the write; 0 is DefaultReserve.
	Reserve     time.Duration
	Traceparent string
	// Generation of the hooks that the caller's write will insist on; nil for the newest.
	Generation *int64
}

// Review gives a judgement a write, in their order, before the caller's deadline less its reserve, and in no more than
// MaxTimeout: a hook that has not finished by then follows its failure policy. Rules come first; a write that they stop
// is shown to no model. Errors: what Hooks gives, and *errs.Error of kind Invalid for writes that are none.
func (e *Engine) Review(ctx context.Context, r Request) ([]Judgement, error) {
	if len(r.Writes) == 0 || len(r.Writes) > MaxWrites {
		return nil, errs.New(errs.Invalid, "INVALID_WRITES", fmt.Sprintf("1 to %d writes", MaxWrites))
	}
	ctx, cancel := context.WithTimeout(ctx, limit(ctx, r.Reserve))
	defer cancel()
	hooks, err := e.hooks.ReviewHooks(ctx, r.OrgID, r.Generation)
	if err != nil {
		return nil, err
	}
	proposals := make([]*proposal, len(r.Writes))
	for i := range r.Writes {
		if proposals[i], err = propose(r.OrgID, r.ActorID, &r.Writes[i]); err != nil {
			return nil, err
		}
	}
	out := make([]Judgement, len(r.Writes))
	slots := make(chan struct{}, maxParallel)
	var all sync.WaitGroup
	for i, p := range proposals {
		t := &trial{Engine: e, request: &r, proposal: p, slots: slots}
		t.rules(ctx, hooks)
		all.Go(func() { out[i] = t.judge(ctx) })
	}
	all.Wait()
	return out, nil
}

// limit is how long a review may take.
func limit(ctx context.Context, reserve time.Duration) time.Duration {
	if reserve <= 0 {
		reserve = DefaultReserve
	}
	end, ok := ctx.Deadline()
	if !ok {
		return DefaultTimeout
	}
	return min(time.Until(end)-reserve, MaxTimeout)
}

// trial is the review of one write.
type trial struct {
	*Engine
	*proposal
	request *Request
	slots   chan struct{}
	cases   []*judged
	stopped bool
}

// judged is a hook that matched.
type judged struct {
	hook  *Hook
	start time.Time
	end   time.Time
	// done: the rules decided, and no model is asked.
	done bool
	outcome
}

// outcome is what happened, before it is decided what it means.
type outcome struct {
	verdict    prompting.Verdict
	failure    *prompting.ModelError
	superseded bool
	version    int
	prompt     *prompting.Prompt
	response   prompting.Response
	cached     bool
}

// rules asks every matching hook's condition and rules.
func (t *trial) rules(ctx context.Context, hooks []*Hook) {
	if exempt(t.AggregateType) {
		return
	}
	for _, h := range hooks {
		if !h.matches(t.EventType) {
			continue
		}
		j := &judged{hook: h, start: time.Now()}
		applies, err := guarded(func() (bool, error) {
			if h.Broken != nil {
				return false, h.Broken
			}
			return h.Rules.Matches(ctx, t.event)
		})
		if err == nil && !applies {
			continue
		}
		if err == nil {
			j.verdict, err = guarded(func() (prompting.Verdict, error) { return h.Rules.Judge(ctx, t.event) })
		}
		j.failure = failure(err)
		j.done = err != nil || j.verdict.Verdict != prompting.Approve || h.Stable == nil
		j.end = time.Now()
		t.cases = append(t.cases, j)
		t.stopped = t.stopped || j.done && decide(h, j.outcome).Enforced
	}
}

// judge asks the models of the hooks that the rules left open, all at once, until one stops the write.
func (t *trial) judge(ctx context.Context) Judgement {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	if t.stopped {
		stop(errSuperseded)
	}
	var asked sync.WaitGroup
	for _, j := range t.cases {
		if j.done {
			continue
		}
		asked.Go(func() {
			j.outcome = t.ask(ctx, j.hook)
			j.end = time.Now()
			if decide(j.hook, j.outcome).Enforced {
				stop(errSuperseded)
			}
		})
	}
	asked.Wait()
	out := Judgement{Hash: t.hash, Verdicts: make([]HookVerdict, 0, len(t.cases))}
	for _, j := range t.cases {
		v := decide(j.hook, j.outcome)
		v.RunID = t.recorder.Record(t.run(j, v))
		out.Rejected = out.Rejected || v.Enforced
		out.Verdicts = append(out.Verdicts, v)
	}
	return out
}

var errSuperseded = errors.New("another hook has stopped the write")

// ask gives what the hook's model says. It ends with ctx or the hook's own time, whatever the model does.
func (t *trial) ask(ctx context.Context, h *Hook) outcome {
	timeout := h.Timeout
	if timeout <= 0 {
		timeout = DefaultTimeout
	}
	ctx, cancel := context.WithTimeout(ctx, min(timeout, MaxTimeout))
	defer cancel()
	var o outcome
	_, err := guarded(func() (struct{}, error) { return struct{}{}, t.put(ctx, h, &o) })
	if errors.Is(context.Cause(ctx), errSuperseded) && err != nil {
		return outcome{superseded: true, version: o.version, prompt: o.prompt}
	}
	if o.failure = failure(err); err != nil {
		o.verdict = prompting.Verdict{}
	}
	return o
}

// put renders the question and gets its answer.
func (t *trial) put(ctx context.Context, h *Hook, o *outcome) error {
	select {
	case t.slots <- struct{}{}:
		defer func() { <-t.slots }()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	version := h.version(t.Write, t.hash)
	o.version = version.Number
	subject, err := t.subject()
	if err != nil {
		return &prompting.ModelError{Cause: prompting.CauseTemplate, Text: err.Error()}
	}
	prompt, err := version.Template.Render(ctx, subject, t.mask)
	if err != nil {
		return err
	}
	o.prompt = &prompt
	question := Ask{t.request.OrgID, h, version.Number, prompt}
	got, cached, err := t.answers.get(ctx, keyOf(question), func(ctx context.Context) (a answer, err error) {
		if a.response, err = t.runner.Review(ctx, question); err != nil {
			return answer{}, err
		}
		a.verdict, err = prompting.ParseVerdict(a.response.JSON)
		return a, err
	})
	o.verdict, o.response, o.cached = got.verdict, got.response, cached
	return err
}

// failure makes every error one that has a cause; nil stays nil.
func failure(err error) *prompting.ModelError {
	var known *prompting.ModelError
	switch {
	case err == nil:
		return nil
	case errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled):
		return &prompting.ModelError{Cause: prompting.CauseTimeout, Text: "no answer in time", Unknown: true}
	case errors.As(err, &known) && known != nil:
		return known
	default:
		return &prompting.ModelError{Cause: prompting.CauseUnavailable, Text: prompting.Clean(err.Error(), prompting.MaxReason)}
	}
}

func (t *trial) run(j *judged, v HookVerdict) Run {
	r := Run{
		OrgID: t.request.OrgID, HookID: j.hook.ID, Write: *t.Write, Hash: t.hash, Version: j.version, ProviderID: j.hook.ProviderID, Model: j.hook.Model, Output: j.response.JSON, Usage: j.response.Usage,
		Cached: j.cached, Verdict: v, StartedAt: j.start, Latency: j.end.Sub(j.start), Traceparent: t.request.Traceparent,
	}
	if j.prompt != nil {
		r.Input = j.prompt.Messages()
	}
	if j.cached {
		r.Usage = prompting.Usage{}
	}
	if j.failure != nil {
		r.Cause, r.Error = j.failure.Cause, j.failure.Text
		if !j.cached && r.Usage == (prompting.Usage{}) {
			r.Usage = j.failure.Usage
		}
	}
	return r
}
