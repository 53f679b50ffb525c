// Package endpoints has the rules of what callers do with webhook endpoints: what a valid one is, what a change
// changes, which events it fires, and what is shown of deliveries and attempts. It decides and does not act: storing
// lives in store, the wire in grpcapi, sending in delivery.
package endpoints

import (
	"context"
	"encoding/json"
	"strconv"
	"time"

	"github.com/sametick/sametick/pkg/errs"
	"github.com/sametick/sametick/pkg/outbox"
)

// Settings are what an endpoint's owner sets, but for its secrets.
type Settings struct {
	URL, Description           string
	EventTypes, AggregateTypes []string
	AggregateIDs               []int64
	// Filter and Transform are CEL; empty for none.
	Filter, Transform string
	Format            string
	Headers           map[string]string
	// RateLimit is in requests per second; nil for none.
	RateLimit *int32
	Ordered   bool
	// AuthKind is "none", "basic" or "bearer".
	AuthKind string
	// ClientCertificate is PEM; empty for none.
	ClientCertificate string
	// Asymmetric: there are v1a signatures beside v1.
	Asymmetric bool
}

// Endpoint is what is shown of one: nothing that is secret.
type Endpoint struct {
	ID int64
	Settings
	// PublicKeys are of the v1a secrets that sign, newest first.
	PublicKeys               []string
	Enabled                  bool
	DisabledReason           string
	DisabledAt, FailingSince *time.Time
	// Version is 1 at creation and one more with each change.
	Version              int64
	CreatedAt, UpdatedAt time.Time
	ArchivedAt           *time.Time
}

// Secret is one that signs, as it is stored.
type Secret struct {
	// Kind is "v1" or "v1a".
	Kind      string
	Sealed    []byte
	PublicKey string
}

// Call says who asks for what follows, and from where.
type Call struct {
	OrgID int64
	outbox.Context
	// Only are the endpoints that there are for the caller; empty means all of the organisation.
	Only []int64
	// Until ends what the caller has shown; nil for nothing that ends.
	Until *time.Time
}

// Change is what one transaction writes: the endpoint as it shall be, and the events of what became of it.
type Change struct {
	Next Endpoint
	// Auth and ClientKey are sealed; nil leaves what there is, empty takes it away.
	Auth, ClientKey []byte
	// Secrets are new; OldUntil is when those that were there before end, of the kinds of the new ones.
	Secrets  []Secret
	OldUntil time.Time
	// DropKind ends the secrets of a kind at once; empty for none.
	DropKind string
	// Actions are the events' and Changes goes into each: field → {"before", "after"}.
	Actions []string
	Changes json.RawMessage
	// Extra joins the payload of the last.
	Extra json.RawMessage
}

// Current is a locked endpoint.
type Current struct {
	Endpoint
	// HasClientKey: a key is stored beside ClientCertificate.
	HasClientKey bool
	// Now is the database's time, in whole milliseconds.
	Now time.Time
}

// Decide turns the current state into a change; nil when there is nothing to change.
type Decide func(Current) (*Change, error)

// Store keeps endpoints. Each change is one transaction of the row, its events and the audit entry.
type Store interface {
	// NewID draws an id, to seal secrets for.
	NewID(ctx context.Context) (int64, error)
	// Create stores a new endpoint. ResourceExhausted, reason TOO_MANY_ENDPOINTS, when the organisation has most already.
	Create(ctx context.Context, call Call, c Change, most int) (Endpoint, error)
	// Restore is Change of one that comes out of the archive: ResourceExhausted as Create, and it gets only events after
	// the last one of the change.
	Restore(ctx context.Context, call Call, id int64, most int, decide Decide) (Endpoint, error)
	// Change locks an endpoint and stores what decide makes of it; the answer has the id of the last event, 0 for
	// none. ErrNotFound when the organisation has no such endpoint.
	Change(ctx context.Context, call Call, id int64, decide Decide) (Endpoint, int64, error)
	Get(ctx context.Context, orgID, id int64) (Endpoint, error)
	List(ctx context.Context, orgID int64, q Query) (list []Endpoint, total int64, err error)
	// NewPortal records a link to a portal as link makes it of the database's time, with extra in its last event.
	// ErrNotFound for an id that the organisation does not have.
	NewPortal(ctx context.Context, call Call, ids []int64, link func(now time.Time) (l PortalLink, extra json.RawMessage)) (PortalLink, error)
	// Export gives all that are not archived, oldest first, and records what told makes of them.
	Export(ctx context.Context, call Call, told func([]Endpoint) (extra json.RawMessage)) ([]Endpoint, error)
}

// Query selects endpoints, newest first.
type Query struct {
	Limit int
	// Before is the id after which the page begins; 0 for the first page.
	Before          int64
	IncludeArchived bool
	Enabled         *bool
	// Only are the ids to select from; empty means all.
	Only []int64
}

// ErrNotFound is the one answer for an absent thing and for another organisation's. what is "endpoint", "delivery",
// "attempt", "replay" or "event".
func ErrNotFound(what string, id int64) error {
	reasons := map[string]string{"endpoint": "ENDPOINT_NOT_FOUND", "delivery": "DELIVERY_NOT_FOUND", "attempt": "ATTEMPT_NOT_FOUND",
		"replay": "REPLAY_NOT_FOUND", "event": "EVENT_NOT_FOUND"}
	return errs.New(errs.NotFound, reasons[what], "there is no such "+what).WithMeta("id", strconv.FormatInt(id, 10))
}
