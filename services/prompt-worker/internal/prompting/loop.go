package prompting

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"time"
)

// ServerRef names a tool server of an organisation; the organisation is in it so that nobody reaches another's.
type ServerRef struct{ OrgID, ID int64 }

// Toolbox calls tools. The error's text is told to the model. Safe for concurrent use.
type Toolbox interface {
	Call(ctx context.Context, server ServerRef, tool string, arguments json.RawMessage) (json.RawMessage, error)
}

// Granted is a tool that a hook lists. A hook that lists none has none, so a review has tools only by its own wish.
type Granted struct {
	Server ServerRef
	Tool   Tool
}

// Loop asks a model, calls the tools that it asks for and asks again. Zero limits take the defaults.
type Loop struct {
	Model Model
	// Tools is nil where no hook has any.
	Tools Toolbox
	// Fence is the prompt's, which its system message explains: what a tool gives, anyone may have written.
	Fence Fence
	// Rounds of calls (8) and calls altogether (32), after which the run fails: a model may ask for ever.
	Rounds, Calls int
	// MaxBytes of all results (64 KiB): each round reads, and pays for, those before it.
	MaxBytes int
	// CallTimeout is for one tool (30 s); the context bounds the whole.
	CallTimeout time.Duration
}

// CallRecord is a call as a run keeps it. Result or Error is set.
type CallRecord struct {
	Server    ServerRef
	Tool      string
	Arguments json.RawMessage
	Result    json.RawMessage
	Error     string
	Latency   time.Duration
}

// Spent is what a model used, over all rounds.
type Spent struct {
	Source
	Usage
}

// Transcript is what happened, also when it ended in an error.
type Transcript struct {
	Response Response
	Calls    []CallRecord
	// Spent has what failed calls used, too.
	Spent []Spent
}

func (l Loop) withDefaults() Loop {
	for n, d := range map[*int]int{&l.Rounds: 8, &l.Calls: 32, &l.MaxBytes: 64 << 10} {
		if *n <= 0 {
			*n = d
		}
	}
	if l.CallTimeout <= 0 {
		l.CallTimeout = 30 * time.Second
	}
	return l
}

// Run answers a request, whose Tools are made of what is granted. The error is a *ModelError; the Transcript is valid
// beside it.
func (l Loop) Run(ctx context.Context, r Request, granted []Granted) (Transcript, error) {
	l = l.withDefaults()
	var done Transcript
	names := nameTools(granted)
	r.Tools = nil
	for i, g := range granted {
		r.Tools = append(r.Tools, Tool{Name: names[i], Description: g.Tool.Description, Schema: g.Tool.Schema})
	}
	r.Turns = append([]Turn(nil), r.Turns...)
	left := l.MaxBytes
	for round := 0; ; round++ {
		got, err := l.Model.Complete(ctx, r)
		done.spend(got, err)
		if err != nil {
			return done, err
		}
		switch {
		case len(got.Calls) == 0:
			done.Response = got
			return done, nil
		case len(granted) == 0:
			return done, &ModelError{Cause: CauseInvalid, Text: "the model asks for tools that it was not given", From: got.From}
		case round == l.Rounds || len(done.Calls)+len(got.Calls) > l.Calls:
			return done, &ModelError{Cause: CauseTool, Text: fmt.Sprintf("the model asked for tools %d times without an answer", round+1), From: got.From}
		}
		r.Turns = append(r.Turns, Turn{Role: "assistant", Text: got.Text, Calls: got.Calls, Native: got.Native})
		for _, c := range got.Calls {
			record, turn := l.call(ctx, c, granted, names)
			done.Calls = append(done.Calls, record)
			r.Turns = append(r.Turns, turn)
			if left -= len(turn.Text); left < 0 {
				return done, &ModelError{Cause: CauseTool, Text: "the tools gave more than a run may read", From: got.From}
			}
		}
		if ctx.Err() != nil {
			return done, &ModelError{Cause: CauseTimeout, Text: "the tools took all the time", From: got.From}
		}
	}
}

// call calls a tool, or tells the model why not.
func (l Loop) call(ctx context.Context, c ToolCall, granted []Granted, names []string) (CallRecord, Turn) {
	record := CallRecord{Tool: c.Name, Arguments: c.Arguments}
	err := errors.New("there is no such tool")
	begun := time.Now()
	for i, g := range granted {
		if names[i] != c.Name {
			continue
		}
		record.Server, record.Tool = g.Server, g.Tool.Name
		callCtx, cancel := context.WithTimeout(ctx, l.CallTimeout)
		record.Result, err = l.Tools.Call(callCtx, g.Server, g.Tool.Name, c.Arguments)
		cancel()
		break
	}
	record.Latency = time.Since(begun)
	turn := Turn{Role: "tool", CallID: c.ID}
	if err != nil {
		record.Result, record.Error = nil, err.Error()
		turn.Text, turn.Failed = "error: "+l.Fence.text(err.Error()), true
		return record, turn
	}
	turn.Text = l.Fence.json(record.Result)
	return record, turn
}

func (t *Transcript) spend(r Response, err error) {
	spent := Spent{r.From, r.Usage}
	var failed *ModelError
	if errors.As(err, &failed) {
		spent = Spent{failed.From, failed.Usage}
	}
	for i := range t.Spent {
		if t.Spent[i].Source == spent.Source {
			t.Spent[i].Input += spent.Input
			t.Spent[i].Cached += spent.Cached
			t.Spent[i].Output += spent.Output
			return
		}
	}
	t.Spent = append(t.Spent, spent)
}

// unfit is what providers do not take in a tool's name; they take 64 characters.
var unfit = regexp.MustCompile(`[^a-zA-Z0-9_-]`)

// nameTools gives each granted tool the name that the model sees: its own where that is fit and nobody else's.
func nameTools(granted []Granted) []string {
	out, taken := make([]string, len(granted)), map[string]bool{}
	for i, g := range granted {
		fit := unfit.ReplaceAllString(g.Tool.Name, "_")
		fit = fit[:min(len(fit), 56)]
		n := fit
		for k := 2; taken[n]; k++ {
			n = fmt.Sprintf("%s_%d", fit, k)
		}
		out[i], taken[n] = n, true
	}
	return out
}

// WorstCase is the most that a run can use: each round reads all that was said before it. Without tools it is the
// request's own.
func (l Loop) WorstCase(r Request, granted []Granted) Usage {
	if len(granted) == 0 {
		return r.WorstCase()
	}
	l = l.withDefaults()
	r.Tools = nil
	for _, g := range granted {
		r.Tools = append(r.Tools, g.Tool)
	}
	once := r.WorstCase()
	calls := int64(l.Rounds + 1)
	// An answer is read again as input: once as text and once as the provider's own form of it.
	said := calls * (calls - 1) / 2 * once.Output * 2
	results := int64(l.Rounds) * (int64(l.MaxBytes) + int64(l.Calls)*4*tokensPerTurn)
	return Usage{Input: calls*once.Input + said + results, Output: calls * once.Output}
}
