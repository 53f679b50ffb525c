package runs

import (
	"sync"

	"github.com/sametick/sametick/pkg/condition"
	"github.com/sametick/sametick/services/prompt-worker/internal/hooks"
	"github.com/sametick/sametick/services/prompt-worker/internal/prompting"
)

// maxCompiled bounds what a Compiler remembers of each kind; when it is full it begins again empty.
const maxCompiled = 2000

// Compiler makes what hooks run by ready to be used, and remembers it: versions of templates never change, and a
// hook's rules and schema are found by its version. Safe for concurrent use.
type Compiler struct {
	conditions *condition.Compiler

	mu        sync.Mutex
	templates map[[3]int64]*prompting.Template
	rules     map[[2]int64]*prompting.Rules
	outputs   map[[2]int64]*prompting.Output
}

// NewCompiler makes one on a compiler of writes.
func NewCompiler(c *condition.Compiler) *Compiler {
	return &Compiler{conditions: c, templates: map[[3]int64]*prompting.Template{}, rules: map[[2]int64]*prompting.Rules{}, outputs: map[[2]int64]*prompting.Output{}}
}

// remembered finds or makes.
func remembered[K comparable, V any](c *Compiler, known map[K]V, key K, make func() (V, error)) (V, error) {
	c.mu.Lock()
	v, ok := known[key]
	c.mu.Unlock()
	if ok {
		return v, nil
	}
	v, err := make()
	if err != nil {
		return v, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(known) >= maxCompiled {
		clear(known)
	}
	known[key] = v
	return v, nil
}

// Template of an organisation's version.
func (c *Compiler) Template(orgID int64, v *hooks.Version) (*prompting.Template, error) {
	return remembered(c, c.templates, [3]int64{orgID, v.TemplateID, int64(v.Number)}, func() (*prompting.Template, error) {
		return prompting.Compile(v.Version)
	})
}

// Rules of a hook.
func (c *Compiler) Rules(h *hooks.Hook) (*prompting.Rules, error) {
	return remembered(c, c.rules, [2]int64{h.ID, h.Version}, func() (*prompting.Rules, error) {
		return prompting.CompileRules(c.conditions, h.Condition, h.Rules, h.Mode == hooks.ModeReview)
	})
}

// Output of a hook; nil when it asks for text.
func (c *Compiler) Output(h *hooks.Hook) (*prompting.Output, error) {
	if len(h.OutputSchema) == 0 || string(h.OutputSchema) == "null" {
		return nil, nil
	}
	return remembered(c, c.outputs, [2]int64{h.ID, h.Version}, func() (*prompting.Output, error) {
		return prompting.CompileOutput(h.OutputSchema)
	})
}
