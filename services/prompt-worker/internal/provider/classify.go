package provider

import (
	"encoding/json"
	"math"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/sametick/sametick/services/prompt-worker/internal/prompting"
)

const (
	// statusOverloaded is Anthropic's.
	statusOverloaded = 529
	// maxRetryAfter: a longer wait is as good as none; servers send years.
	maxRetryAfter = 24 * time.Hour
	// maxErrorText in characters.
	maxErrorText = 300
)

// spent are the codes and types of an account without money, of OpenAI (error.code and error.type) and Anthropic
// (error.type). OpenAI sends them as 429, which no wait cures.
var spent = regexp.MustCompile(`^(insufficient_quota|billing_error|billing_hard_limit_reached|billing_not_active|credits?_(required|exhausted))$`)

// spentText: Anthropic tells an empty balance and a spending limit as a plain 400 or 429, in words alone.
var spentText = regexp.MustCompile(`(?i)(credit balance is too low|reached your specified (workspace )?API usage limits|spend(ing)? limit|exceeded your current quota)`)

// withheld are the codes of a provider that refuses the content.
var withheld = regexp.MustCompile(`^(content_filter|content_policy_violation|moderation_blocked)$`)

// fault is a provider's error: {"error": {"type", "code", "message"}}, of OpenAI and Anthropic; compatible servers leave
// things out.
type fault struct {
	Type, Message string
	Code          any
}

func parseFault(raw []byte) (f fault) {
	var outer struct {
		Error   json.RawMessage
		Message string
	}
	if json.Unmarshal(raw, &outer) != nil {
		return f
	}
	if json.Unmarshal(outer.Error, &f) != nil {
		_ = json.Unmarshal(outer.Error, &f.Message) // Ollama's own: {"error": "text"}
	}
	if f.Message == "" {
		f.Message = outer.Message
	}
	return f
}

func (f fault) is(pattern *regexp.Regexp) bool {
	code, _ := f.Code.(string)
	return pattern.MatchString(code) || pattern.MatchString(f.Type)
}

// classify gives the cause of an answer of 400 or more.
func classify(status int, header http.Header, raw []byte, key string) *prompting.ModelError {
	f := parseFault(raw)
	e := &prompting.ModelError{Cause: cause(status, f), RetryAfter: retryAfter(header, time.Now())}
	// A gateway gave up on a request that its provider may well have carried out.
	e.Unknown = status == http.StatusBadGateway || status == http.StatusGatewayTimeout || status == http.StatusRequestTimeout
	e.Text = "the provider answered " + strconv.Itoa(status)
	// What is said of a key may quote it.
	if f.Message != "" && e.Cause != prompting.CauseUnauthorized {
		e.Text += ": " + clean(f.Message, key)
	}
	return e
}

func cause(status int, f fault) string {
	switch {
	case status == http.StatusPaymentRequired, f.is(spent), status < http.StatusInternalServerError && spentText.MatchString(f.Message):
		return prompting.CauseQuota
	case status == http.StatusUnauthorized, status == http.StatusForbidden, status == http.StatusProxyAuthRequired:
		return prompting.CauseUnauthorized
	case status == statusOverloaded, status == http.StatusServiceUnavailable, f.Type == "overloaded_error":
		return prompting.CauseOverloaded
	case status == http.StatusTooManyRequests:
		return prompting.CauseRateLimited
	case status == http.StatusRequestTimeout, status == http.StatusGatewayTimeout:
		return prompting.CauseTimeout
	case status >= http.StatusInternalServerError, status == http.StatusConflict, status == http.StatusTooEarly:
		return prompting.CauseUnavailable
	case f.is(withheld):
		return prompting.CauseRefused
	default:
		return prompting.CauseBadRequest
	}
}

// retryAfter reads Retry-After (RFC 9110, section 10.2.3: seconds or a date) and the finer retry-after-ms.
func retryAfter(h http.Header, now time.Time) time.Duration {
	if ms, err := strconv.ParseFloat(h.Get("Retry-After-Ms"), 64); err == nil {
		return bounded(ms * float64(time.Millisecond))
	}
	value := h.Get("Retry-After")
	if seconds, err := strconv.ParseFloat(value, 64); err == nil {
		return bounded(seconds * float64(time.Second))
	}
	if date, err := http.ParseTime(value); err == nil {
		return bounded(float64(date.Sub(now)))
	}
	return 0
}

func bounded(d float64) time.Duration {
	if math.IsNaN(d) || d <= 0 {
		return 0
	}
	return time.Duration(min(d, float64(maxRetryAfter)))
}

// clean makes a provider's words fit to show: short, without control characters, and never with the key.
func clean(s, key string) string {
	if key != "" {
		s = strings.ReplaceAll(s, key, "…")
	}
	s = strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return ' '
	}, strings.ToValidUTF8(s, ""))
	if runes := []rune(s); len(runes) > maxErrorText {
		s = string(runes[:maxErrorText]) + "…"
	}
	return s
}
