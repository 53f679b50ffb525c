package endpoints

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sametick/sametick/services/webhook-worker/internal/delivery"
)

// Statuses of a delivery, and outcomes of an attempt.
const (
	Pending   = "pending"
	Retrying  = "retrying"
	Delivered = "delivered"
	Failed    = "failed"
	Cancelled = "cancelled"
)

// Delivery is one event for one endpoint, as it is shown.
type Delivery struct {
	ID, EndpointID, EventID    int64
	EventType, Trigger, Status string
	Attempts                   int32
	// DueAt is nil unless it is pending.
	DueAt      *time.Time
	Cause      string
	CreatedAt  time.Time
	FinishedAt *time.Time
}

// Attempt is one request, as it is shown.
type Attempt struct {
	ID, DeliveryID, EndpointID, EventID int64
	EventType                           string
	Attempt                             int32
	Outcome, Cause, Error               string
	Status                              *int32
	Latency                             time.Duration
	RequestHeaders, ResponseHeaders     json.RawMessage
	Body                                []byte
	Truncated                           bool
	CreatedAt                           time.Time
	NextAt                              *time.Time
}

// Stats sum up an endpoint's newest attempts and what waits.
type Stats struct {
	Attempts, Delivered, Failed int64
	// P50, P95 and P99 are in milliseconds; nil without attempts.
	P50, P95, P99 *float64
	Backlog       int64
	Oldest        *time.Time
}

// Filter selects deliveries or attempts; zero values select all. One of the ids is needed: what is asked for is then
// one stretch of an index.
type Filter struct {
	EndpointID, EventID, DeliveryID *int64
	EventType                       string
	// Status is a delivery's status or an attempt's outcome.
	Status   string
	From, To *time.Time
	Limit    int
	After    Cursor
}

// Cursor is where a page ended.
type Cursor struct {
	// Finished: among what has ended; before, among what waits.
	Finished bool
	// ID is the last delivery that waits, or the last attempt; 0 for the beginning.
	ID int64
}

// String is the cursor for callers.
func (c Cursor) String() string {
	section := "w"
	if c.Finished {
		section = "f"
	}
	return base64.RawURLEncoding.EncodeToString([]byte(section + strconv.FormatInt(c.ID, 10)))
}

func parseCursor(text string) (c Cursor, ok bool) {
	if text == "" {
		return Cursor{}, true
	}
	raw, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil || len(raw) < 2 {
		return Cursor{}, false
	}
	c.Finished = raw[0] == 'f'
	c.ID, err = strconv.ParseInt(string(raw[1:]), 10, 64)
	return c, err == nil && c.ID >= 0 && (c.Finished || raw[0] == 'w')
}

// History reads what became of deliveries. Lists look at a bounded stretch for a page, which may therefore be short
// of its limit, even empty, while next says where to go on; nil at the end.
type History interface {
	Deliveries(ctx context.Context, orgID int64, f Filter) (page []Delivery, next *Cursor, err error)
	Attempts(ctx context.Context, orgID int64, f Filter) (page []Attempt, next *Cursor, err error)
	Delivery(ctx context.Context, orgID, id int64) (Delivery, error)
	Attempt(ctx context.Context, orgID, id int64) (Attempt, error)
	Stats(ctx context.Context, orgID, endpointID int64, since time.Time) (Stats, error)
	// Redeliver makes a delivery due now, one that has ended as a new delivery, and records the endpoint's event.
	Redeliver(ctx context.Context, call Call, id int64) (Delivery, error)
	// Skip ends a delivery that waits, and records the endpoint's event.
	Skip(ctx context.Context, call Call, id int64) (Delivery, error)
	// Event gives a past event's JSON, as receivers get it.
	Event(ctx context.Context, orgID, id int64) ([]byte, error)

	StartReplay(ctx context.Context, call Call, r Replay) (Replay, error)
	Replays(ctx context.Context, orgID, endpointID int64) (list []Replay, total int64, err error)
	CancelReplay(ctx context.Context, call Call, id int64) (Replay, error)
	// NewestAttempt is the greatest id of an attempt at an endpoint; 0 for none.
	NewestAttempt(ctx context.Context, orgID, endpointID int64) (int64, error)
}

