package runs

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"github.com/sametick/sametick/pkg/condition"
	"github.com/sametick/sametick/pkg/telemetry"
	"github.com/sametick/sametick/services/prompt-worker/internal/hooks"
	"github.com/sametick/sametick/services/prompt-worker/internal/prompting"
)

// Models gives a hook's: its providers in order, within their limits. Safe for concurrent use.
type Models interface {
	// Model errs with a *prompting.ModelError when the hook has no provider that can be asked.
	Model(ctx context.Context, s *hooks.Setup) (prompting.Model, error)
}

// Tools are those that hooks grant. Safe for concurrent use.
type Tools interface {
	prompting.Toolbox
	// Granted gives a hook's, as their servers describe them. It errs with a *prompting.ModelError.
	Granted(ctx context.Context, s *hooks.Setup) ([]prompting.Granted, error)
}

// Prices tell what tokens cost, in millionths; false for a model without a price.
type Prices interface {
	Cost(model string, u prompting.Usage) (int64, bool)
}

// Executor makes one attempt of a run. Safe for concurrent use.
type Executor struct {
	Models Models
	// Tools is nil where no hook has any.
	Tools    Tools
	Compiler *Compiler
	// Mask hides fields from templates; nil hides none.
	Mask   *prompting.Mask
	Prices Prices
}

// plan is an attempt that is ready to be made.
type plan struct {
	run     *Run
	asking  *Asking // nil for rules
	output  *prompting.Output
	rules   *prompting.Rules
	timeout time.Duration
}

// newRun begins the record of an item's run.
func newRun(s *hooks.Setup, i *Item) *Run {
	r := &Run{
		ID: i.ID, OrgID: i.OrgID, HookID: i.HookID, Mode: hooks.ModeAsync, Trigger: ByEvent, EventID: i.EventID, EventType: i.EventType,
		AggregateType: i.AggregateType, AggregateID: i.AggregateID, Attempts: i.Attempts, Unknown: i.Unknown, CreatedAt: i.CreatedAt,
		Traceparent: i.Traceparent, Causation: hooks.CausationOf(i.Event),
	}
	if i.Calling {
		r.Unknown++
	}
	if s != nil {
		r.HookName = s.Name
	}
	return r
}

// prepare does all that an attempt needs before the call. Its error is a *prompting.ModelError.
func (x *Executor) prepare(ctx context.Context, s *hooks.Setup, i *Item) (*plan, error) {
	p := &plan{run: newRun(s, i), timeout: s.Timeout()}
	var err error
	if p.rules, err = x.Compiler.Rules(&s.Hook); err != nil {
		return p, &prompting.ModelError{Cause: prompting.CauseCondition, Text: err.Error()}
	}
	if s.Template == nil {
		return p, nil
	}
	subject, err := prompting.ParseSubject(i.Event)
	if err != nil {
		return p, &prompting.ModelError{Cause: prompting.CauseTemplate, Text: err.Error()}
	}
	prompt, err := x.render(ctx, s, p.run, subject)
	if err != nil {
		return p, err
	}
	if p.output, err = x.Compiler.Output(&s.Hook); err != nil {
		return p, &prompting.ModelError{Cause: prompting.CauseBadRequest, Text: err.Error()}
	}
	name, schema := "", json.RawMessage(nil)
	if p.output != nil {
		name, schema = "output", p.output.Schema()
	}
	if p.asking, err = x.Ask(ctx, s, prompt, name, schema); err == nil {
		p.run.ProviderID, p.run.Model = p.asking.first.ProviderID, p.asking.first.Model
	}
	return p, err
}

func (x *Executor) render(ctx context.Context, s *hooks.Setup, r *Run, subject *prompting.Subject) (prompt prompting.Prompt, err error) {
	number, err := s.Pick(s.Template, r.AggregateType, r.AggregateID)
	version := s.Versions[number]
	if err != nil || version == nil {
		return prompt, &prompting.ModelError{Cause: prompting.CauseTemplate, Text: "the template has no version or label that the hook names"}
	}
	r.TemplateVersion = number
	template, err := x.Compiler.Template(s.OrgID, version)
	if err != nil {
		return prompt, &prompting.ModelError{Cause: prompting.CauseTemplate, Text: err.Error()}
	}
	if prompt, err = template.Render(ctx, subject, x.Mask); err == nil {
		r.Input = prompt.Messages()
	}
	return prompt, err
}

// ModelOf names the model that a hook asks at a provider.
func ModelOf(h *hooks.Hook, p *hooks.Provider) string {
	if h.Model != "" && p.ID == h.ProviderID {
		return h.Model
	}
	return p.DefaultModel
}

// call makes the attempt. Its error is a *prompting.ModelError; took is what it cost, the worst case when nobody knows.
func (x *Executor) call(ctx context.Context, p *plan, event []byte) (took *prompting.Amount, err error) {
	ctx, cancel := context.WithTimeout(telemetry.WithTraceparent(ctx, p.run.Traceparent), p.timeout)
	defer cancel()
	start := time.Now()
	defer func() { p.run.Latency = time.Since(start) }()
	if p.asking == nil {
		e, err := condition.NewWrite(event)
		if err != nil {
			return nil, &prompting.ModelError{Cause: prompting.CauseCondition, Text: err.Error()}
		}
		p.run.Output, err = p.rules.Outputs(ctx, e)
		return nil, err
	}
	answer, err := p.asking.Do(ctx)
	p.run.ToolCalls, p.run.Usage, p.run.Cost = answer.Calls, answer.Usage, answer.Took.Cost
	p.run.ProviderID, p.run.Model = answer.From.ProviderID, answer.From.Model
	if err != nil {
		return &answer.Took, err
	}
	return &answer.Took, p.take(answer.Response)
}

// take reads the answer, whatever the provider promised.
func (p *plan) take(res prompting.Response) error {
	if p.output == nil {
		text, err := json.Marshal(res.Text)
		if err != nil || len(text) > prompting.MaxOutput {
			return &prompting.ModelError{Cause: prompting.CauseInvalid, Text: "an answer that is too long"}
		}
		p.run.Output = text
		return nil
	}
	if err := p.output.Check(res.JSON); err != nil {
		return err
	}
	p.run.Output = res.JSON
	return nil
}

// Failure makes every error of a call one with a cause; nil stays nil. What ended with its context may have been
// carried out.
func Failure(err error) *prompting.ModelError {
	var known *prompting.ModelError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &known) && known != nil:
		return known
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return &prompting.ModelError{Cause: prompting.CauseTimeout, Text: "no answer in time", Unknown: true}
	default:
		return &prompting.ModelError{Cause: prompting.CauseUnavailable, Text: prompting.Clean(err.Error(), prompting.MaxReason), Unknown: true}
	}
}
