package workflow

import (
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/sametick/sametick/pkg/errs"
	"github.com/sametick/sametick/pkg/event"
)

// Limits of a definition.
const (
	MaxSteps = 100
	maxName  = 500
	maxNote  = 2000
)

// Aggregate is the aggregate type of a definition's own events.
const Aggregate = "workflow_definition"

// Definition says how workflows go.
type Definition struct {
	OrgID, ID            int64
	Name                 string
	Steps                []Spec
	Version              int64
	CreatedAt, UpdatedAt time.Time
	ArchivedAt           *time.Time
}

// checkDefinition gives the faults of a definition: names, keys, needs that are none, and rings.
func checkDefinition(name string, steps []Spec) error {
	f := faults{}
	f.name("name", name)
	if len(steps) < 1 || len(steps) > MaxSteps {
		f.add("steps", "OUT_OF_RANGE", fmt.Sprintf("1 to %d steps", MaxSteps))
		return f.result()
	}
	place := map[string]int{}
	for i, s := range steps {
		at := fmt.Sprintf("steps[%d].", i)
		f.name(at+"name", s.Name)
		if !event.IsWord(s.Key) {
			f.add(at+"key", "INVALID_KEY", "[a-z][a-z0-9_]*, at most 63 characters")
		} else if first, twice := place[s.Key]; twice {
			f.add(at+"key", "DUPLICATE", fmt.Sprintf("a key that steps[%d] does not have", first))
		} else {
			place[s.Key] = i
		}
		if !slices.Contains([]string{"", Stop, Continue}, s.OnFailure) {
			f.add(at+"on_failure", "NOT_IN_ENUM", "stop (the default) or continue")
		}
	}
	f.needs(steps, place)
	return f.result()
}

func (f *faults) needs(steps []Spec, place map[string]int) {
	for i, s := range steps {
		for j, key := range s.Needs {
			at := fmt.Sprintf("steps[%d].needs[%d]", i, j)
			if _, known := place[key]; !known {
				f.add(at, "UNKNOWN_STEP", "the key of a step of this definition")
			} else if slices.Contains(s.Needs[:j], key) {
				f.add(at, "DUPLICATE", "each key once")
			}
		}
	}
	if f.err != nil {
		return
	}
	// Take away what needs nothing that is left, again and again; a ring stays.
	left := map[string]bool{}
	for key := range place {
		left[key] = true
	}
	for taken := true; taken; {
		taken = false
		for _, s := range steps {
			if left[s.Key] && !slices.ContainsFunc(s.Needs, func(key string) bool { return left[key] }) {
				delete(left, s.Key)
				taken = true
			}
		}
	}
	for i, s := range steps {
		if left[s.Key] {
			f.add(fmt.Sprintf("steps[%d].needs", i), "CYCLE", "needs that do not lead back to the step")
		}
	}
}

// complete fills in what was left out.
func complete(steps []Spec) []Spec {
	steps = slices.Clone(steps)
	for i := range steps {
		if steps[i].OnFailure == "" {
			steps[i].OnFailure = Stop
		}
		if steps[i].Needs == nil {
			steps[i].Needs = []string{}
		}
	}
	return steps
}

// faults collects the faulty fields of a request.
type faults struct{ err *errs.Error }

func (f *faults) add(field, reason, allowed string) {
	if f.err == nil {
		f.err = errs.New(errs.Invalid, "INVALID_REQUEST", "the request has invalid fields")
	}
	f.err = f.err.WithField(field, reason, allowed)
}

func (f *faults) result() error {
	if f.err == nil {
		return nil
	}
	return f.err
}

func (f *faults) name(field, s string) { f.text(field, s, 1, maxName) }

func (f *faults) text(field, s string, least, most int) {
	if n := utf8.RuneCountInString(s); n < least || n > most || !utf8.ValidString(s) || strings.ContainsRune(s, 0) {
		f.add(field, "OUT_OF_RANGE", fmt.Sprintf("%d to %d characters of UTF-8 without NUL", least, most))
	}
}
