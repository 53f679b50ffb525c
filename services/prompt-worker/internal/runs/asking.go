package runs

import (
	"context"
	"encoding/json"
	"strings"
	"time"

	"github.com/sametick/sametick/services/prompt-worker/internal/hooks"
	"github.com/sametick/sametick/services/prompt-worker/internal/prompting"
)

// Asking is a question to a hook's model, with the tools that the hook grants, ready to be put.
type Asking struct {
	// Worst is the most that it can take: to be held before Do.
	Worst prompting.Amount

	loop    prompting.Loop
	request prompting.Request
	granted []prompting.Granted
	prices  Prices
	// first is who is asked first.
	first prompting.Source
}

// Answered is what an Asking gave, also beside an error.
type Answered struct {
	Response prompting.Response
	// From is who answered or failed last.
	From  prompting.Source
	Calls []ToolCall
	Usage prompting.Usage
	// Took is what is to be settled: the worst case when nobody knows.
	Took prompting.Amount
}

// Ask prepares a question; a nil schema asks for text. Errors are *prompting.ModelError.
func (x *Executor) Ask(ctx context.Context, s *hooks.Setup, p prompting.Prompt, name string, schema json.RawMessage) (*Asking, error) {
	if len(s.Providers) == 0 {
		return nil, &prompting.ModelError{Cause: prompting.CauseUnavailable, Text: "the hook's providers are archived"}
	}
	parameters, err := hooks.ParseParameters(s.Parameters)
	if err != nil {
		return nil, &prompting.ModelError{Cause: prompting.CauseBadRequest, Text: "parameters: " + err.Error()}
	}
	first := &s.Providers[0]
	a := &Asking{prices: x.Prices, first: prompting.Source{ProviderID: first.ID, Model: ModelOf(&s.Hook, first)}}
	a.request = prompting.Request{
		Model: a.first.Model, System: p.System, Turns: []prompting.Turn{{Role: prompting.RoleUser, Text: strings.Join(p.User, "\n\n")}},
		MaxTokens: parameters.MaxTokens, Temperature: parameters.Temperature, SchemaName: name, Schema: schema,
	}
	a.loop.Fence = p.Fence
	if a.loop.Model, err = x.Models.Model(ctx, s); err != nil {
		return nil, err
	}
	if len(s.Tools) > 0 && x.Tools != nil {
		a.loop.Tools = x.Tools
		if a.granted, err = x.Tools.Granted(ctx, s); err != nil {
			return nil, err
		}
	}
	a.Worst, err = a.worst(s)
	return a, err
}

// worst is the most that the question can take at any of the providers: one is asked after another only when that has
// taken nothing. It errs when a budget of cost cannot bound a model, which has no price.
func (a *Asking) worst(s *hooks.Setup) (prompting.Amount, error) {
	usage := a.loop.WorstCase(a.request, a.granted)
	worst := prompting.Amount{Runs: 1, Tokens: usage.Input + usage.Output}
	for i := range s.Providers {
		cost, known := a.prices.Cost(ModelOf(&s.Hook, &s.Providers[i]), usage)
		if !known && s.Budget.Cost != nil {
			return worst, &prompting.ModelError{Cause: prompting.CauseBudget, Text: "the hook has a budget of cost, and a model of it has no price"}
		}
		worst.Cost = max(worst.Cost, cost)
	}
	return worst, nil
}

// Do puts the question. Its error is a *prompting.ModelError; the Answered is valid beside it.
func (a *Asking) Do(ctx context.Context) (Answered, error) {
	done, err := a.loop.Run(ctx, a.request, a.granted)
	failure := Failure(err)
	out := Answered{Response: done.Response, From: done.Response.From, Took: prompting.Amount{Runs: 1}}
	for _, spent := range done.Spent {
		out.Usage.Input += spent.Input
		out.Usage.Cached += spent.Cached
		out.Usage.Output += spent.Output
		cost, _ := a.prices.Cost(orElse(spent.Model, a.first.Model), spent.Usage)
		out.Took.Cost += cost
	}
	out.Took.Tokens = out.Usage.Input + out.Usage.Cached + out.Usage.Output
	for _, c := range done.Calls {
		out.Calls = append(out.Calls, ToolCall{Tool: c.Tool, Arguments: c.Arguments, Result: c.Result, Error: c.Error,
			Latency: float64(c.Latency) / float64(time.Millisecond)})
	}
	if failure != nil {
		out.From = failure.From
	}
	if out.From.Model == "" {
		out.From = a.first
	}
	if failure == nil {
		return out, nil
	}
	if failure.Unknown {
		out.Took = a.Worst
	}
	return out, failure
}

func orElse(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}
