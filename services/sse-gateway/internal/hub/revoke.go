package hub

import (
	"encoding/json"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/sametick/sametick/pkg/auth"
	"github.com/sametick/sametick/pkg/errs"
)

// Identity is who a stream's token is.
type Identity struct {
	// Subject is "user:<id>" or "api_key:<id>".
	Subject string
	// UserID is the user behind it; 0 for none.
	UserID int64
	// Session is the login that the token stems from; empty for none.
	Session string
	// IssuedAt is when it was signed.
	IssuedAt time.Time
}

// revocation is what an event takes away: every token of one kind and id that was issued up to a moment.
type revocation struct {
	mark    revocationMark
	through time.Time
	// except is a session that goes on.
	except string
}

// revocationMark says whose tokens: an organisation's ("", ""), a user's with all keys ("user", id), a user's
// logins ("login", id), one login's ("session", id) or a key's ("api_key", id).
type revocationMark struct {
	org      int64
	kind, id string
}

// always is when a session's tokens end: none can be issued once it is over.
var always = time.Date(9999, 12, 31, 0, 0, 0, 0, time.UTC)

// revokes reads what an event takes away; false for what takes nothing.
func revokes(e *Entry) (r revocation, ok bool) {
	switch e.EventType {
	case "auth.logout", "auth.password_changed", "user.post_archive", "user.post_update", "api_key.post_archive", "api_key.rotated",
		"role.post_update", "role.post_archive", "organization.post_archive":
	default:
		return r, false
	}
	var event struct {
		Payload struct {
			Timestamp time.Time `json:"timestamp"`
			Session   string    `json:"session_id"`
			Kept      string    `json:"kept_session_id"`
			Overlap   int64     `json:"overlap"`
			Changes   struct {
				Scopes *struct{ Before, After []string } `json:"scopes"`
			} `json:"changes"`
		} `json:"payload"`
	}
	if err := json.Unmarshal(e.Envelope, &event); err != nil {
		return r, false // a stranger's event of the same name
	}
	p := &event.Payload
	r.through, r.mark.org = p.Timestamp, e.OrgID
	mark := func(kind string) { r.mark.kind, r.mark.id = kind, strconv.FormatInt(e.AggregateID, 10) }
	lost := p.Changes.Scopes != nil && slices.Contains(p.Changes.Scopes.Before, auth.EventsRead) && !slices.Contains(p.Changes.Scopes.After, auth.EventsRead)
	switch e.EventType {
	case "auth.logout":
		if mark("login"); p.Session != "" {
			r.mark.kind, r.mark.id, r.through = "session", p.Session, always
		}
	case "auth.password_changed":
		mark("login")
		r.except = p.Kept
	case "user.post_archive":
		mark("user")
	case "user.post_update":
		mark("user")
		return r, lost
	case "api_key.post_archive":
		mark("api_key")
	case "api_key.rotated":
		mark("api_key")
		return r, p.Overlap == 0
	case "role.post_update": // whose it is only the database knows; who may still read takes a new token
		return r, lost
	case "organization.post_archive":
		return r, e.AggregateID == e.OrgID
	}
	return r, true
}

const (
	// revocationLife is the longest life of a token (ACCESS_TOKEN_TTL of api-gateway).
	revocationLife = 24 * time.Hour
	// maxRevocations bounds the memory; beyond it the oldest is forgotten.
	maxRevocations = 100_000
)

// revocations remembers what the events that passed have taken away, for as long as such a token could live.
type revocations struct {
	mu    sync.RWMutex
	known map[revocationMark]revoked
}

type revoked struct {
	revocation
	seen time.Time
}

func (l *revocations) add(r revocation, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.known) >= maxRevocations {
		l.forget(now)
	}
	// Two changes that wait for no common lock may come the other way round than they were stamped.
	if old, ok := l.known[r.mark]; ok && old.except == r.except && old.through.After(r.through) {
		r.through = old.through
	}
	l.known[r.mark] = revoked{r, now}
}

// forget drops what is over, or else the oldest.
func (l *revocations) forget(now time.Time) {
	var oldest revocationMark
	first := now
	for mark, r := range l.known {
		switch {
		case now.Sub(r.seen) > revocationLife:
			delete(l.known, mark)
		case !r.seen.After(first):
			oldest, first = mark, r.seen
		}
	}
	if len(l.known) >= maxRevocations {
		delete(l.known, oldest)
	}
}

func (l *revocations) has(org int64, who Identity) bool {
	kind, id, _ := auth.ParseSubject(who.Subject)
	marks := [4]revocationMark{{org, "", ""}}
	n := 1
	add := func(kind, id string) { marks[n] = revocationMark{org, kind, id}; n++ }
	if who.UserID != 0 {
		add("user", strconv.FormatInt(who.UserID, 10))
	}
	switch {
	case kind == auth.SubjectAPIKey:
		add("api_key", strconv.FormatInt(id, 10))
	case kind == auth.SubjectUser:
		add("login", strconv.FormatInt(id, 10))
		if who.Session != "" {
			add("session", who.Session)
		}
	}
	l.mu.RLock()
	defer l.mu.RUnlock()
	for _, mark := range marks[:n] {
		if r, ok := l.known[mark]; ok && !who.IssuedAt.After(r.through) && (r.except == "" || r.except != who.Session) {
			return true
		}
	}
	return false
}

// ErrRevoked means that the stream's token has been revoked.
var ErrRevoked = errs.New(errs.Unauthenticated, "TOKEN_REVOKED", "the access token has been revoked, log in again")
