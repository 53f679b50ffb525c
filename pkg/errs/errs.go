// Package errs has the one error type of the suite: what went wrong by kind and reason, a text that
// may be shown to the caller, and a hidden cause that may only be logged.
//
// An error becomes a gRPC status in one way (GRPCStatus) and comes back in one way (From). Its text
// is never matched: callers compare kinds and reasons. What lives elsewhere: reading SQLSTATE (pkg/pg),
// logging (pkg/rpc, at the edge), problem+json (api-gateway).
package errs

import (
	"errors"
	"maps"
	"slices"
	"time"
)

// Field is one fault in one field of a request.
type Field struct {
	// Field is the path as the caller wrote it, e.g. "filter.limit".
	Field string
	// Reason is UPPER_SNAKE, e.g. "OUT_OF_RANGE".
	Reason string
	// Description says what is allowed.
	Description string
}

// Error is the suite's error. It is immutable: the With methods return copies, so that a package can
// keep one as a variable and add to it per call, also concurrently.
type Error struct {
	// Kind decides the gRPC code and HTTP status.
	Kind Kind
	// Reason is UPPER_SNAKE, stable, and what clients branch on.
	Reason string
	// Message is public: no SQL, addresses or secrets.
	Message string
	// Fields are the faults of an invalid request, one by one.
	Fields []Field
	// Meta is public and machine-readable, e.g. {"limit": "100"}.
	Meta map[string]string
	// RetryAfter tells a client how long to wait; zero says nothing.
	RetryAfter time.Duration

	cause error
}

// New makes an error. The message is shown to callers.
func New(kind Kind, reason, message string) *Error {
	return &Error{Kind: kind, Reason: reason, Message: message}
}

// Wrap makes an error whose cause is logged but never shown. A nil cause gives nil.
func Wrap(cause error, kind Kind, reason, message string) error {
	if cause == nil {
		return nil
	}
	return New(kind, reason, message).WithCause(cause)
}

// WithField returns a copy with one more faulty field.
func (e *Error) WithField(field, reason, description string) *Error {
	c := *e
	c.Fields = append(slices.Clip(c.Fields), Field{field, reason, description})
	return &c
}

// WithMeta returns a copy with one more public key.
func (e *Error) WithMeta(key, value string) *Error {
	c := *e
	if c.Meta = maps.Clone(c.Meta); c.Meta == nil {
		c.Meta = map[string]string{}
	}
	c.Meta[key] = value
	return &c
}

// WithCause returns a copy with a hidden cause.
func (e *Error) WithCause(cause error) *Error {
	c := *e
	c.cause = cause
	return &c
}

// WithRetryAfter returns a copy that asks the client to wait.
func (e *Error) WithRetryAfter(d time.Duration) *Error {
	c := *e
	c.RetryAfter = d
	return &c
}

// Error is the text for logs, with the cause. What a caller may see is Message.
func (e *Error) Error() string {
	s := e.Reason + ": " + e.Message
	for _, f := range e.Fields {
		s += " [" + f.Field + ": " + f.Description + "]"
	}
	if e.cause != nil {
		s += ": " + e.cause.Error()
	}
	return s
}

// Unwrap gives the hidden cause.
func (e *Error) Unwrap() error { return e.cause }

// Is matches another *Error by kind and reason, so errors.Is works against package variables.
func (e *Error) Is(target error) bool {
	t, ok := target.(*Error)
	return ok && t.Kind == e.Kind && t.Reason == e.Reason
}

// KindOf is From(err).Kind; OK for nil.
func KindOf(err error) Kind {
	if err == nil {
		return OK
	}
	return From(err).Kind
}

// HasReason reports whether err, or an *Error it wraps, has this reason.
func HasReason(err error, reason string) bool {
	for e := (*Error)(nil); errors.As(err, &e); err = e.cause {
		if e.Reason == reason {
			return true
		}
	}
	return false
}
