package prompting

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"strings"
	"time"

	yaml "gopkg.in/yaml.v2"
)

// Prompt is a rendered template.
type Prompt struct {
	// System always has the fence's sentence.
	System string
	// User has at least one text.
	User  []string
	Fence Fence
}

// Messages are those of the prompt in order, the system message first.
func (p Prompt) Messages() []Message {
	out := []Message{{RoleSystem, p.System}}
	for _, text := range p.User {
		out = append(out, Message{RoleUser, text})
	}
	return out
}

// Digest is the same for the same template and data, whatever the nonce: what caches compare.
func (p Prompt) Digest() string {
	var all []byte
	for _, m := range p.Messages() {
		text := strings.ReplaceAll(m.Text, p.Fence.nonce, "")
		all = fmt.Appendf(all, "%s %d\n%s", m.Role, len(text), text)
	}
	sum := sha256.Sum256(all)
	return hex.EncodeToString(sum[:])
}

// Render makes a prompt of an event, for a second at most. System messages see the fixed values alone; in those of the
// user every part of the event is fenced. A mask hides fields. Errors are *ModelError: CauseTemplate, or CauseTimeout when ctx ended.
func (t *Template) Render(ctx context.Context, s *Subject, mask *Mask) (Prompt, error) {
	return t.render(ctx, s, mask, rand.Reader)
}

func (t *Template) render(ctx context.Context, s *Subject, mask *Mask, random io.Reader) (Prompt, error) {
	if ctx.Err() != nil {
		return Prompt{}, &ModelError{Cause: CauseTimeout, Text: "no time to render the template"}
	}
	p, err := t.prompt(ctx, s, mask, random)
	if err != nil {
		return Prompt{}, &ModelError{Cause: CauseTemplate, Text: err.Error()}
	}
	return p, nil
}

func (t *Template) prompt(ctx context.Context, s *Subject, mask *Mask, random io.Reader) (p Prompt, err error) {
	fixed, all, err := t.bind(s, mask)
	if err != nil {
		return p, err
	}
	if p.Fence, err = drawFence(random, func(nonce string) bool { return strings.Contains(t.source, nonce) || holds(all, nonce) }); err != nil {
		return p, err
	}
	st := &state{fence: p.Fence, deadline: time.Now().Add(maxTime), left: maxPrompt}
	if end, ok := ctx.Deadline(); ok && end.Before(st.deadline) {
		st.deadline = end
	}
	var system []string
	for i, m := range t.messages {
		bindings := all
		if m.role == RoleSystem {
			bindings = fixed
		}
		text, err := m.run(st, bindings)
		if err != nil {
			return p, fmt.Errorf("messages[%d]: %w", i, err)
		}
		if m.role == RoleSystem {
			system = append(system, text)
		} else {
			p.User = append(p.User, text)
		}
	}
	p.System = strings.Join(append(system, p.Fence.Sentence()), "\n\n")
	return p, nil
}

// bind gives the variables for system messages and those for the user's.
func (t *Template) bind(s *Subject, mask *Mask) (fixed, all map[string]any, err error) {
	fixed, all = map[string]any{}, map[string]any{}
	hidden := mask.event(s.doc)
	budget := maxData
	for _, v := range t.variables {
		if v.Fixed() {
			fixed[v.Name], all[v.Name] = v.Value, v.Value
			continue
		}
		value := plain(at(hidden, v.path))
		if value == nil && v.Required {
			return nil, nil, fmt.Errorf("the event has nothing at %s", v.Path)
		}
		if budget = weigh(value, budget); budget < 0 {
			return nil, nil, fmt.Errorf("the event has more than %d bytes in the variables of the template", maxData)
		}
		all[v.Name] = value
	}
	return fixed, all, nil
}

// holds tells whether a text occurs in a value.
func holds(value any, text string) bool {
	switch v := value.(type) {
	case string:
		return strings.Contains(v, text)
	case map[string]any:
		for _, item := range v {
			if holds(item, text) {
				return true
			}
		}
	case yaml.MapSlice:
		for _, item := range v {
			if holds(item.Key, text) || holds(item.Value, text) {
				return true
			}
		}
	case []any:
		for _, item := range v {
			if holds(item, text) {
				return true
			}
		}
	}
	return false
}
