package prompting

import (
	"fmt"
	"slices"
	"strings"

	"github.com/osteele/liquid/expressions"
	"github.com/osteele/liquid/parser"
)

// maxWork bounds the filters and comparisons of a whole version, each of which may read a whole value: between two looks
// at the clock there are at most so many.
const maxWork = 500

// problem is what is wrong in a line of a message.
type problem struct {
	line         int
	reason, text string
}

// scope is what is known while a message is read from its beginning to its end.
type scope struct {
	// declared tells of each declared name whether its value is fixed.
	declared map[string]bool
	local    map[string]bool
	system   bool
	// work is what the version may still do.
	work     *int
	problems []problem
	line     int
}

func (s *scope) fault(reason, format string, args ...any) {
	s.problems = append(s.problems, problem{s.line, reason, fmt.Sprintf(format, args...)})
}

// output reads the expression of {{ … }} and tells whether what it gives is data: whether a variable has part in it
// that comes from the event or through a name that the template made.
func (s *scope) output(text string) (data bool) {
	tokens := s.expression(text, "", text)
	for _, name := range uses(tokens).variables {
		if name != loopName && !s.declared[name] {
			return true
		}
	}
	return false
}

// expression checks the grammar of a text, by the library with what the library wants before it, and the names of part.
func (s *scope) expression(text, selector, part string) []token {
	tokens, problem := lex(part)
	if problem == "" && strings.Contains(text, "%}") {
		problem = "%} inside of an expression"
	}
	if problem != "" {
		s.fault("SYNTAX", "%s", problem)
		return nil
	}
	if err := parse(selector, text); err != nil {
		s.fault("SYNTAX", "%s is no expression", clip(text))
		return nil
	}
	u := uses(tokens)
	for _, name := range u.variables {
		s.variable(name)
	}
	for _, name := range u.filters {
		if !slices.Contains(filterNames(), name) {
			s.fault("UNKNOWN_FILTER", "no filter is named %s; one of: %s", clip(name), strings.Join(filterNames(), ", "))
		}
	}
	work := len(u.filters) + u.comparisons
	if *s.work -= work; *s.work < 0 && *s.work+work >= 0 {
		s.fault("TOO_COMPLEX", "more than %d filters and comparisons in all messages", maxWork)
	}
	return tokens
}

func (s *scope) variable(name string) {
	fixed, known := s.declared[name]
	switch {
	case known && s.system && !fixed:
		s.fault("NOT_ALLOWED", "%s comes from the event, which no system message sees: use it in a message of the user", name)
	case !known && !s.local[name]:
		s.fault("UNDECLARED_VARIABLE", "no variable is named %s", clip(name))
	}
}

// define notes a name that the template makes.
func (s *scope) define(name string) {
	_, known := s.declared[name]
	switch {
	case !isName(name) || reserved(name):
		s.fault("SYNTAX", "%s cannot be a variable's name", clip(name))
	case known:
		s.fault("NOT_ALLOWED", "%s is declared, and keeps its value", name)
	}
	if s.local == nil {
		s.local = map[string]bool{}
	}
	s.local[name] = true
}

// assign reads NAME = EXPRESSION.
func (s *scope) assign(text string) {
	name, value, ok := strings.Cut(text, "=")
	if !ok {
		s.fault("SYNTAX", "assign NAME = VALUE")
		return
	}
	s.expression(text, expressions.AssignStatementSelector, value)
	s.define(strings.TrimSpace(name))
}

// loop reads NAME in EXPRESSION reversed limit: N offset: N.
func (s *scope) loop(text string) {
	tokens, problem := lex(text)
	if problem == "" && (len(tokens) < 3 || tokens[0].kind != 'i' || tokens[1].text != "in") {
		problem = "for NAME in VALUE"
	}
	if problem != "" {
		s.fault("SYNTAX", "%s", problem)
		return
	}
	_, rest, _ := strings.Cut(text, tokens[0].text)
	_, rest, _ = strings.Cut(rest, "in")
	s.local = with(s.local, loopName, reversed)
	s.expression(text, expressions.LoopStatementSelector, rest)
	delete(s.local, reversed)
	s.define(tokens[0].text)
}

// Names that loops have of themselves.
const (
	loopName = "forloop"
	reversed = "reversed"
)

func with(set map[string]bool, names ...string) map[string]bool {
	if set == nil {
		set = map[string]bool{}
	}
	for _, n := range names {
		set[n] = true
	}
	return set
}

// parse asks the library whether it reads an expression or, with a selector, a statement.
func parse(selector, text string) (err error) {
	defer func() {
		if r := recover(); r != nil { // its lexer panics on numbers that it cannot hold
			err = fmt.Errorf("%v", r)
		}
	}()
	if selector == "" {
		_, err = expressions.Parse(text)
		return err
	}
	_, err = expressions.ParseStatement(selector, text)
	return err
}

// tag reads a tag and keeps the stack of the blocks that are open.
func (s *scope) tag(t parser.Token, open []string) []string {
	top := ""
	if len(open) > 0 {
		top = open[len(open)-1]
	}
	switch t.Name {
	case "assign":
		s.assign(t.Args)
	case "for":
		s.loop(t.Args)
		return append(open, "for")
	case "if", "unless", "case":
		s.expression(t.Args, "", t.Args)
		return append(open, t.Name)
	case "elsif":
		s.clause(t.Name, top, "if")
		s.expression(t.Args, "", t.Args)
	case "when":
		s.clause(t.Name, top, "case")
		s.expression(t.Args, expressions.WhenStatementSelector, t.Args)
	case "else":
		s.clause(t.Name, top, "if", "unless", "case", "for")
	case "break", "continue":
		if !slices.Contains(open, "for") {
			s.fault("SYNTAX", "%s outside of a loop", t.Name)
		}
	default:
		block, isEnd := strings.CutPrefix(t.Name, "end")
		if !isEnd || !slices.Contains([]string{"if", "unless", "case", "for"}, block) {
			s.fault("UNKNOWN_TAG", "no tag is named %s; one of: assign, if, unless, case, for, break, continue, comment, raw", clip(t.Name))
			return open
		}
		s.clause(t.Name, top, block)
		if top == block {
			return open[:len(open)-1]
		}
	}
	return open
}

func (s *scope) clause(name, top string, wanted ...string) {
	if !slices.Contains(wanted, top) {
		s.fault("SYNTAX", "%s without %s", name, strings.Join(wanted, " or "))
	}
}
