package event

import (
	"slices"
	"strings"
)

// Type is an aggregate type of the specification.
type Type = string

// builtin is the specification's list of aggregate types, in its order.
func builtin() []Type {
	return []Type{
		"task", "employee", "workflow", "step", "survey", "survey_response", "feedback", "kudos",
		"calendar_event", "announcement", "position", "role", "team", "user", "organization",
		"api_key", "webhook_endpoint",
	}
}

// Types gives the seventeen aggregate types that are built in. The slice is the caller's.
func Types() []Type { return builtin() }

// IsWord tells whether s has the form of a type's name or an action's: [a-z][a-z0-9_]*, at most 63 bytes.
func IsWord(s string) bool {
	if s == "" || len(s) > 63 || s[0] < 'a' || s[0] > 'z' {
		return false
	}
	return strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789_") == ""
}

// IsType tells whether a type is built in.
func IsType(t string) bool { return slices.Contains(builtin(), t) }

// Operations that have lifecycle phases; each fires pre_ and post_ events.
const (
	Create  = "create"
	Update  = "update"
	Archive = "archive"
	Export  = "export"
)

// Pre and Post make a phase of an operation: Pre(Create) is "pre_create".
func Pre(operation string) string { return "pre_" + operation }

// Post is the phase after the write; see Pre.
func Post(operation string) string { return "post_" + operation }

// TypeOf names an event: {aggregate_type}.{action}.
func TypeOf(aggregateType, action string) string { return aggregateType + "." + action }

// Pattern selects event types: an exact one ("task.post_create"), all of an aggregate ("task.*"), one
// action of all ("*.post_create") or everything ("*", "*.*").
type Pattern struct{ aggregate, action string }

// ParsePattern reads a pattern. It reports false for what is none: empty parts, a wildcard inside a
// word, characters that no event type has.
func ParsePattern(s string) (Pattern, bool) {
	if s == "*" {
		return Pattern{"*", "*"}, true
	}
	aggregate, action, ok := strings.Cut(s, ".")
	if !ok || !isPart(aggregate) || !isPart(action) {
		return Pattern{}, false
	}
	return Pattern{aggregate, action}, true
}

// Match tells whether an event type is selected.
func (p Pattern) Match(eventType string) bool {
	aggregate, action, ok := strings.Cut(eventType, ".")
	return ok && (p.aggregate == "*" || p.aggregate == aggregate) && (p.action == "*" || p.action == action)
}

func isPart(s string) bool {
	if s == "*" {
		return true
	}
	if s == "" || len(s) > 63 {
		return false
	}
	for i := range len(s) {
		c := s[i]
		if (c < 'a' || c > 'z') && c != '_' && (i == 0 || c < '0' || c > '9') {
			return false
		}
	}
	return true
}
