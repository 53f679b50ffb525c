package audit

import (
	"encoding/base64"
	"encoding/json"
	"math"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/sametick/sametick/pkg/errs"
	"github.com/sametick/sametick/pkg/event"
	"github.com/sametick/sametick/services/api-gateway/internal/events"
	"github.com/sametick/sametick/services/api-gateway/internal/paging"
)

// Filter is a query as a caller writes it.
type Filter struct {
	AggregateType string `json:"aggregate_type,omitempty"`
	AggregateID   *int64 `json:"aggregate_id,omitempty"`
	ActorID       *int64 `json:"actor_id,omitempty"`
	Action        string `json:"action,omitempty"`
	Outcome       string `json:"outcome,omitempty"`
	// From and To are ISO 8601, see events.ParseTime; empty means open.
	From      string `json:"from,omitempty"`
	To        string `json:"to,omitempty"`
	RequestID string `json:"request_id,omitempty"`
	// Cursor is what List gave with the page before.
	Cursor      string `json:"-"`
	Limit, Page *int32 `json:"-"`
}

// json is what the filter says of an export.
func (f Filter) json() []byte {
	b, _ := json.Marshal(map[string]any{"filter": f}) // of strings and numbers
	return b
}

// maxRequestID is what an entry keeps of a request's id.
const maxRequestID = 200

func (f Filter) query() (Query, error) {
	var bad *errs.Error
	refuse := func(wrong bool, field, reason, allowed string) {
		if !wrong {
			return
		}
		if bad == nil {
			bad = errs.New(errs.Invalid, "INVALID_REQUEST", "the request has invalid fields")
		}
		bad = bad.WithField(field, reason, allowed)
	}
	isWord := func(s string) bool { return s == "" || event.IsWord(s) }
	refuse(!isWord(f.AggregateType), "aggregate_type", "INVALID_TYPE", "a type such as task: a-z, 0-9 and _, at most 63 characters")
	refuse(f.AggregateID != nil && *f.AggregateID < 1, "aggregate_id", "OUT_OF_RANGE", "the id of an entity, from 1")
	refuse(f.ActorID != nil && *f.ActorID < 1, "actor_id", "OUT_OF_RANGE", "the id of a user, from 1")
	refuse(!isWord(f.Action), "action", "INVALID_ACTION", "a word such as create, update, archive, login: a-z, 0-9 and _, at most 63 characters")
	refuse(f.Outcome != "" && f.Outcome != "applied" && f.Outcome != "rejected" && f.Outcome != "failed", "outcome", "NOT_IN_ENUM", "applied, rejected or failed")
	refuse(utf8.RuneCountInString(f.RequestID) > maxRequestID || strings.ContainsRune(f.RequestID, 0) || !utf8.ValidString(f.RequestID),
		"request_id", "INVALID_REQUEST_ID", "at most 200 characters, without NUL")
	q := Query{AggregateType: f.AggregateType, AggregateID: f.AggregateID, ActorID: f.ActorID, Action: f.Action, Outcome: f.Outcome, RequestID: f.RequestID}
	bound := func(field, text string) *time.Time {
		if text == "" {
			return nil
		}
		t, ok := events.ParseTime(text)
		refuse(!ok, field, "INVALID_TIME", "ISO 8601: a date (2026-04-12, midnight UTC) or a time with its zone (2026-04-12T14:30:00Z)")
		return &t
	}
	q.From, q.To = bound("from", f.From), bound("to", f.To)
	refuse(bad == nil && q.From != nil && q.To != nil && q.From.After(*q.To), "from", "AFTER_TO", `a time that is not after "to"`)
	if bad != nil {
		return Query{}, bad
	}
	return q, nil
}

// page gives the page, and the id that it is below.
func (f Filter) page() (paging.Page, int64, error) {
	p, err := paging.Standard.Page(f.Limit, f.Page)
	if err != nil || f.Cursor == "" {
		return p, math.MaxInt64, err
	}
	if f.Page != nil {
		return p, 0, fault("page", "CONFLICTS_WITH_CURSOR", "either page or cursor")
	}
	before, ok := parseCursor(f.Cursor)
	if !ok {
		return p, 0, fault("cursor", "INVALID_CURSOR", "next_cursor of a page of this list")
	}
	return p, before, nil
}

// A cursor is the id of a page's last entry; opaque, so that it may become something else.
func cursor(id int64) string {
	return base64.RawURLEncoding.EncodeToString(strconv.AppendInt(nil, id, 36))
}

func parseCursor(s string) (int64, bool) {
	b, err := base64.RawURLEncoding.Strict().DecodeString(s)
	if err != nil || len(b) > 20 {
		return 0, false
	}
	id, err := strconv.ParseInt(string(b), 36, 64)
	return id, err == nil && id > 0 && cursor(id) == s
}

func fault(field, reason, allowed string) error {
	return errs.New(errs.Invalid, "INVALID_REQUEST", "the request has invalid fields").WithField(field, reason, allowed)
}
