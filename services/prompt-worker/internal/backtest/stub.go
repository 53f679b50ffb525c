package backtest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"reflect"

	"github.com/sametick/sametick/services/prompt-worker/internal/hooks"
	"github.com/sametick/sametick/services/prompt-worker/internal/prompting"
	"github.com/sametick/sametick/services/prompt-worker/internal/runs"
)

var errNoTools = errors.New("not available in a backtest")

// recorded implements runs.Tools: the model sees what the hook grants, and a call is answered by what the same call gave
// in the run of then. It has nothing by which a server could be called.
type recorded struct {
	granted func(context.Context, *hooks.Setup) ([]prompting.Granted, error)
	calls   []runs.ToolCall
}

// Granted implements runs.Tools.
func (r recorded) Granted(ctx context.Context, s *hooks.Setup) ([]prompting.Granted, error) {
	return r.granted(ctx, s)
}

// Call implements prompting.Toolbox. A run keeps no server with a call, so tools of one name are one.
func (r recorded) Call(_ context.Context, _ prompting.ServerRef, tool string, arguments json.RawMessage) (json.RawMessage, error) {
	for _, c := range r.calls {
		if c.Tool != tool || !same(c.Arguments, arguments) {
			continue
		}
		if c.Error != "" {
			return nil, errors.New(c.Error)
		}
		return c.Result, nil
	}
	return nil, errNoTools
}

// same tells whether two texts are one JSON value. Nothing and {} are the same arguments.
func same(a, b json.RawMessage) bool {
	x, okX := parsed(a)
	y, okY := parsed(b)
	return okX && okY && reflect.DeepEqual(x, y)
}

func parsed(text json.RawMessage) (v any, ok bool) {
	if len(bytes.TrimSpace(text)) == 0 || string(text) == "null" {
		return map[string]any{}, true
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber() // large numbers are not rounded into each other
	return v, d.Decode(&v) == nil
}
