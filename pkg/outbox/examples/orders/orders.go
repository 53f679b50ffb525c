// Package orders is an example of a service outside of the suite: it has a table of its own, uses
// database/sql, and records an event in the transaction of each write. Its database role needs
//
//	GRANT sametick_producer TO orders_app;
//
// and nothing else of the suite: no client, no broker, no second transaction.
package orders

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/sametick/sametick/pkg/outbox"
)

// Schema is the service's own table.
const Schema = `CREATE TABLE IF NOT EXISTS public.orders (
  id     bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  org_id bigint NOT NULL,
  title  text NOT NULL,
  status text NOT NULL DEFAULT 'open'
)`

// Store keeps orders.
type Store struct{ DB *sql.DB }

// Create adds an order of an organisation and records order.post_create.
func (s Store) Create(ctx context.Context, orgID, actorID int64, title string) (id int64, err error) {
	err = s.inTx(ctx, func(tx *sql.Tx) error {
		const insert = `INSERT INTO public.orders (org_id, title) VALUES ($1, $2) RETURNING id`
		if err := tx.QueryRowContext(ctx, insert, orgID, title).Scan(&id); err != nil {
			return fmt.Errorf("insert the order: %w", err)
		}
		_, err := outbox.AppendSQL(ctx, tx, outbox.Context{ActorID: &actorID},
			outbox.Event{OrgID: orgID, AggregateType: "order", AggregateID: id, Action: "post_create", RecordName: title})
		return err
	})
	return id, err
}

// Ship changes an order's status and records order.shipped with what has changed.
func (s Store) Ship(ctx context.Context, orgID, actorID, id int64) error {
	return s.inTx(ctx, func(tx *sql.Tx) error {
		const update = `UPDATE public.orders SET status = 'shipped' WHERE org_id = $1 AND id = $2 AND status = 'open' RETURNING title`
		var title string
		if err := tx.QueryRowContext(ctx, update, orgID, id).Scan(&title); err != nil {
			return fmt.Errorf("ship order %d: %w", id, err)
		}
		changes, err := json.Marshal(map[string]any{"status": map[string]string{"before": "open", "after": "shipped"}})
		if err != nil {
			return fmt.Errorf("encode the changes: %w", err)
		}
		_, err = outbox.AppendSQL(ctx, tx, outbox.Context{ActorID: &actorID},
			outbox.Event{OrgID: orgID, AggregateType: "order", AggregateID: id, Action: "shipped", RecordName: title, Changes: changes})
		return err
	})
}

func (s Store) inTx(ctx context.Context, do func(*sql.Tx) error) error {
	tx, err := s.DB.BeginTx(ctx, nil)
	if err != nil {
		return fmt.Errorf("begin: %w", err)
	}
	if err := do(tx); err != nil {
		return errors.Join(err, tx.Rollback())
	}
	if err := tx.Commit(); err != nil {
		return fmt.Errorf("commit: %w", err)
	}
	return nil
}
