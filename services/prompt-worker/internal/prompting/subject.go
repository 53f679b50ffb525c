package prompting

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	yaml "gopkg.in/yaml.v2" // its ordered map is the one that the Liquid library knows
)

const (
	maxSubject = 4 << 20 // bytes
	maxDepth   = 16      // segments of a path
	maxSegment = 200     // bytes
)

// roots are the fields of an event as the wire shows it, and those that a review adds.
func roots() []string {
	return []string{"id", "org_id", "aggregate_type", "aggregate_id", "event_type", "payload", "occurred_at", "before", "after", "changed"}
}

// Subject is the event that a prompt is about: its JSON on the wire and, in a review, before, after and changed.
// Immutable.
type Subject struct{ doc map[string]any }

// ParseSubject reads one JSON object.
func ParseSubject(text []byte) (*Subject, error) {
	if len(text) > maxSubject {
		return nil, fmt.Errorf("an event of %d bytes, at most %d", len(text), maxSubject)
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	var doc map[string]any
	if err := d.Decode(&doc); err != nil {
		return nil, err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("more than one JSON value")
	}
	return &Subject{doc}, nil
}

// parsePath splits a path into an event, such as payload.record_name or after.attributes.tags.0; the problem is
// for its author.
func parsePath(path string) (segments []string, problem string) {
	if path == "" {
		return nil, ""
	}
	segments = strings.Split(path, ".")
	switch {
	case !slices.Contains(roots(), segments[0]):
		return nil, "a path that begins with one of: " + strings.Join(roots(), ", ")
	case len(segments) > maxDepth:
		return nil, fmt.Sprintf("at most %d parts", maxDepth)
	}
	for _, s := range segments {
		if s == "" || len(s) > maxSegment || !utf8.ValidString(s) || strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) {
			return nil, fmt.Sprintf("names of at most %d bytes with a dot between", maxSegment)
		}
	}
	return segments, ""
}

// at gives what stands at a path; nil for nothing.
func at(node any, path []string) any {
	for _, name := range path {
		switch n := node.(type) {
		case map[string]any:
			node = n[name]
		case []any:
			i, err := strconv.Atoi(name)
			if err != nil || i < 0 || i >= len(n) {
				return nil
			}
			node = n[i]
		default:
			return nil
		}
	}
	return node
}

// plain makes of JSON what Liquid can work with. Integers of 64 bits stay exact; fractions become float64; what
// neither can hold stays text. Objects get an order, so that a loop over one gives the same prompt each time.
func plain(node any) any {
	switch n := node.(type) {
	case json.Number:
		if i, err := strconv.Atoi(n.String()); err == nil {
			return i
		}
		if f, err := n.Float64(); err == nil && strings.ContainsAny(n.String(), ".eE") {
			return f
		}
		return n
	case map[string]any:
		out := make(yaml.MapSlice, 0, len(n))
		for _, name := range slices.Sorted(maps.Keys(n)) {
			out = append(out, yaml.MapItem{Key: name, Value: plain(n[name])})
		}
		return out
	case []any:
		out := make([]any, len(n))
		for i, value := range n {
			out[i] = plain(value)
		}
		return out
	default:
		return node
	}
}
