// Package delivery has the rules of sending events to endpoints: what a delivery is, what follows from an
// attempt, when the next is due, whose turn it is. One goroutine, the engine's, owns the state of all endpoints of
// the shards that this replica holds; nothing here knows Postgres, HTTP or gRPC.
package delivery

import (
	"crypto/tls"
	"time"
)

// Formats of a request's body.
const (
	Standard    = "standard"
	CloudEvents = "cloudevents"
)

// Why an endpoint is disabled.
const (
	ByHand  = "by_hand"
	Gone    = "gone"
	Failing = "failing"
)

// Triggers of a delivery.
const (
	ByEvent     = "event"
	ByTest      = "test"
	ByRecover   = "recover"
	ByReplay    = "replay"
	ByRedeliver = "redeliver"
)

// Endpoint is where events are sent, as of one version: it is replaced, never changed.
type Endpoint struct {
	OrgID, ID int64
	URL       string
	// EventTypes are patterns (event.ParsePattern); empty means the default subscription.
	EventTypes     []string
	AggregateTypes []string
	AggregateIDs   []int64
	// Filter and Transform are CEL; empty for none.
	Filter, Transform string
	Format            string
	Headers           map[string]string
	// RateLimit is in requests per second; 0 for none.
	RateLimit int
	Ordered   bool
	// Authorization is the header's value; empty for none.
	Authorization string
	// Certificate is shown to the receiver; nil for none.
	Certificate *tls.Certificate
	// Secrets sign, newest first; some may have expired since it was loaded.
	Secrets []Secret
	// Fault is why something secret of it cannot be opened: it is not sent to then. Empty when all could.
	Fault    string
	Enabled  bool
	Archived bool
	// FailingSince is zero when the newest attempt has not failed.
	FailingSince time.Time
	// FromPosition: it gets the events after it. Negative until the scheduler has passed its creation.
	FromPosition int64
	Version      int64
}

// Secret signs until it expires.
type Secret struct {
	// Text is whsec_… or whsk_….
	Text string
	// Expires is zero for never.
	Expires time.Time
}

// Closed is the cause why nothing is sent to it, CauseArchived or CauseDisabled; empty while it is open.
func (e *Endpoint) Closed() string {
	switch {
	case e.Archived:
		return CauseArchived
	case !e.Enabled:
		return CauseDisabled
	}
	return ""
}

// Delivery is one event on its way to one endpoint.
type Delivery struct {
	ID                int64
	OrgID, EndpointID int64
	Shard             int
	EventID, Position int64
	EventType         string
	Trigger           string
	// Attempts are those made so far.
	Attempts int
	Due      time.Time
	// ScheduledAt is when the first transaction that knew of it began.
	ScheduledAt time.Time
	Traceparent string
	// Event is its JSON, nil until it is loaded. Shared between deliveries: never changed.
	Event []byte
}

// Causes of an attempt that did not deliver; from CauseEventGone on no request was made.
const (
	CauseDNS      = "dns"
	CauseBlocked  = "blocked"
	CauseConnect  = "connect"
	CauseTLS      = "tls"
	CauseTimeout  = "timeout"
	CauseReset    = "reset"
	CauseStatus   = "status"
	CauseRedirect = "redirect"
	CauseGone     = "gone"
	CauseTooLarge = "too_large"
	CauseProtocol = "protocol"
	CauseProxy    = "proxy"
	// CauseConfig is ours: a secret of the endpoint cannot be opened.
	CauseConfig    = "config"
	CauseEventGone = "event_gone"
	CauseFilter    = "filter"
	CauseTransform = "transform"
	CauseSkipped   = "skipped"
	CauseArchived  = "archived"
	CauseDisabled  = "disabled"
)

// Result is what one attempt met.
type Result struct {
	// Cause is empty when a 2xx answer was read whole or up to the bound.
	Cause string
	// Error is the cause in words, for the endpoint's owner: without internal addresses or secrets.
	Error string
	// Status is the HTTP status; 0 without an answer.
	Status  int
	Latency time.Duration
	// RequestHeaders and ResponseHeaders are JSON objects of lists, as history keeps them; empty for none. What is secret
	// of the request's is left out.
	RequestHeaders, ResponseHeaders string
	// Body is the answer's first 64 KiB, decompressed.
	Body      []byte
	Truncated bool
	// RetryAfter is what the answer asked for; 0 for nothing.
	RetryAfter time.Duration
	// Began is when the attempt began, by the wall clock.
	Began time.Time
}
