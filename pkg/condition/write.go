package condition

import (
	"slices"

	"cel.dev/cel-go/cel"
)

// NewWriteCompiler is NewCompiler for programs that judge a write: beside event they see before and after, the entity
// then and now, or null, and changed, a list of the names of the fields that differ, as attributes.NAME below the top.
func NewWriteCompiler(maxPrograms int) (*Compiler, error) {
	return newCompiler(maxPrograms,
		cel.Variable("before", cel.DynType), cel.Variable("after", cel.DynType), cel.Variable("changed", cel.ListType(cel.StringType)))
}

// NewWrite parses an event's JSON that has members before, after and changed of its own, for the programs of a
// NewWriteCompiler. What is absent is null; changed is then what the payload's changes name.
func NewWrite(text []byte) (*Event, error) {
	e, err := NewEvent(text)
	if err != nil {
		return nil, err
	}
	fields, _ := e.vars["event"].(map[string]any)
	for _, name := range []string{"before", "after"} {
		e.vars[name] = fields[name]
		delete(fields, name)
	}
	e.vars["changed"] = changed(fields)
	delete(fields, "changed")
	return e, nil
}

func changed(fields map[string]any) (out []string) {
	out = []string{}
	if list, told := fields["changed"].([]any); told {
		for _, name := range list {
			if s, ok := name.(string); ok {
				out = append(out, s)
			}
		}
		return out
	}
	payload, _ := fields["payload"].(map[string]any)
	changes, _ := payload["changes"].(map[string]any)
	for name, change := range changes {
		if name != "attributes" {
			out = append(out, name)
			continue
		}
		both, _ := change.(map[string]any)
		for _, side := range both {
			attributes, _ := side.(map[string]any)
			for below := range attributes {
				out = append(out, "attributes."+below)
			}
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}
