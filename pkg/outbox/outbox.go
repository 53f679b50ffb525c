// Package outbox is the producers' side of the suite: it records events, and the audit entry for
// them, in the producer's own transaction. Whatever the language or driver, the work is done by the
// SQL function sametick.record_events, so that all producers do exactly the same; this package
// encodes its arguments, for pgx, for pgx batches and for database/sql.
//
// The package also holds the migrations of the tables that the suite shares (see Migrate). What
// reads the outbox lives in services/outbox-relay.
package outbox

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// Event is what a producer records about one entity. OrgID, AggregateType, AggregateID and Action
// are required; names match [a-z][a-z0-9_]*.
type Event struct {
	OrgID         int64  `json:"org_id"`
	AggregateType string `json:"aggregate_type"`
	AggregateID   int64  `json:"aggregate_id"`
	// Action is the lifecycle phase ("post_create") or a word of the domain ("passed").
	Action string `json:"action"`
	// EventType is AggregateType + "." + Action unless set ("auth.login").
	EventType    string `json:"event_type,omitempty"`
	RecordName   string `json:"record_name,omitempty"`
	WorkflowID   *int64 `json:"workflow_id,omitempty"`
	WorkflowName string `json:"workflow_name,omitempty"`
	StepID       *int64 `json:"step_id,omitempty"`
	StepName     string `json:"step_name,omitempty"`
	// Changes is a JSON object: field → {"before": …, "after": …}. Also kept in the audit entry.
	Changes json.RawMessage `json:"changes,omitempty"`
	// Extra is a JSON object whose keys join the payload; the EventContext's own keys win.
	Extra json.RawMessage `json:"extra,omitempty"`
}

// Context is what the events of one call share: who acts, and from where.
type Context struct {
	// ActorID is the acting user; nil for the system.
	ActorID   *int64 `json:"actor_id,omitempty"`
	RequestID string `json:"request_id,omitempty"`
	IP        string `json:"ip,omitempty"`
	UserAgent string `json:"user_agent,omitempty"`
	// Traceparent follows the event to its receivers (W3C Trace Context).
	Traceparent string `json:"traceparent,omitempty"`
	// Outcome is applied (also when empty), rejected or failed; only the audit entry shows it.
	Outcome string `json:"outcome,omitempty"`
}

// Recorded tells what an event became.
type Recorded struct {
	// ID is the event's id, the `id` of its JSON.
	ID int64
	// Sequence numbers the events of one entity from 1.
	Sequence int64
}

// Statement is the one statement of this package, for callers that queue it in a pgx.Batch: its
// arguments come from Args, its rows (ord, id, sequence) are in the order of the events.
const Statement = `SELECT ord, id, sequence FROM sametick.record_events($1::jsonb, $2::jsonb)`

// Args encodes the arguments of Statement. It fails when Changes or Extra is not JSON.
func Args(c Context, events ...Event) ([]any, error) {
	if events == nil {
		events = []Event{}
	}
	list, err := json.Marshal(events)
	if err != nil {
		return nil, fmt.Errorf("encode events: %w", err)
	}
	shared, err := json.Marshal(c)
	if err != nil {
		return nil, fmt.Errorf("encode context: %w", err)
	}
	return []any{string(list), string(shared)}, nil
}

// Querier is what Append needs of a pgx.Tx.
type Querier interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
}

// Append records events in tx and locks their entities until its end, in key order; two
// transactions that append several times each in different orders may deadlock, which Postgres ends
// with SQLSTATE 40P01: repeat the transaction then. Errors are Postgres' own; the transaction is
// then lost, as after any failed statement.
func Append(ctx context.Context, tx Querier, c Context, events ...Event) ([]Recorded, error) {
	args, err := Args(c, events...)
	if err != nil {
		return nil, err
	}
	rows, err := tx.Query(ctx, Statement, args...)
	if err != nil {
		return nil, fmt.Errorf("record events: %w", err)
	}
	recorded, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (r Recorded, err error) {
		err = row.Scan(nil, &r.ID, &r.Sequence)
		return r, err
	})
	if err != nil {
		return nil, fmt.Errorf("record events: %w", err)
	}
	return recorded, nil
}

// AppendSQL is Append for database/sql, with any driver of Postgres.
func AppendSQL(ctx context.Context, tx *sql.Tx, c Context, events ...Event) (recorded []Recorded, err error) {
	args, err := Args(c, events...)
	if err != nil {
		return nil, err
	}
	rows, err := tx.QueryContext(ctx, Statement, args...)
	if err != nil {
		return nil, fmt.Errorf("record events: %w", err)
	}
	defer func() {
		if closeErr := rows.Close(); err == nil && closeErr != nil {
			recorded, err = nil, fmt.Errorf("record events: %w", closeErr)
		}
	}()
	for rows.Next() {
		var (
			ord int
			r   Recorded
		)
		if err := rows.Scan(&ord, &r.ID, &r.Sequence); err != nil {
			return nil, fmt.Errorf("record events: %w", err)
		}
		recorded = append(recorded, r)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("record events: %w", err)
	}
	return recorded, nil
}
