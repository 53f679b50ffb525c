// Package auditlog is the form of the tamper-evident audit log: what bytes an entry is as a leaf of a Merkle tree
// (RFC 6962), what a signed head says, and how both are checked, so that outbox-relay, which seals, and whoever
// verifies agree to the bit. It reads no database and asks nobody.
//
// The tree's arithmetic and the signatures are those of golang.org/x/mod (sumdb/tlog and sumdb/note), which
// keep Go's own checksum database: one module without dependencies, proofs made from stored hashes and
// checked, and signed notes that other tools read (https://c2sp.org/signed-note, https://c2sp.org/tlog-checkpoint).
//
// # A leaf
//
// The leaf of an entry is three lines, each ended by "\n":
//
//	sametick audit entry v1
//	<salt: 16 random bytes in base64>
//	<the entry as JSON>
//
// The JSON is the object that GET /api/audit shows, with exactly the thirteen fields of Entry, in the canonical
// form of RFC 8785 but for numbers, which keep the text that the API shows: they are Postgres' numeric, and
// doubles would round them. Its hash is SHA-256 of a zero byte and the leaf (RFC 6962, 2.1).
//
// The salt is the entry's alone and given with its proof: a proof also shows hashes of other organisations'
// entries, which nobody can then guess the content of.
//
// # A head
//
// What is signed of a head is five lines, each ended by "\n":
//
//	<origin: the key's name>
//	<the number of leaves>
//	<the root, in base64>
//	time <the sealer's clock: RFC 3339 in UTC, whole seconds>
//	cursor <SHA-256 of the cursor, in base64>
//
// The cursor is seven lines, each ended by "\n": the columns seal, snapshot, paging (an empty line for NULL), page_after,
// max_id, claim_xid and system_identifier of sametick.audit_heads, as Postgres writes them. The seals are 1, 2, 3 and
// so on, without a gap: what the heads tell together, which is the newest and which came before what, stands on
// all of them.
//
// # What is proven
//
// A head signs how many leaves there are and the root over all of them. Who can write everything in the database,
// superuser included, but has not the signing key, cannot change, remove, swap or insert what a head covers
// without Checker finding it; who has rewritten all stored hashes to fit is found by the signatures. Who has
// the key as well, or puts an older state of the whole database back, is found by a head that was
// saved elsewhere. What was never sealed (the last second), and entries newly written in somebody's name, are
// not proven by any of this.
package auditlog

import (
	"encoding/base64"
	"encoding/json"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"golang.org/x/mod/sumdb/tlog"
)

// SaltSize is the length of a leaf's salt.
const SaltSize = 16

// Entry is an audit entry as the API shows it.
type Entry struct {
	ID            int64           `json:"id"`
	OrgID         int64           `json:"org_id"`
	ActorID       *int64          `json:"actor_id"`
	Action        string          `json:"action"`
	Outcome       string          `json:"outcome"`
	AggregateType string          `json:"aggregate_type"`
	AggregateID   int64           `json:"aggregate_id"`
	EventIDs      json.RawMessage `json:"event_ids"`
	Changes       json.RawMessage `json:"changes"`
	RequestID     *string         `json:"request_id"`
	IP            *string         `json:"ip"`
	UserAgent     *string         `json:"user_agent"`
	OccurredAt    string          `json:"occurred_at"`
}

// FormatTime writes occurred_at: RFC 3339 in UTC with milliseconds. Entries are written in whole
// milliseconds; one that was changed by less shows it.
func FormatTime(t time.Time) string {
	layout := "2006-01-02T15:04:05.000Z"
	if t.Nanosecond()%int(time.Millisecond) != 0 {
		layout = "2006-01-02T15:04:05.000000000Z"
	}
	return t.UTC().Format(layout)
}

const leafForm = "sametick audit entry v1\n"

// Leaf gives the bytes of an entry's leaf.
func Leaf(salt []byte, e Entry) []byte {
	b := append([]byte(leafForm), base64.StdEncoding.EncodeToString(salt)...)
	b = append(b, '\n')
	b = append(b, canonical(e)...)
	return append(b, '\n')
}

// LeafHash gives the hash of an entry's leaf.
func LeafHash(salt []byte, e Entry) tlog.Hash { return tlog.RecordHash(Leaf(salt, e)) }

// canonical never fails: an entry that could not be sealed would stop the log for everybody. What
// no JSON reader takes (nested deeper than 10,000) goes in as its text.
func canonical(e Entry) []byte {
	b, err := json.Marshal(e)
	if err == nil {
		v := jsontext.Value(b)
		if err = v.Canonicalize(jsontext.CanonicalizeRawInts(false), jsontext.CanonicalizeRawFloats(false)); err == nil {
			return v
		}
	}
	e.EventIDs, e.Changes = quote(e.EventIDs), quote(e.Changes)
	b, _ = json.Marshal(e) // of strings and numbers alone
	return b
}

func quote(text []byte) json.RawMessage {
	b, _ := json.Marshal(string(text)) // a string always has a JSON form
	return b
}
