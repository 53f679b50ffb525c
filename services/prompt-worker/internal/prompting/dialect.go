package prompting

import (
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/osteele/liquid/expressions"
	"github.com/osteele/liquid/filters"
	"github.com/osteele/liquid/parser"
	"github.com/osteele/liquid/render"
	"github.com/osteele/liquid/tags"
	yaml "gopkg.in/yaml.v2"
)

// Tags that a message is rewritten with before it is compiled. An author cannot write them: they are no tags of
// theirs.
const (
	tagData  = "sametick_data"  // {{ … }} with a part of the event: fenced
	tagPlain = "sametick_plain" // {{ … }} of fixed values alone
	tagTick  = "sametick_tick"  // a look at the clock
)

// stateKey is no name that Liquid can spell.
const stateKey = " state"

// dialect is the Liquid of templates: without include, which reads files, without what cannot be bounded, and with a
// clock in every loop. It builds on the library's packages below its engine, because the engine can neither close a
// tag's output in a fence nor remove a tag.
type dialect struct{ config render.Config }

// compiled is one message.
type compiled struct {
	role string
	root render.Node
	d    *dialect
}

func newDialect() *dialect {
	d := &dialect{render.NewConfig()}
	filters.AddStandardFilters(&d.config)
	tags.AddStandardTags(d.config)
	addFilters(&d.config)
	d.config.AddTag("assign", compileAssign)
	d.config.AddTag(tagTick, func(string) (func(io.Writer, render.Context) error, error) {
		return func(_ io.Writer, c render.Context) error { return stateOf(c).tick() }, nil
	})
	d.config.AddTag(tagData, compileOutput(true))
	d.config.AddTag(tagPlain, compileOutput(false))
	return d
}

// compile reads a message. What is found wrong is for its author.
func (d *dialect) compile(m Message, s scope) (c compiled, problems []problem) {
	text := d.rewrite(m.Text, &s)
	if len(s.problems) > 0 {
		return c, s.problems
	}
	root, err := d.config.Compile(text, parser.SourceLoc{LineNo: 1})
	if err != nil {
		return c, []problem{{err.LineNumber(), "SYNTAX", err.Error()}}
	}
	return compiled{m.Role, root, d}, nil
}

// rewrite checks each token and gives the text with {{ … }} as tags of ours and ticks where time can be spent.
func (d *dialect) rewrite(text string, s *scope) string {
	var out strings.Builder
	var open []string
	verbatim := "" // comment or raw
	for _, t := range parser.Scan(text, parser.SourceLoc{LineNo: 1}, nil) {
		if t.Type == parser.TrimLeftTokenType || t.Type == parser.TrimRightTokenType {
			continue // they are in the source of the token beside them
		}
		s.line = t.SourceLoc.LineNo
		switch {
		case verbatim != "":
			if t.Type == parser.TagTokenType && t.Name == "end"+verbatim {
				verbatim = ""
			}
			out.WriteString(t.Source)
		case t.Type == parser.TagTokenType && (t.Name == "comment" || t.Name == "raw"):
			verbatim = t.Name
			out.WriteString(t.Source)
		case t.Type == parser.ObjTokenType:
			name := tagPlain
			if s.output(t.Args) {
				name = tagData
			}
			out.WriteString(retag(t, name))
		case t.Type == parser.TagTokenType:
			open = s.tag(t, open)
			out.WriteString(ticked(t))
		default:
			if i := strings.IndexAny(t.Source, "{"); i >= 0 && unclosed.MatchString(t.Source) {
				s.line += strings.Count(t.Source[:i], "\n")
				s.fault("SYNTAX", "a {{ or {%% that does not close on its line, or has nothing in it")
			}
			out.WriteString(t.Source)
		}
	}
	if verbatim != "" {
		open = append(open, verbatim)
	}
	for _, block := range open {
		s.fault("SYNTAX", "%s does not end", block)
	}
	return out.String()
}

var unclosed = regexp.MustCompile(`\{[{%]`)

// retag keeps the white space control of a token.
func retag(t parser.Token, name string) string {
	left, right := "{% ", " %}"
	if t.Source[2] == '-' {
		left = "{%- "
	}
	if t.Source[len(t.Source)-3] == '-' {
		right = " -%}"
	}
	return left + name + " " + t.Args + right
}

func ticked(t parser.Token) string {
	const tick = "{% " + tagTick + " %}"
	switch t.Name {
	case "if", "unless", "case":
		return tick + t.Source
	case "for":
		return tick + t.Source + tick
	default:
		return t.Source
	}
}

