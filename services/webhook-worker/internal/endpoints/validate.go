package endpoints

import (
	"crypto/tls"
	"fmt"
	"maps"
	"net/textproto"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/sametick/sametick/pkg/condition"
	"github.com/sametick/sametick/pkg/errs"
	"github.com/sametick/sametick/pkg/event"
	"github.com/sametick/sametick/services/webhook-worker/internal/delivery"
)

// Limits of what is stored.
const (
	maxURL, maxDescription       = 2048, 500
	maxPatterns, maxAggregateIDs = 200, 1000
	maxHeaders, maxHeaderName    = 20, 100
	maxHeaderValue               = 2000
	maxRate                      = 10_000
	maxPEM                       = 64 << 10
	maxCredential                = 1024
	maxOverlap                   = 7 * 24 * 60 * 60
)

// Kinds of authentication.
const (
	authNone   = "none"
	authBasic  = "basic"
	authBearer = "bearer"
)

// Checks are what other packages know of settings. An error's text says what is wrong.
type Checks struct {
	// URL gives an address as it will be called.
	URL        func(string) (string, error)
	Conditions *condition.Compiler
	// Secret checks one that a caller brings: whsec_….
	Secret func(string) error
}

// faults collects the faulty fields of one request, so that the caller learns of all at once.
type faults struct {
	err *errs.Error
	// in is asked whether a field is looked at; nil for all.
	in func(field string) bool
}

func (f *faults) add(field, reason, format string, args ...any) {
	if f.err == nil {
		f.err = errs.New(errs.Invalid, "INVALID_REQUEST", "the request has invalid fields")
	}
	f.err = f.err.WithField(field, reason, fmt.Sprintf(format, args...))
}

func (f *faults) result() error {
	if f.err == nil {
		return nil
	}
	return f.err
}

func (f *faults) has(field string) bool { return f.in == nil || f.in(field) }

// check refuses faulty settings, of the fields that the request has, and writes the URL as it will be called.
func (f *faults) check(s *Settings, c *Checks) {
	if f.has("url") {
		f.url(s, c)
	}
	if n := utf8.RuneCountInString(s.Description); f.has("description") && n > maxDescription {
		f.add("description", "TOO_LONG", "at most %d characters, not %d", maxDescription, n)
	}
	f.text("description", s.Description)
	if f.has("event_types") {
		f.list("event_types", s.EventTypes, "a pattern: task.post_create, task.*, *.post_archive or *", func(text string) bool {
			_, ok := event.ParsePattern(text)
			return ok
		})
	}
	if f.has("aggregate_types") {
		f.list("aggregate_types", s.AggregateTypes, "a type, such as task", event.IsWord)
	}
	if f.has("aggregate_ids") {
		if len(s.AggregateIDs) > maxAggregateIDs {
			f.add("aggregate_ids", "TOO_MANY", "at most %d", maxAggregateIDs)
		} else if slices.ContainsFunc(s.AggregateIDs, func(id int64) bool { return id < 1 }) {
			f.add("aggregate_ids", "OUT_OF_RANGE", "ids, from 1")
		}
	}
	f.cel("filter", s.Filter, condition.Bool, c.Conditions)
	f.cel("transform", s.Transform, condition.Object, c.Conditions)
	if f.has("format") && s.Format != delivery.Standard && s.Format != delivery.CloudEvents {
		f.add("format", "NOT_IN_ENUM", "one of: %s, %s", delivery.Standard, delivery.CloudEvents)
	}
	if f.has("headers") {
		f.headers(s.Headers)
	}
	if f.has("rate_limit") && s.RateLimit != nil && (*s.RateLimit < 1 || *s.RateLimit > maxRate) {
		f.add("rate_limit", "OUT_OF_RANGE", "1 to %d", maxRate)
	}
}

func (f *faults) url(s *Settings, c *Checks) {
	switch {
	case s.URL == "":
		f.add("url", "REQUIRED", "an https:// address")
	case len(s.URL) > maxURL:
		f.add("url", "TOO_LONG", "at most %d characters", maxURL)
	default:
		called, err := c.URL(s.URL)
		if err != nil {
			f.add("url", "INVALID_URL", "%s", err)
			return
		}
		s.URL = called
	}
}

func (f *faults) cel(field, text string, kind condition.Kind, c *condition.Compiler) {
	if !f.has(field) || text == "" {
		return
	}
	if _, err := c.Compile(text, kind); err != nil {
		f.add(field, "INVALID_CEL", "%s", err)
	}
}

// text refuses what Postgres cannot keep in a text.
func (f *faults) text(field, s string) {
	if f.has(field) && (!utf8.ValidString(s) || strings.ContainsRune(s, 0)) {
		f.add(field, "INVALID_TEXT", "text in UTF-8 without the NUL character (U+0000)")
	}
}

func (f *faults) list(field string, values []string, allowed string, ok func(string) bool) {
	if len(values) > maxPatterns {
		f.add(field, "TOO_MANY", "at most %d", maxPatterns)
		return
	}
	for i, v := range values {
		switch {
		case !ok(v):
			f.add(fmt.Sprintf("%s[%d]", field, i), "INVALID_VALUE", "%s", allowed)
		case slices.Contains(values[:i], v):
			f.add(fmt.Sprintf("%s[%d]", field, i), "DUPLICATE", "each once")
		}
	}
}

