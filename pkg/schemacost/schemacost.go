// Package schemacost bounds what a stranger's JSON Schema makes the validator do.
package schemacost

import (
	"maps"
	"slices"

	"github.com/santhosh-tekuri/jsonschema/v6"
)

// Max bounds the subschemas of a stranger's schema, each counted as often as it is referred to: the validator looks at
// each anew, so 20 definitions that name the next one twice took 1.1 s for {}, and each one more doubled it.
const Max = 2000

// TooHigh says whether a schema has more than Max subschemas. One that refers to itself has, because with recursion
// the data says how long a check takes.
func TooHigh(s *jsonschema.Schema) bool { return costs{}.of(s) > Max }

// costs remembers what schemas cost; one that is being counted has recursion in it.
type costs map[*jsonschema.Schema]int

func (c costs) of(s *jsonschema.Schema) int {
	if s == nil {
		return 0
	}
	if known, ok := c[s]; ok {
		return known
	}
	c[s] = Max + 1
	n := 1
	for _, part := range parts(s) {
		n = min(n+c.of(part), Max+1)
	}
	c[s] = n
	return n
}

// parts are the schemas that s applies, to its own value or to one within. The keywords of older drafts that the
// validator also keeps in items and dependencies are among them.
func parts(s *jsonschema.Schema) []*jsonschema.Schema {
	out := []*jsonschema.Schema{s.Ref, s.RecursiveRef, s.Not, s.If, s.Then, s.Else, s.PropertyNames, s.UnevaluatedProperties,
		s.Contains, s.Items2020, s.UnevaluatedItems, s.ContentSchema}
	if s.DynamicRef != nil {
		out = append(out, s.DynamicRef.Ref)
	}
	for _, list := range [][]*jsonschema.Schema{s.AllOf, s.AnyOf, s.OneOf, s.PrefixItems} {
		out = append(out, list...)
	}
	out = slices.AppendSeq(out, maps.Values(s.Properties))
	out = slices.AppendSeq(out, maps.Values(s.PatternProperties))
	out = slices.AppendSeq(out, maps.Values(s.DependentSchemas))
	others := slices.AppendSeq([]any{s.AdditionalProperties, s.Items, s.AdditionalItems}, maps.Values(s.Dependencies))
	for _, other := range others {
		switch other := other.(type) {
		case *jsonschema.Schema:
			out = append(out, other)
		case []*jsonschema.Schema:
			out = append(out, other...)
		}
	}
	return out
}
