package prompting

import (
	"fmt"
	"slices"
	"strings"
	"unicode"
)

// Masked stands where a value was hidden.
const Masked = "[masked]"

// DefaultMaskedKeys are names whose values no model sees unless an operator says otherwise.
func DefaultMaskedKeys() []string {
	return []string{"password", "passwd", "secret", "token", "api_key", "authorization", "credential", "private_key", "iban", "ssn", "credit_card", "card_number", "cvv"}
}

// Mask hides personal and secret fields of an event before a template sees it. Rules see them: they tell nobody.
// Immutable; the zero value and nil hide nothing.
type Mask struct {
	paths [][]string
	keys  []string
}

// NewMask hides what stands at a path, wherever in the event it begins (attributes.salary is hidden before, after and
// among the changes; * is any one name), and under names that contain a key, whatever their case and separators.
func NewMask(paths, keys []string) (*Mask, error) {
	m := &Mask{}
	for _, p := range paths {
		segments := strings.Split(p, ".")
		for _, s := range segments {
			if s == "" {
				return nil, fmt.Errorf("masked path %q: names with a dot between", p)
			}
		}
		m.paths = append(m.paths, segments)
	}
	for _, k := range keys {
		folded := fold(k)
		if folded == "" {
			return nil, fmt.Errorf("masked key %q has neither letter nor digit", k)
		}
		m.keys = append(m.keys, folded)
	}
	return m, nil
}

// fold keeps what distinguishes names: apiKey, API-Key and api_key are one.
func fold(name string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsLetter(r) || unicode.IsDigit(r) {
			return unicode.ToLower(r)
		}
		return -1
	}, name)
}

// apply gives a copy of a node, which stands at a path, with the hidden values replaced.
func (m *Mask) apply(node any, path []string) any {
	if m == nil {
		return node
	}
	switch n := node.(type) {
	case map[string]any:
		out := make(map[string]any, len(n))
		for name, value := range n {
			// A change is named attributes.salary in one word.
			below := slices.Concat(path, strings.Split(name, "."))
			if value != nil && (m.hidesKey(name) || m.hidesPath(below)) {
				out[name] = Masked
				continue
			}
			out[name] = m.apply(value, below)
		}
		return out
	case []any:
		out, below := make([]any, len(n)), slices.Concat(path, []string{"*"})
		for i, value := range n {
			if out[i] = m.apply(value, below); m.hidesPath(below) {
				out[i] = Masked
			}
		}
		return out
	default:
		return node
	}
}

func (m *Mask) hidesKey(name string) bool {
	folded := fold(name)
	for _, k := range m.keys {
		if strings.Contains(folded, k) {
			return true
		}
	}
	return false
}

func (m *Mask) hidesPath(path []string) bool {
	for _, p := range m.paths {
		if ends(path, p) {
			return true
		}
	}
	return false
}

func ends(path, tail []string) bool {
	if len(path) < len(tail) {
		return false
	}
	path = path[len(path)-len(tail):]
	for i, s := range tail {
		if s != "*" && s != path[i] {
			return false
		}
	}
	return true
}