// reserved are the headers that are this program's, the connection's or would make one request two (RFC 9110, 7.6.1);
// beside them all that begin with webhook-, as the signature's do.
var reserved = []string{"Authorization", "Connection", "Content-Encoding", "Content-Length", "Content-Type", "Cookie", "Date", "Expect", "Forwarded",
	"Host", "Http2-Settings", "Keep-Alive", "Proxy-Authenticate", "Proxy-Authorization", "Proxy-Connection", "Te", "Traceparent", "Tracestate", "Trailer",
	"Transfer-Encoding", "Upgrade", "User-Agent", "Via", "Accept-Encoding"}

func (f *faults) headers(headers map[string]string) {
	if len(headers) > maxHeaders {
		f.add("headers", "TOO_MANY", "at most %d", maxHeaders)
		return
	}
	seen := map[string]bool{}
	for _, name := range slices.Sorted(maps.Keys(headers)) {
		value := headers[name]
		field, canonical := "headers."+clip(name), textproto.CanonicalMIMEHeaderKey(name)
		switch {
		case len(name) > maxHeaderName || !isToken(name):
			f.add(field, "INVALID_HEADER", "a name of 1 to %d letters, digits and - (RFC 9110, 5.6.2)", maxHeaderName)
		case slices.Contains(reserved, canonical) || strings.HasPrefix(canonical, "Webhook-"):
			f.add(field, "RESERVED", "a header that is not set by the sender or the connection")
		case seen[canonical]:
			f.add(field, "DUPLICATE", "each once, in any case of letters")
		case len(value) > maxHeaderValue || strings.TrimSpace(value) != value || strings.ContainsFunc(value, func(r rune) bool { return r < ' ' || r > '~' }):
			f.add(field, "INVALID_VALUE", "at most %d printable ASCII characters, none of them a line's end", maxHeaderValue)
		}
		seen[canonical] = true
	}
}

// isToken is RFC 9110's token.
func isToken(s string) bool {
	return s != "" && strings.Trim(s, "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ") == ""
}

// Auth is what requests authenticate by.
type Auth struct{ Kind, Username, Password, Token string }

func (f *faults) auth(a Auth) {
	printable := func(s string) bool {
		return len(s) <= maxCredential && !strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f })
	}
	extra := a.Username != "" || a.Password != ""
	switch a.Kind {
	case "", authNone:
		if extra || a.Token != "" {
			f.add("auth.kind", "REQUIRED", "basic or bearer where there are credentials")
		}
	case authBasic:
		if a.Username == "" || strings.Contains(a.Username, ":") || !printable(a.Username) || !utf8.ValidString(a.Username) {
			f.add("auth.username", "INVALID_VALUE", "1 to %d characters without : (RFC 7617)", maxCredential)
		}
		if !printable(a.Password) || !utf8.ValidString(a.Password) {
			f.add("auth.password", "INVALID_VALUE", "at most %d characters", maxCredential)
		}
		if a.Token != "" {
			f.add("auth.token", "NOT_SUPPORTED", "no token with basic")
		}
	case authBearer:
		if a.Token == "" || len(a.Token) > maxCredential || strings.ContainsFunc(a.Token, func(r rune) bool { return r <= ' ' || r > '~' }) {
			f.add("auth.token", "INVALID_VALUE", "1 to %d printable ASCII characters without spaces", maxCredential)
		}
		if extra {
			f.add("auth.username", "NOT_SUPPORTED", "a token alone with bearer")
		}
	default:
		f.add("auth.kind", "NOT_IN_ENUM", "one of: none, basic, bearer")
	}
}

// certificate refuses a certificate without its key, and one that the key does not belong to. Neither is quoted.
func (f *faults) certificate(certificate, key string) {
	if certificate == "" && key == "" {
		return
	}
	if len(certificate) > maxPEM || len(key) > maxPEM {
		f.add("client_certificate", "TOO_LONG", "at most %d bytes", maxPEM)
		return
	}
	switch {
	case certificate == "":
		f.add("client_certificate", "REQUIRED", "the certificate of client_key, as PEM")
	case key == "":
		f.add("client_key", "REQUIRED", "the key of client_certificate, as PEM")
	default:
		if _, err := tls.X509KeyPair([]byte(certificate), []byte(key)); err != nil {
			f.add("client_certificate", "INVALID_CERTIFICATE", "a certificate as PEM, and in client_key the private key of it")
		}
	}
}

func (f *faults) id(field string, id int64) {
	if id < 1 {
		f.add(field, "OUT_OF_RANGE", "an id, from 1")
	}
}

func (f *faults) version(v *int64) {
	if v != nil && *v < 1 {
		f.add("version", "OUT_OF_RANGE", "a version, from 1")
	}
}

// clip shortens what a stranger sent and we quote.
func clip(s string) string {
	const limit = 64
	s = strings.ToValidUTF8(s, "\uFFFD")
	if len(s) <= limit {
		return s
	}
	return strings.ToValidUTF8(s[:limit], "") + "…"
}
