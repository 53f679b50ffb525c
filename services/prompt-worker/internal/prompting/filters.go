package prompting

import (
	"fmt"
	"strings"

	"github.com/osteele/liquid/render"
	yaml "gopkg.in/yaml.v2"
)

// filterNames are the filters that a template may use: each takes time and room in proportion to what it is given.
// The library's others sort, compare each with each, compile patterns or format by widths that a value may choose.
func filterNames() []string {
	return []string{"abs", "append", "ceil", "compact", "concat", "default", "divided_by", "downcase", "first", "floor", "join", "last", "map", "minus",
		"modulo", "plus", "prepend", "remove", "replace", "reverse", "round", "size", "split", "strip", "times", "truncate", "upcase"}
}

// addFilters puts bounded ones in the place of those of the library that make much of little.
func addFilters(c *render.Config) {
	c.AddFilter("append", func(s, suffix string) (string, error) { return bounded(s, suffix) })
	c.AddFilter("prepend", func(s, prefix string) (string, error) { return bounded(prefix, s) })
	c.AddFilter("replace", replace)
	c.AddFilter("remove", func(s, old string) (string, error) { return replace(s, old, "") })
	c.AddFilter("join", join)
	c.AddFilter("split", split)
	c.AddFilter("concat", func(a, b []any) ([]any, error) {
		if len(a)+len(b) > maxItems {
			return nil, errItems
		}
		return append(append(make([]any, 0, len(a)+len(b)), a...), b...), nil
	})
	c.AddFilter("truncate", truncate)
	c.AddFilter("size", size)
}

const maxItems = 20_000

var errItems = fmt.Errorf("a list of more than %d items", maxItems)

func bounded(parts ...string) (string, error) {
	n := 0
	for _, p := range parts {
		n += len(p)
	}
	if n > maxData {
		return "", errTooMuch
	}
	return strings.Join(parts, ""), nil
}

func replace(s, old, with string) (string, error) {
	if len(s)+strings.Count(s, old)*max(len(with)-len(old), 0) > maxData {
		return "", errTooMuch
	}
	return strings.ReplaceAll(s, old, with), nil
}

func join(items []any, separator func(string) string) (string, error) {
	var b strings.Builder
	between := separator(" ")
	for i, item := range items {
		if i > 0 {
			b.WriteString(between)
		}
		if weigh(item, maxData) < 0 {
			return "", errTooMuch
		}
		if item != nil {
			fmt.Fprint(&b, item)
		}
		if b.Len() > maxData {
			return "", errTooMuch
		}
	}
	return b.String(), nil
}

func split(s, separator string) ([]any, error) {
	if separator == "" && len(s) > maxItems || separator != "" && strings.Count(s, separator) >= maxItems {
		return nil, errItems
	}
	parts := strings.Split(s, separator)
	out := make([]any, len(parts))
	for i, p := range parts {
		out[i] = p
	}
	return out, nil
}

// truncate cuts to a number of characters, the ellipsis among them.
func truncate(s string, length func(int) int, ellipsis func(string) string) string {
	runes, end := []rune(s), []rune(ellipsis("…"))
	n := max(length(50), 0)
	if len(runes) <= n {
		return s
	}
	return string(runes[:max(n-len(end), 0)]) + string(end[:min(len(end), n)])
}

// size counts characters or items.
func size(value any) int {
	switch v := value.(type) {
	case string:
		return len([]rune(v))
	case []any:
		return len(v)
	case yaml.MapSlice:
		return len(v)
	default:
		return 0
	}
}
