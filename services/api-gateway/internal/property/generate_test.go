package property_test

import (
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/getkin/kin-openapi/openapi3"
)

// generator makes values of schemas. Everything that it draws comes from one seeded source.
type generator struct {
	*rand.Rand
	seen *memory
}

// object is a JSON object.
type object = map[string]any

func pick[T any](g *generator, list []T) T { return list[g.IntN(len(list))] }

// likely is true n times in a hundred.
func (g *generator) likely(n int) bool { return g.IntN(100) < n }

const maxDepth = 6

// value makes one that satisfies a schema; name is the property's or parameter's.
func (g *generator) value(name string, ref *openapi3.SchemaRef, depth int) any {
	if ref == nil || ref.Value == nil {
		return g.anything(depth)
	}
	s := ref.Value
	if list := examples()[name]; list != nil && g.likely(exampleLikely) {
		if v := pick(g, list); s.VisitJSON(plain(v)) == nil {
			return v
		}
	}
	switch {
	case len(s.Enum) > 0:
		return pick(g, s.Enum)
	case len(s.OneOf) > 0:
		return g.value(name, pick(g, s.OneOf), depth+1)
	case len(s.AnyOf) > 0:
		return g.value(name, pick(g, s.AnyOf), depth+1)
	case len(s.AllOf) > 0:
		return g.all(name, s.AllOf, depth)
	case s.Type == nil:
		return g.anything(depth)
	}
	types := slices.DeleteFunc(slices.Clone(s.Type.Slice()), func(t string) bool { return t == "null" })
	if (s.Nullable || len(types) < len(s.Type.Slice())) && g.likely(15) || len(types) == 0 {
		return nil
	}
	switch pick(g, types) {
	case "object":
		return g.object(s, depth)
	case "array":
		return g.array(name, s, depth)
	case "integer":
		return g.integer(name, s)
	case "number":
		return g.number(s)
	case "boolean":
		return g.likely(50)
	default:
		return g.text(name, s)
	}
}

func (g *generator) all(name string, parts openapi3.SchemaRefs, depth int) any {
	out := object{}
	for _, part := range parts {
		v := g.value(name, part, depth+1)
		members, ok := v.(object)
		if !ok {
			return v
		}
		maps.Copy(out, members)
	}
	return out
}

func (g *generator) object(s *openapi3.Schema, depth int) any {
	out := object{}
	for _, name := range slices.Sorted(maps.Keys(s.Properties)) {
		property := s.Properties[name]
		required := slices.Contains(s.Required, name)
		if property.Value != nil && property.Value.ReadOnly || !required && (depth >= maxDepth || g.likely(45)) {
			continue
		}
		v := g.value(name, property, depth+1)
		if v == unknown && !required {
			continue
		}
		out[name] = v
	}
	free := s.AdditionalProperties.Has != nil && *s.AdditionalProperties.Has || s.AdditionalProperties.Schema != nil
	if free && depth < maxDepth && len(s.Properties) == 0 {
		for range g.IntN(3) { // names that no type has
			out[pick(g, []string{"own field", "β", "a b", "k0"})] = g.value("", s.AdditionalProperties.Schema, depth+1)
		}
	}
	return out
}

func (g *generator) array(name string, s *openapi3.Schema, depth int) any {
	n := int(s.MinItems) + g.IntN(3)
	if s.MaxItems != nil {
		n = min(n, int(*s.MaxItems))
	}
	out := []any{}
	for range n {
		v := g.value(strings.TrimSuffix(name, "s"), s.Items, depth+1)
		if v == unknown || s.UniqueItems && slices.ContainsFunc(out, func(o any) bool { return fmt.Sprint(o) == fmt.Sprint(v) }) {
			continue
		}
		out = append(out, v)
	}
	if len(out) < int(s.MinItems) && !s.UniqueItems {
		return unknown
	}
	return out
}

// unknown stands for a reference to something that no answer has shown yet.
const unknown = "\x00unknown"

