package prompting

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// lexeme has the tokens of Liquid expressions, as the library's scanner splits them: the longest first. What is not
// among them, such as the .. of ranges (a range of a billion is a billion steps), does not pass.
var lexeme = regexp.MustCompile(`^(?:("[^"]*"|'[^']*')|(-?[0-9]{1,15}(?:\.[0-9]{1,15})?)|([A-Za-z_][A-Za-z0-9_-]*\??)(:?)|\.([A-Za-z_][A-Za-z0-9_-]*\??)|([=!<>]=|[<>|,()\[\]=]))`)

// token is one of an expression.
type token struct {
	kind byte // 's'tring, 'n'umber, 'i'dentifier, 'k'eyword (with its colon), 'p'roperty, or the operator's first
	text string
}

// lex splits an expression; the problem is for its author.
func lex(text string) (out []token, problem string) {
	for rest := strings.TrimLeft(text, " \t\r\n\f\v"); rest != ""; rest = strings.TrimLeft(rest, " \t\r\n\f\v") {
		m := lexeme.FindStringSubmatch(rest)
		if m == nil {
			return nil, fmt.Sprintf("%s is not understood", clip(rest))
		}
		switch {
		case m[1] != "":
			out = append(out, token{'s', m[1]})
		case m[2] != "":
			out = append(out, token{'n', m[2]})
		case m[3] != "" && m[4] != "":
			out = append(out, token{'k', m[3]})
		case m[3] != "":
			out = append(out, token{'i', m[3]})
		case m[5] != "":
			out = append(out, token{'p', m[5]})
		default:
			out = append(out, token{m[6][0], m[6]})
		}
		rest = rest[len(m[0]):]
	}
	return out, ""
}

// operators are the words among identifiers that name no variable.
func operators() []string { return []string{"true", "false", "nil", "and", "or", "contains", "in"} }

// reserved tells whether a word cannot be a variable's name.
func reserved(name string) bool {
	return slices.Contains(operators(), name) || slices.Contains([]string{"reversed", "limit", "offset", "forloop", "empty", "blank", "null"}, name)
}

// use is what an expression names and does.
type use struct {
	variables, filters []string
	comparisons        int
}

// uses reads the tokens of an expression.
func uses(tokens []token) (u use) {
	for i, t := range tokens {
		afterPipe := i > 0 && tokens[i-1].kind == '|'
		// The values after when are compared one by one.
		if t.text == "contains" || t.text == "==" || t.text == "!=" || t.kind == ',' {
			u.comparisons++
		}
		switch {
		case afterPipe && (t.kind == 'i' || t.kind == 'k'):
			u.filters = append(u.filters, t.text)
		case t.kind == 'i' && !slices.Contains(operators(), t.text):
			u.variables = append(u.variables, t.text)
		}
	}
	return u
}

func clip(s string) string {
	const most = 60
	runes := []rune(s)
	if len(runes) > most {
		return fmt.Sprintf("%q…", string(runes[:most]))
	}
	return fmt.Sprintf("%q", s)
}
