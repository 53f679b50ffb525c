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
	// longest is of the paths: what lies further up decides nothing.
	longest int
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
		m.paths, m.longest = append(m.paths, segments), max(m.longest, len(segments))
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

// event gives a copy of an event with the hidden values replaced. In payload.changes both sides of a change stand where
// its field does.
func (m *Mask) event(doc map[string]any) map[string]any {
	if m == nil {
		return doc
	}
	out, _ := m.apply(doc, nil).(map[string]any)
	was, _ := doc["payload"].(map[string]any)
	changes, _ := was["changes"].(map[string]any)
	payload, _ := out["payload"].(map[string]any)
	hidden, _ := payload["changes"].(map[string]any) // not when all of it is hidden
	for field, change := range changes {
		both, isMap := change.(map[string]any)
		path := strings.Split(field, ".")
		switch {
		case hidden == nil || hidden[field] == Masked:
		case m.hidesPath(path):
			hidden[field] = Masked
		case isMap:
			for side, value := range both {
				if both, ok := hidden[field].(map[string]any); ok && both[side] != Masked {
					both[side] = m.apply(value, path)
				}
			}
		}
	}
	return out
}

// apply gives a copy of a node, which stands at a path, with the hidden values replaced.
func (m *Mask) apply(node any, path []string) any {
	switch n := node.(type) {
	case map[string]any:
		out := make(map[string]any, len(n))
		for name, value := range n {
			below := m.below(path, strings.Split(name, ".")) // outside producers write attributes.salary in one word
			if value != nil && (m.hidesKey(name) || m.hidesPath(below)) {
				out[name] = Masked
				continue
			}
			out[name] = m.apply(value, below)
		}
		return out
	case []any:
		out, below := make([]any, len(n)), m.below(path, []string{"*"})
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

// below is the end of a path, however deep it goes.
func (m *Mask) below(path, names []string) []string {
	all := slices.Concat(path, names)
	return all[max(len(all)-m.longest, 0):]
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
