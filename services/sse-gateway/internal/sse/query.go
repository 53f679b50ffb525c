package sse

import (
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/sametick/sametick/pkg/errs"
	"github.com/sametick/sametick/services/sse-gateway/internal/hub"
)

// The query parameters. Both spellings of the position are in use: EventSource polyfills send the
// second.
const (
	paramToken         = "token"
	paramLast          = "last_event_id"
	paramLastCamel     = "lastEventId"
	paramAggregateType = "aggregate_type"
	paramAggregateID   = "aggregate_id"
	paramEventType     = "event_type"
	headerLast         = "Last-Event-ID"
)

func params() []string {
	return []string{paramToken, paramLast, paramLastCamel, paramAggregateType, paramAggregateID, paramEventType}
}

// query reads what the client asks for. Its error names each faulty field, and shows no value: one
// may be a token.
func query(r *http.Request) (f hub.Filter, last *int64, err error) {
	bad := errs.New(errs.Invalid, "INVALID_REQUEST", "the request is invalid")
	q, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		bad = bad.WithField("query", "MALFORMED", "a query string in percent-encoding, separated by &")
	}
	names := make([]string, 0, len(q))
	for name := range q {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		if !slices.Contains(params(), name) {
			bad = bad.WithField(name, "UNKNOWN_PARAMETER", "one of "+strings.Join(params(), ", "))
		}
	}
	last, bad = position(r, q, bad)
	ids := make([]int64, 0, len(q[paramAggregateID]))
	for _, text := range q[paramAggregateID] {
		id, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			bad = bad.WithField(paramAggregateID, "NOT_A_NUMBER", "an id, a whole number from 1")
			id = 1
		}
		ids = append(ids, id)
	}
	f, err = hub.NewFilter(hub.Fields{AggregateType: paramAggregateType, AggregateID: paramAggregateID, EventType: paramEventType},
		q[paramAggregateType], ids, q[paramEventType])
	if err != nil {
		for _, field := range errs.From(err).Fields {
			bad = bad.WithField(field.Field, field.Reason, field.Description)
		}
	}
	if len(bad.Fields) > 0 {
		return hub.Filter{}, nil, bad
	}
	return f, last, nil
}

// position finds where to resume. The header goes first: a browser that reconnects sends it, with the
// URL, and the position in it, that it began with.
func position(r *http.Request, q url.Values, bad *errs.Error) (*int64, *errs.Error) {
	name, text, given := headerLast, r.Header.Get(headerLast), r.Header.Get(headerLast) != ""
	for _, p := range []string{paramLast, paramLastCamel} {
		if !given && q.Has(p) {
			name, text, given = p, q.Get(p), true
		}
	}
	if !given {
		return nil, bad
	}
	const allowed = "the id of an event of this stream: a whole number from 0"
	v, err := strconv.ParseInt(text, 10, 64)
	switch {
	case err == nil && v >= 0 && text[0] != '+':
		return &v, bad
	case err == nil && v < 0, digits(strings.TrimPrefix(text, "-")):
		return nil, bad.WithField(name, "OUT_OF_RANGE", allowed)
	default:
		return nil, bad.WithField(name, "NOT_A_NUMBER", allowed)
	}
}

func digits(s string) bool {
	return s != "" && strings.Trim(s, "0123456789") == ""
}