// page holds a filter to its form. statuses are those allowed.
func (f *Filter) page(limit *int32, cursor string, statuses []string, ids map[string]*int64) error {
	faulty := &faults{}
	f.Limit = limitOf(faulty, limit)
	after, ok := parseCursor(cursor)
	if !ok {
		faulty.add("cursor", "INVALID_CURSOR", "a next_cursor of an answer")
	}
	f.After = after
	if f.Status != "" && !slices.Contains(statuses, f.Status) {
		faulty.add(map[bool]string{true: "status", false: "outcome"}[statuses[0] == Pending], "NOT_IN_ENUM", "one of: %s", strings.Join(statuses, ", "))
	}
	given := 0
	for _, name := range slices.Sorted(keys(ids)) {
		if id := ids[name]; id != nil {
			given++
			faulty.id(name, *id)
		}
	}
	if given == 0 {
		faulty.add("endpoint_id", "REQUIRED", "one of: %s", strings.Join(slices.Sorted(keys(ids)), ", "))
	}
	if strings.ContainsRune(f.EventType, 0) {
		faulty.add("event_type", "INVALID_TEXT", "a type, such as task.post_create")
	}
	return faulty.result()
}

func keys[V any](m map[string]V) func(func(string) bool) {
	return func(yield func(string) bool) {
		for k := range m {
			if !yield(k) {
				return
			}
		}
	}
}

// Pages of lists.
const defaultLimit, maxLimit = 25, 100

func limitOf(f *faults, limit *int32) int {
	switch {
	case limit == nil || *limit == 0:
		return defaultLimit
	case *limit < 0 || *limit > maxLimit:
		f.add("limit", "OUT_OF_RANGE", "1 to %d", maxLimit)
	}
	return int(*limit)
}

// Deliveries lists what waits, the newest first, and then what has ended, the last ended first.
func (s *Service) Deliveries(ctx context.Context, orgID int64, f Filter, limit *int32, cursor string) ([]Delivery, *Cursor, error) {
	err := f.page(limit, cursor, []string{Pending, Delivered, Failed, Cancelled}, map[string]*int64{"endpoint_id": f.EndpointID, "event_id": f.EventID})
	if err != nil {
		return nil, nil, err
	}
	return s.o.History.Deliveries(ctx, orgID, f)
}

// Attempts lists attempts, newest first.
func (s *Service) Attempts(ctx context.Context, orgID int64, f Filter, limit *int32, cursor string) ([]Attempt, *Cursor, error) {
	err := f.page(limit, cursor, []string{Delivered, Retrying, Failed, Cancelled},
		map[string]*int64{"delivery_id": f.DeliveryID, "endpoint_id": f.EndpointID, "event_id": f.EventID})
	if err != nil {
		return nil, nil, err
	}
	return s.o.History.Attempts(ctx, orgID, f)
}

// Delivery gives one delivery.
func (s *Service) Delivery(ctx context.Context, orgID, id int64) (Delivery, error) {
	return s.o.History.Delivery(ctx, orgID, id)
}

// Attempt gives one attempt.
func (s *Service) Attempt(ctx context.Context, orgID, id int64) (Attempt, error) {
	return s.o.History.Attempt(ctx, orgID, id)
}

// defaultSince is how far back statistics reach.
const defaultSince = 24 * time.Hour

// Stats sums up an endpoint's attempts since a time, by default of the last day.
func (s *Service) Stats(ctx context.Context, orgID, id int64, since *time.Time) (Stats, error) {
	if _, err := s.Get(ctx, orgID, id); err != nil {
		return Stats{}, err
	}
	from := time.Now().Add(-defaultSince)
	if since != nil {
		from = *since
	}
	return s.o.History.Stats(ctx, orgID, id, from)
}

// Redeliver sends a delivery again, now, whatever its status.
func (s *Service) Redeliver(ctx context.Context, call Call, id int64) (Delivery, error) {
	return done(s, func() (Delivery, error) { return s.o.History.Redeliver(ctx, call, id) })
}

// Skip gives up a delivery that waits.
func (s *Service) Skip(ctx context.Context, call Call, id int64) (Delivery, error) {
	return done(s, func() (Delivery, error) { return s.o.History.Skip(ctx, call, id) })
}

// done tells of a change.
func done[T any](s *Service, do func() (T, error)) (T, error) {
	v, err := do()
	if err == nil {
		s.o.Changed()
	}
	return v, err
}

// Test records a webhook_endpoint.test event, which is sent to that endpoint alone, and gives its id.
func (s *Service) Test(ctx context.Context, call Call, id int64) (eventID int64, err error) {
	_, eventID, err = s.o.Store.Change(ctx, call, id, func(c Current) (*Change, error) {
		if err := CheckReady(&c.Endpoint); err != nil {
			return nil, err
		}
		return told(&c, delivery.ActionTest, nil), nil
	})
	if err == nil {
		s.o.Changed()
	}
	return eventID, err
}
