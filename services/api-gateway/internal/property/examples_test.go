package property_test

import "github.com/sametick/sametick/services/api-gateway/internal/gatewaytest"

// examples are words that the document describes in sentences and not in schemas, by the name of the field:
// without them hardly a request would come further than to its first rule.
func examples() map[string][]any {
	return map[string][]any{
		"type":           {"task", "employee", "workflow", "step", "team"},
		"aggregate_type": {"task", "employee", "workflow", "step", "team"},
		"event_type":     {"task.post_create", "task.*"},
		"scope":          {"records:read", "events:read"},
		"order":          {"asc", "desc"},
		"format":         {"csv", "ndjson"},
		"from":           {"2026-04-12", "2026-04-12T14:30:00Z"},
		"to":             {"2036-04-12"},
		"email":          {"ann@acme.example"},
		"password":       {gatewaytest.Password},
		"name":           {"alpha", "beta_2", "gamma", "delta"},
		"key":            {"first", "second"},
		"on_failure":     {"stop", "continue"},
		"limit":          {1, 100},
		"page":           {1, 2},
		"version":        {1},
		"steps":          {[]any{object{"key": "first", "name": "alpha"}, object{"key": "second", "name": "beta", "approval": true}}},
		"schema":         {object{"type": "object", "properties": object{"size": object{"type": "integer"}}}},
	}
}

// exampleLikely is how often, in a hundred, an example is taken where there is one.
const exampleLikely = 75