func compileAssign(source string) (func(io.Writer, render.Context) error, error) {
	stmt, err := expressions.ParseStatement(expressions.AssignStatementSelector, source)
	if err != nil {
		return nil, err
	}
	return func(_ io.Writer, c render.Context) error {
		state := stateOf(c)
		if err := state.tick(); err != nil {
			return err
		}
		value, err := c.Evaluate(stmt.Assignment.ValueFn)
		if err != nil {
			return err
		}
		if weigh(value, maxData) < 0 {
			return errTooMuch
		}
		c.Set(stmt.Assignment.Variable, value)
		return nil
	}, nil
}

func compileOutput(data bool) render.TagCompiler {
	return func(source string) (func(io.Writer, render.Context) error, error) {
		expression, err := expressions.Parse(source)
		if err != nil {
			return nil, err
		}
		return func(w io.Writer, c render.Context) error {
			state := stateOf(c)
			if err := state.tick(); err != nil {
				return err
			}
			value, err := c.Evaluate(expression)
			if err != nil || value == nil {
				return err
			}
			text, err := state.show(value, data)
			if err != nil {
				return err
			}
			_, err = io.WriteString(w, text)
			return err
		}, nil
	}
}

// Bounds of one render.
const (
	maxData   = 256 << 10 // bytes of the values of all variables, and of each that a template makes
	maxPrompt = 1 << 20   // bytes of all messages
	maxSteps  = 100_000
	maxTime   = time.Second // steps end a render long before, unless each has much to do
)

var (
	errTooMuch = fmt.Errorf("a value of more than %d bytes", maxData)
	errTooLong = fmt.Errorf("more than %d bytes of messages", maxPrompt)
	errSteps   = fmt.Errorf("more than %d steps", maxSteps)
	errTime    = fmt.Errorf("more than %v", maxTime)
)

// state is of one render, which is one goroutine's.
type state struct {
	fence    Fence
	deadline time.Time
	steps    int
	left     int // bytes
}

func stateOf(c render.Context) *state { return c.Get(stateKey).(*state) }

func (s *state) tick() error {
	if s.steps++; s.steps > maxSteps {
		return errSteps
	}
	if time.Now().After(s.deadline) { // each time: a step can read a list of 16,000 items 500 times
		return errTime
	}
	return nil
}

// show gives a value's text: data in its fence.
func (s *state) show(value any, data bool) (string, error) {
	if weigh(value, maxData) < 0 {
		return "", errTooMuch
	}
	if text, ok := value.(string); ok && !data {
		return text, nil
	}
	if data {
		return s.fence.wrap(value)
	}
	return fmt.Sprint(value), nil
}

// counter refuses what goes beyond the render's bound.
type counter struct {
	state *state
	to    *strings.Builder
}

// Write implements io.Writer.
func (c counter) Write(b []byte) (int, error) {
	if c.state.left -= len(b); c.state.left < 0 {
		return 0, errTooLong
	}
	return c.to.Write(b)
}

// part is what each part of a value weighs beside its text: 256 KiB of lists are 16,000 items.
const part = 16

// weigh counts what a value takes, down from a budget: below 0 it is too much, and counting has stopped.
func weigh(value any, budget int) int {
	switch v := value.(type) {
	case string:
		return budget - len(v) - part
	case yaml.MapSlice:
		for _, item := range v {
			if budget = weigh(item.Value, weigh(item.Key, budget)); budget < 0 {
				return budget
			}
		}
	case []any:
		for _, item := range v {
			if budget = weigh(item, budget); budget < 0 {
				return budget
			}
		}
	}
	return budget - part
}

// run renders one message. The library panics where a writer fails inside of a block, and in filters.
func (c compiled) run(s *state, bindings map[string]any) (text string, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = asError(r)
		}
	}()
	var out strings.Builder
	bindings[stateKey] = s
	if err := render.Render(c.root, counter{s, &out}, bindings, c.d.config); err != nil {
		if cause := err.Cause(); cause != nil {
			return "", fmt.Errorf("line %d: %w", err.LineNumber(), cause)
		}
		return "", errors.New(err.Error())
	}
	return strings.ToValidUTF8(out.String(), string(utf8.RuneError)), nil
}

// asError is what was thrown, without the stack that the library adds.
func asError(r any) error {
	if e, ok := r.(interface{ Cause() error }); ok && e.Cause() != nil {
		r = e.Cause()
	}
	if err, ok := r.(error); ok {
		return err
	}
	return fmt.Errorf("%v", r)
}
