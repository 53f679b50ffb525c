package hooks

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/sametick/sametick/pkg/errs"
	"github.com/sametick/sametick/pkg/event"
)

// Limits of Settings.
const (
	maxName      = 200 // characters
	maxPatterns  = 50
	maxFallbacks = 5
	maxTools     = 50 // of all servers
)

type faults struct{ err *errs.Error }

func (f *faults) add(bad bool, field, reason, allowed string) {
	if !bad {
		return
	}
	if f.err == nil {
		f.err = errs.New(errs.Invalid, "INVALID_HOOK", "the hook cannot be used")
	}
	f.err = f.err.WithField(field, reason, allowed)
}

// Check refuses settings that contradict themselves. Its error is an *errs.Error of kind Invalid. Whether its CEL, its
// schema and its template can be used, prompting says; whether what it names is there, the store.
func Check(s *Settings) error {
	f := &faults{}
	f.add(s.Name == "" || utf8.RuneCountInString(s.Name) > maxName, "name", "REQUIRED", fmt.Sprintf("1 to %d characters", maxName))
	f.add(s.Mode != ModeReview && s.Mode != ModeAsync, "mode", "NOT_IN_ENUM", "one of: review, async")
	f.add(s.FailurePolicy != FailOpen && s.FailurePolicy != FailClosed, "failure_policy", "NOT_IN_ENUM", "one of: fail_open, fail_closed")
	f.add(!slices.Contains([]string{Shadow, Warn, Enforce}, s.Enforcement), "enforcement", "NOT_IN_ENUM", "one of: shadow, warn, enforce")
	f.patterns(s)
	f.source(s)
	f.template(s)
	most := MaxAsyncTimeout.Milliseconds()
	if s.Mode == ModeReview {
		most = MaxReviewTimeout.Milliseconds()
	}
	f.add(s.TimeoutMS < 0 || int64(s.TimeoutMS) > most, "timeout_ms", "OUT_OF_RANGE", fmt.Sprintf("0 to %d", most))
	_, err := ParseParameters(s.Parameters)
	f.add(err != nil, "parameters", "INVALID_FORMAT", "an object with max_tokens and temperature")
	for _, limit := range []*int64{s.Budget.Runs, s.Budget.Tokens, s.Budget.Cost} {
		f.add(limit != nil && (*limit < 0 || s.ProviderID == 0), "budget", "OUT_OF_RANGE", "0 or more, of a hook with a provider: rules cost nothing")
	}
	if f.err == nil {
		return nil
	}
	return f.err
}

func (f *faults) patterns(s *Settings) {
	f.add(len(s.EventTypes) == 0 || len(s.EventTypes) > maxPatterns, "event_types", "OUT_OF_RANGE", fmt.Sprintf("1 to %d", maxPatterns))
	for i, text := range s.EventTypes {
		_, ok := event.ParsePattern(text)
		field := fmt.Sprintf("event_types[%d]", i)
		f.add(!ok, field, "INVALID_FORMAT", "such as task.pre_create, task.*, *.post_update")
		f.add(slices.Contains(s.EventTypes[:i], text), field, "DUPLICATE", "each once")
		if aggregate, action, _ := strings.Cut(text, "."); ok && s.Mode == ModeReview {
			f.add(!slices.Contains(reviewed(), action), field, "NOT_REVIEWED", "what can be stopped, such as task.pre_create or *.pre_update: one of "+strings.Join(reviewed(), ", "))
			why := unreviewed(aggregate)
			f.add(why != "", field, "NOT_REVIEWED", "no "+aggregate+": "+why)
		}
	}
}

// reviewed are the actions that api-gateway asks about.
func reviewed() []string {
	return []string{event.Pre(event.Create), event.Pre(event.Update), event.Pre(event.Archive), event.Pre(event.Export)}
}

// unreviewed tells why no review hook is asked about a type; empty for one that is reviewed.
func unreviewed(aggregateType string) string {
	switch aggregateType {
	case "user", "role", "organization", "api_key", "webhook_endpoint":
		return "who may do what, and where it is sent, is not for hooks to stop: one could lock everybody out"
	case TypeTemplate, TypeHook, TypeProvider, TypeServer, TypeRun, TypeBacktest:
		return "a bad hook must always be removable"
	default:
		return ""
	}
}

// source: rules or a template, and a provider for the template.
func (f *faults) source(s *Settings) {
	f.add(len(s.Rules) == 0 && s.TemplateID == 0, "template_id", "REQUIRED", "a template, or rules")
	f.add(len(s.Rules) > 0 && s.TemplateID != 0 && s.Mode == ModeAsync, "rules", "NOT_ALLOWED", "an async hook has rules or a template")
	f.add((s.TemplateID == 0) != (s.ProviderID == 0), "provider_id", "REQUIRED", "with a template, and only with one")
	f.add(len(s.FallbackProviderIDs) > maxFallbacks || len(s.FallbackProviderIDs) > 0 && s.ProviderID == 0, "fallback_provider_ids", "OUT_OF_RANGE",
		fmt.Sprintf("at most %d, beside a provider", maxFallbacks))
	schema := len(s.OutputSchema) > 0 && string(s.OutputSchema) != "null"
	f.add(schema && (s.Mode == ModeReview || s.TemplateID == 0), "output_schema", "NOT_ALLOWED", "of an async hook with a template: a review has one schema")
	tools := 0
	for _, grant := range s.Tools {
		tools += len(grant.Tools)
		f.add(grant.ServerID <= 0 || len(grant.Tools) == 0 || slices.Contains(grant.Tools, ""), "tools", "INVALID_FORMAT", "a server and names of its tools")
	}
	f.add(tools > maxTools || tools > 0 && s.TemplateID == 0, "tools", "OUT_OF_RANGE", fmt.Sprintf("at most %d, of a hook with a template", maxTools))
}

func (f *faults) template(s *Settings) {
	f.add(s.TemplateID != 0 && (s.TemplateVersion == 0) == (s.TemplateLabel == ""), "template_version", "REQUIRED", "a version or a label, one of both")
	f.add(s.TemplateID < 0 || s.TemplateVersion < 0 || s.CandidateVersion < 0, "template_version", "OUT_OF_RANGE", "from 1")
	f.add(s.CandidatePercentage < 0 || s.CandidatePercentage > 100 || s.CandidatePercentage > 0 && s.CandidateVersion == 0, "candidate_percentage", "OUT_OF_RANGE",
		"0 to 100, of a candidate_version")
}

// Parameters are what a hook may set of a model.
type Parameters struct {
	MaxTokens   int      `json:"max_tokens"`
	Temperature *float64 `json:"temperature"`
}

// ParseParameters reads those of a hook.
func ParseParameters(text json.RawMessage) (p Parameters, err error) {
	if len(text) == 0 {
		return p, nil
	}
	if err := json.Unmarshal(text, &p); err != nil || p.MaxTokens < 0 {
		return Parameters{}, errors.New("an object with max_tokens and temperature")
	}
	return p, nil
}
