package events

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"strings"
	"time"

	"github.com/sametick/sametick/pkg/errs"
	"github.com/sametick/sametick/pkg/event"
	"github.com/sametick/sametick/services/api-gateway/internal/paging"
)

// Filter is a query as a caller writes it.
type Filter struct {
	// AggregateTypes, and EventTypes as in streams: exact or with a wildcard.
	AggregateTypes, EventTypes []string
	AggregateID, ActorID       *int64
	// From and To are ISO 8601, see ParseTime; empty means open.
	From, To string
	// Order is desc, which is the default, or asc.
	Order string
	// Cursor is Page.Next of the page before, of the same filter; empty for the first.
	Cursor      string
	Limit, Page *int32
}

// maxValues bounds how many types of either kind one filter names.
const maxValues = 50

func (f Filter) query(orgID int64) (Query, error) {
	page, err := paging.Standard.Page(f.Limit, f.Page)
	if err != nil {
		return Query{}, err
	}
	q := Query{Types: f.AggregateTypes, AggregateID: f.AggregateID, ActorID: f.ActorID, Page: page}
	for _, check := range []func(*Query) error{f.kinds, f.ids, f.times, f.order} {
		if err := check(&q); err != nil {
			return Query{}, err
		}
	}
	if f.Cursor == "" {
		return q, nil
	}
	if f.Page != nil {
		return Query{}, fault("page", "CONFLICTS_WITH_CURSOR", "either page or cursor")
	}
	if q.After, err = f.open(orgID); err != nil {
		return Query{}, err
	}
	return q, nil
}

func (f Filter) kinds(q *Query) error {
	if len(f.AggregateTypes) > maxValues {
		return fault("aggregate_type", "TOO_MANY", fmt.Sprintf("at most %d types", maxValues))
	}
	if len(f.EventTypes) > maxValues {
		return fault("event_type", "TOO_MANY", fmt.Sprintf("at most %d types", maxValues))
	}
	for _, text := range f.EventTypes {
		p, ok := event.ParsePattern(text)
		if !ok {
			return fault("event_type", "INVALID_EVENT_TYPE", "a full event type such as task.post_create, or a pattern: task.*, *.post_create, *")
		}
		q.Events = append(q.Events, p)
	}
	return nil
}

func (f Filter) ids(*Query) error {
	if f.AggregateID != nil {
		if *f.AggregateID < 1 {
			return fault("aggregate_id", "OUT_OF_RANGE", "the id of an entity, from 1")
		}
		if len(f.AggregateTypes) != 1 {
			return fault("aggregate_id", "NEEDS_AGGREGATE_TYPE", "beside exactly one aggregate_type, whose entities it numbers")
		}
	}
	if f.ActorID != nil && *f.ActorID < 1 {
		return fault("actor_id", "OUT_OF_RANGE", "the id of a user, from 1")
	}
	return nil
}

func (f Filter) times(q *Query) (err error) {
	if q.From, err = bound("from", f.From); err != nil {
		return err
	}
	if q.To, err = bound("to", f.To); err != nil {
		return err
	}
	if q.From != nil && q.To != nil && q.From.After(*q.To) {
		return fault("from", "AFTER_TO", "a time that is not after \"to\"")
	}
	return nil
}

func (f Filter) order(q *Query) error {
	switch f.Order {
	case "", "desc":
	case "asc":
		q.Ascending = true
	default:
		return fault("order", "NOT_IN_ENUM", "desc (newest first, the default) or asc")
	}
	return nil
}

func bound(field, text string) (*time.Time, error) {
	if text == "" {
		return nil, nil
	}
	t, ok := ParseTime(text)
	if !ok {
		return nil, fault(field, "INVALID_TIME", "ISO 8601: a date (2026-04-12, midnight UTC) or a time with its zone (2026-04-12T14:30:00Z)")
	}
	return &t, nil
}

// A cursor is the id of the last event of a page and a mark of whose and which list it is of, in base64url.
// The mark is no secret: who forges one sees their own events from somewhere else.
const markBytes = 8

func (f Filter) mark(orgID int64) []byte {
	h := sha256.New()
	id := func(p *int64) string {
		if p == nil {
			return ""
		}
		return fmt.Sprint(*p)
	}
	_, _ = fmt.Fprintf(h, "%d\x00%q\x00%q\x00%s\x00%s\x00%q\x00%q\x00%t", orgID, f.AggregateTypes, f.EventTypes, id(f.AggregateID), id(f.ActorID),
		f.From, f.To, f.Order == "asc")
	return h.Sum(nil)[:markBytes]
}

func (f Filter) cursor(orgID, after int64) string {
	return base64.RawURLEncoding.EncodeToString(binary.AppendUvarint(f.mark(orgID), uint64(after)))
}

func (f Filter) open(orgID int64) (after int64, err error) {
	b, err := base64.RawURLEncoding.Strict().DecodeString(f.Cursor)
	if err == nil && len(b) > markBytes && !strings.ContainsAny(f.Cursor, "\r\n") {
		id, n := binary.Uvarint(b[markBytes:])
		if n == len(b)-markBytes && id > 0 && id < 1<<63 && f.cursor(orgID, int64(id)) == f.Cursor {
			return int64(id), nil
		}
	}
	return 0, fault("cursor", "INVALID_CURSOR", "next_cursor of a page of this very list, with the same filters and order")
}

func fault(field, reason, allowed string) error {
	return errs.New(errs.Invalid, "INVALID_REQUEST", "the request has invalid fields").WithField(field, reason, allowed)
}
