package limit

import (
	"context"
	"encoding/json"
	"errors"

	"github.com/sametick/sametick/services/prompt-worker/internal/prompting"
)

// Candidate is a model that may be asked.
type Candidate struct {
	Key Key
	// Most is the provider's own bound of calls at once; 0 for none.
	Most  int
	Model interface {
		prompting.Model
		// Enforces tells whether the model is held to a schema; a nil one needs no enforcing.
		Enforces(schema json.RawMessage) bool
	}
}

// Caller is a prompting.Model that asks the first of its candidates that may be asked, and the next ones in order when it
// is certain that no call was carried out: of one Complete at most one call is paid, so the dearest candidate's worst
// case covers it. A candidate that does not enforce the request's schema is never asked. The request's own model is
// replaced by the candidate's; From says whose answer or error it is. Safe for concurrent use.
type Caller struct {
	Limiter    *Limiter
	OrgID      int64
	Class      Class
	Candidates []Candidate
}

// Complete implements prompting.Model.
func (c Caller) Complete(ctx context.Context, r prompting.Request) (prompting.Response, error) {
	var kept *prompting.ModelError
	for _, candidate := range c.Candidates {
		if !candidate.Model.Enforces(r.Schema) {
			continue
		}
		out, err := c.ask(ctx, candidate, r)
		if err == nil {
			return out, nil
		}
		// What may succeed later is worth more to whoever retries than what will not.
		if kept == nil || !kept.Retryable() {
			kept = err
		}
		if err.Unknown || !err.Unsent && !tells(err) || ctx.Err() != nil {
			return prompting.Response{}, err
		}
	}
	if kept == nil {
		kept = &prompting.ModelError{Cause: prompting.CauseBadRequest, Text: "none of the hook's providers enforces its schema"}
	}
	return prompting.Response{}, kept
}

func (c Caller) ask(ctx context.Context, to Candidate, r prompting.Request) (out prompting.Response, failure *prompting.ModelError) {
	from := prompting.Source{ProviderID: to.Key.ProviderID, Model: to.Key.Model}
	turn, err := c.Limiter.Acquire(ctx, to.Key, to.Most, c.OrgID, c.Class)
	if err == nil {
		r.Model = to.Key.Model
		// A panic of an adapter must not keep the turn; it says nothing of the provider.
		defer turn.Done(nil, true)
		out, err = to.Model.Complete(ctx, r)
		failure = of(err)
		turn.Done(failure, errors.Is(ctx.Err(), context.Canceled))
	}
	if failure = of(err); failure != nil {
		copied := *failure
		copied.From = from
		return prompting.Response{}, &copied
	}
	out.From = from
	return out, nil
}

// of gives the ModelError of an error; one of another kind is a fault of ours, after which anything may have happened.
func of(err error) *prompting.ModelError {
	var e *prompting.ModelError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &e):
		return e
	default:
		return &prompting.ModelError{Cause: prompting.CauseUnavailable, Text: "the call failed", Unknown: true}
	}
}
