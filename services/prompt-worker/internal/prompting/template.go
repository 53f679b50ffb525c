package prompting

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/sametick/sametick/pkg/errs"
)

// Limits of a template's version.
const (
	MaxText      = 64 << 10 // bytes, of all messages and fixed values together
	MaxMessages  = 32
	MaxVariables = 64
)

// Roles of messages.
const (
	RoleSystem = "system"
	RoleUser   = "user"
)

// Message is one of a template (Liquid) or of a prompt.
type Message struct {
	Role string `json:"role"`
	Text string `json:"text"`
}

// Variable is a name that a template may use: a path into the event, which is data, or a fixed value, which is the
// author's own text.
type Variable struct {
	Name string `json:"name"`
	// Path is empty for a fixed value.
	Path  string `json:"path,omitempty"`
	Value string `json:"value,omitempty"`
	// Required makes rendering fail when the event has nothing, or null, at the path.
	Required bool `json:"required,omitempty"`
}

// Fixed tells whether the value is the author's and the same for every event.
func (v Variable) Fixed() bool { return v.Path == "" }

// Version is what an author writes of a template. It never changes once stored.
type Version struct {
	Messages  []Message
	Variables []Variable
}

// Template is a version that may be rendered. Safe for concurrent use.
type Template struct {
	messages  []compiled
	variables []variable
	source    string
}

type variable struct {
	Variable
	path []string
}

type faults struct{ err *errs.Error }

func (f *faults) add(field, reason, format string, args ...any) {
	const most = 20
	if f.err == nil {
		f.err = errs.New(errs.Invalid, "INVALID_TEMPLATE", "the template cannot be used")
	}
	if len(f.err.Fields) < most {
		f.err = f.err.WithField(field, reason, fmt.Sprintf(format, args...))
	}
}

func (f *faults) result() error {
	if f.err == nil {
		return nil
	}
	return f.err
}

// Compile checks a version and makes it ready to be rendered. Its error is an *errs.Error of kind Invalid whose
// fields name the message and the line.
func Compile(v Version) (*Template, error) {
	var f faults
	f.sizes(v)
	if f.err != nil {
		return nil, f.err
	}
	t := &Template{variables: f.variables(v.Variables)}
	d, left := newDialect(), maxWork
	var source strings.Builder
	for i, m := range v.Messages {
		field := fmt.Sprintf("messages[%d].text", i)
		names := scope{declared: map[string]bool{}, system: m.Role == RoleSystem, work: &left}
		for _, known := range t.variables {
			names.declared[known.Name] = known.Fixed()
		}
		c, problems := d.compile(m, names)
		for _, p := range problems {
			f.add(field, p.reason, "line %d: %s", p.line, p.text)
		}
		t.messages = append(t.messages, c)
		source.WriteString(m.Text)
	}
	t.source = source.String()
	return t, f.result()
}

func (f *faults) sizes(v Version) {
	if len(v.Messages) > MaxMessages {
		f.add("messages", "OUT_OF_RANGE", "at most %d", MaxMessages)
	}
	if len(v.Variables) > MaxVariables {
		f.add("variables", "OUT_OF_RANGE", "at most %d", MaxVariables)
	}
	size, users := 0, 0
	for i, m := range v.Messages {
		switch m.Role {
		case RoleUser:
			users++
		case RoleSystem:
		default:
			f.add(fmt.Sprintf("messages[%d].role", i), "NOT_IN_ENUM", "one of: system, user")
		}
		if !utf8.ValidString(m.Text) {
			f.add(fmt.Sprintf("messages[%d].text", i), "INVALID_FORMAT", "text in UTF-8")
		}
		if strings.TrimSpace(m.Text) == "" {
			f.add(fmt.Sprintf("messages[%d].text", i), "REQUIRED", "a text")
		}
		size += len(m.Text)
	}
	for _, known := range v.Variables {
		size += len(known.Value)
	}
	if users == 0 {
		f.add("messages", "REQUIRED", "a message of the user: data stands nowhere else")
	}
	if size > MaxText {
		f.add("messages", "OUT_OF_RANGE", "at most %d bytes of text together with fixed values", MaxText)
	}
}

func (f *faults) variables(list []Variable) (out []variable) {
	seen := map[string]bool{}
	for i, v := range list {
		at := fmt.Sprintf("variables[%d]", i)
		switch {
		case !isName(v.Name):
			f.add(at+".name", "INVALID_FORMAT", "a letter or _, then letters, digits and _, at most %d", maxName)
		case reserved(v.Name):
			f.add(at+".name", "NOT_ALLOWED", "no word of Liquid's own, as %s is", v.Name)
		case seen[v.Name]:
			f.add(at+".name", "DUPLICATE", "each name once")
		}
		seen[v.Name] = true
		if (v.Path == "") == (v.Value == "") {
			f.add(at, "INVALID_FORMAT", "a path or a fixed value, one of both")
		}
		if !utf8.ValidString(v.Value) {
			f.add(at+".value", "INVALID_FORMAT", "text in UTF-8")
		}
		path, problem := parsePath(v.Path)
		if problem != "" {
			f.add(at+".path", "INVALID_FORMAT", "%s", problem)
		}
		out = append(out, variable{v, path})
	}
	return out
}

const maxName = 63

func isName(s string) bool {
	if s == "" || len(s) > maxName {
		return false
	}
	for i, r := range s {
		letter := r == '_' || r < 0x80 && unicode.IsLetter(r)
		if !letter && (i == 0 || r < '0' || r > '9') {
			return false
		}
	}
	return true
}
