package store

import (
	"context"
	"errors"

	"github.com/jackc/pgx/v5"

	"github.com/sametick/sametick/pkg/errs"
	"github.com/sametick/sametick/pkg/event"
)

const eventByID = `SELECT id, org_id, aggregate_type, aggregate_id, event_type, payload::text, occurred_at FROM sametick.events WHERE org_id = $1 AND id = $2`

// errNoEvent is of another organisation's events and of those that retention has dropped too.
var errNoEvent = errs.New(errs.NotFound, "EVENT_NOT_FOUND", "there is no such event")

// Event gives a past event. Errors: reason EVENT_NOT_FOUND.
func (s *Store) Event(ctx context.Context, orgID, id int64) (e event.Event, err error) {
	err = s.org(ctx, orgID, func(tx pgx.Tx) error {
		var payload string
		err := tx.QueryRow(ctx, eventByID, orgID, id).Scan(&e.ID, &e.OrgID, &e.AggregateType, &e.AggregateID, &e.EventType, &payload, &e.OccurredAt)
		if errors.Is(err, pgx.ErrNoRows) {
			return errNoEvent
		}
		e.Payload = []byte(payload)
		return err
	})
	return e, err
}
