package runs

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
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

// Prices tell what tokens cost, in millionths; false for a model without a price.
type Prices interface {
	Cost(model string, u prompting.Usage) (int64, bool)
}

// Executor makes one attempt of a run. Safe for concurrent use.
type Executor struct {
	Models   Models
	Compiler *Compiler
	// Mask hides fields from templates; nil hides none.
	Mask   *prompting.Mask
	Prices Prices
}

// plan is an attempt that is ready to be made.
type plan struct {
	run     *Run
	model   prompting.Model // nil for rules
	request prompting.Request
	output  *prompting.Output
	rules   *prompting.Rules
	timeout time.Duration
	worst   prompting.Amount
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
	if p.request, err = Ask(&s.Hook, s.Providers, prompt, p.output); err != nil {
		return p, err
	}
	if p.model, err = x.Models.Model(ctx, s); err != nil {
		return p, err
	}
	p.run.ProviderID, p.run.Model = s.Providers[0].ID, p.request.Model
	p.worst, err = x.Worst(&s.Hook, s.Providers, p.request)
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

// Ask makes the request of a prompt; an output of nil asks for text.
func Ask(h *hooks.Hook, providers []hooks.Provider, p prompting.Prompt, output *prompting.Output) (r prompting.Request, err error) {
	if len(providers) == 0 {
		return r, &prompting.ModelError{Cause: prompting.CauseUnavailable, Text: "the hook's providers are archived"}
	}
	parameters, err := ParseParameters(h.Parameters)
	if err != nil {
		return r, &prompting.ModelError{Cause: prompting.CauseBadRequest, Text: err.Error()}
	}
	r = prompting.Request{
		Model: ModelOf(h, &providers[0]), System: p.System, Turns: []prompting.Turn{{Role: prompting.RoleUser, Text: strings.Join(p.User, "\n\n")}},
		MaxTokens: parameters.MaxTokens, Temperature: parameters.Temperature,
	}
	if output != nil {
		r.Schema, r.SchemaName = output.Schema(), "output"
	}
	return r, nil
}

// ModelOf names the model that a hook asks at a provider.
func ModelOf(h *hooks.Hook, p *hooks.Provider) string {
	if h.Model != "" && p.ID == h.ProviderID {
		return h.Model
	}
	return p.DefaultModel
}

// Worst is the most that a request can take at any of the providers: only one of them answers, and one is asked after
// another only when that has taken nothing. It errs when a budget of cost cannot bound a model, which has no price.
func (x *Executor) Worst(h *hooks.Hook, providers []hooks.Provider, r prompting.Request) (prompting.Amount, error) {
	usage := r.WorstCase()
	worst := prompting.Amount{Runs: 1, Tokens: usage.Input + usage.Output}
	for i := range providers {
		cost, known := x.Prices.Cost(ModelOf(h, &providers[i]), usage)
		if !known && h.Budget.Cost != nil {
			return worst, &prompting.ModelError{Cause: prompting.CauseBudget, Text: "the hook has a budget of cost, and its model has no price"}
		}
		worst.Cost = max(worst.Cost, cost)
	}
	return worst, nil
}

// call makes the attempt. Its error is a *prompting.ModelError; took is what it cost, the worst case when nobody knows.
func (x *Executor) call(ctx context.Context, p *plan, event []byte) (took *prompting.Amount, err error) {
	ctx, cancel := context.WithTimeout(telemetry.WithTraceparent(ctx, p.run.Traceparent), p.timeout)
	defer cancel()
	start := time.Now()
	defer func() { p.run.Latency = time.Since(start) }()
	if p.model == nil {
		e, err := condition.NewWrite(event)
		if err != nil {
			return nil, &prompting.ModelError{Cause: prompting.CauseCondition, Text: err.Error()}
		}
		p.run.Output, err = p.rules.Outputs(ctx, e)
		return nil, err
	}
	res, err := p.model.Complete(ctx, p.request)
	if failure := Failure(err); failure != nil {
		x.spend(p.run, failure.Usage)
		if failure.Unknown {
			return &p.worst, failure
		}
		return x.took(p.run), failure
	}
	if res.From.Model != "" {
		p.run.ProviderID, p.run.Model = res.From.ProviderID, res.From.Model
	}
	x.spend(p.run, res.Usage)
	return x.took(p.run), p.take(res)
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

func (x *Executor) spend(r *Run, u prompting.Usage) {
	r.Usage = u
	r.Cost, _ = x.Prices.Cost(r.Model, u)
}

func (x *Executor) took(r *Run) *prompting.Amount {
	return &prompting.Amount{Runs: 1, Tokens: r.Usage.Input + r.Usage.Cached + r.Usage.Output, Cost: r.Cost}
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