// integer is the id of something that was seen, when the name is an id's.
func (g *generator) integer(name string, s *openapi3.Schema) any {
	if of, ok := strings.CutSuffix(name, "_id"); ok || name == "id" {
		if id, found := g.seen.id(g, of); found {
			return id
		}
		return unknown
	}
	low, high := int64(-5), int64(1000)
	if s.Min != nil {
		low = int64(math.Ceil(*s.Min))
		high = max(high, low+1000)
	}
	if s.Max != nil {
		high = int64(math.Min(math.Floor(*s.Max), 1e15))
	}
	if g.likely(15) {
		return low
	}
	if g.likely(15) {
		return high
	}
	return low + g.Int64N(high-low+1)
}

func (g *generator) number(s *openapi3.Schema) any {
	low, high := -1e6, 1e6
	if s.Min != nil {
		low = *s.Min
		high = max(high, low+1)
	}
	if s.Max != nil {
		high = *s.Max
	}
	return math.Round((low+g.Float64()*(high-low))*1000) / 1000
}

// words are texts that have broken something somewhere.
func words() []string {
	return []string{"x", "Ångström", "日本語", "😀", "a\"b\\c", "'; DROP TABLE records; --", "<script>", "null", "0", "-1", "true", "%00", "../..", "a\tb\nc", "\u202e", "İ", "ß"}
}

func (g *generator) text(name string, s *openapi3.Schema) any {
	switch s.Format {
	case "date-time":
		return time.Unix(1.9e9+g.Int64N(1e8), 0).UTC().Format("2006-01-02T15:04:05.000Z")
	case "date":
		return time.Unix(1.5e9+g.Int64N(4e8), 0).UTC().Format(time.DateOnly)
	case "email":
		return fmt.Sprintf("p%d@property.example", g.IntN(1e9))
	case "uuid":
		return fmt.Sprintf("%08x-0000-4000-8000-%012x", g.Uint32(), g.Uint64()&0xffffffffffff)
	case "uri", "url":
		return fmt.Sprintf("https://property.example/%d", g.IntN(1e6))
	}
	if v, ok := g.seen.text(g, name); ok && g.likely(50) {
		return v
	}
	out := pick(g, words()) + fmt.Sprint(g.IntN(1e6))
	if s.Pattern != "" {
		out = matching(g, s.Pattern)
	}
	for len([]rune(out)) < int(s.MinLength) {
		out += "y"
	}
	if s.MaxLength != nil && len([]rune(out)) > int(*s.MaxLength) {
		out = string([]rune(out)[:*s.MaxLength])
	}
	return out
}

// anything is any JSON that attributes may be.
func (g *generator) anything(depth int) any {
	switch n := g.IntN(8); {
	case n == 0 && depth < maxDepth:
		return []any{g.anything(depth + 1), g.anything(depth + 1)}
	case n == 1 && depth < maxDepth:
		return object{pick(g, []string{"a", "b", "ключ"}): g.anything(depth + 1)}
	case n == 2:
		return g.likely(50)
	case n == 3:
		return float64(g.IntN(1e9)) / 4
	case n == 4:
		return g.Int64N(1 << 53)
	case n == 5:
		return nil
	default:
		return pick(g, words())
	}
}

// memory is what earlier answers have shown.
type memory struct{ objects []object }

// maxObjects bounds the memory: the newest are kept.
const maxObjects = 2000

// take remembers every object of an answer that has an id.
func (m *memory) take(v any) {
	switch v := v.(type) {
	case object:
		if _, ok := v["id"]; ok {
			m.objects = append(m.objects, v)
			if len(m.objects) > maxObjects {
				m.objects = slices.Delete(m.objects, 0, maxObjects/2)
			}
		}
		for _, name := range slices.Sorted(maps.Keys(v)) {
			m.take(v[name])
		}
	case []any:
		for _, item := range v {
			m.take(item)
		}
	}
}

// id is the id of something of a type, or of anything.
func (m *memory) id(g *generator, of string) (any, bool) {
	var found []any
	for _, o := range m.objects {
		if of == "" || o["type"] == of && o["archived_at"] == nil {
			found = append(found, o["id"])
		}
	}
	if len(found) == 0 {
		return nil, false
	}
	return pick(g, found), true
}

// text is what something seen has by that name.
func (m *memory) text(g *generator, name string) (any, bool) {
	if len(m.objects) == 0 || name == "name" {
		return nil, false
	}
	v, ok := pick(g, m.objects)[name].(string)
	return v, ok && v != ""
}
