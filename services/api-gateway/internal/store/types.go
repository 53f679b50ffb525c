package store

import (
	"context"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/sametick/sametick/pkg/errs"
	"github.com/sametick/sametick/pkg/event"
	"github.com/sametick/sametick/pkg/outbox"
	"github.com/sametick/sametick/pkg/pg"
	"github.com/sametick/sametick/services/api-gateway/internal/records"
	"github.com/sametick/sametick/services/api-gateway/internal/schema"
	"github.com/sametick/sametick/services/api-gateway/internal/types"
)

const (
	typeColumns = `id, name, description, schema::text, version, created_at, updated_at, archived_at`
	findType    = `SELECT ` + typeColumns + ` FROM sametick.types WHERE org_id = $1 AND name = $2`
	lockType    = `SELECT ` + typeColumns + `, date_trunc('milliseconds', clock_timestamp()) FROM sametick.types WHERE org_id = $1 AND name = $2 FOR UPDATE`
	listTypes   = `SELECT ` + typeColumns + ` FROM sametick.types WHERE org_id = $1 ORDER BY name`
	insertType  = `INSERT INTO sametick.types (org_id, id, name, description, schema) VALUES ($1, $2, $3, $4, $5) RETURNING ` + typeColumns
	updateType  = `UPDATE sametick.types SET description = $3, schema = $4, version = $5, updated_at = $6, archived_at = $7
		WHERE org_id = $1 AND name = $2 RETURNING ` + typeColumns

	existing = `SELECT EXISTS (SELECT FROM sametick.records r WHERE r.org_id = $1 AND r.type = q.type AND r.id = q.id AND r.archived_at IS NULL)
		FROM unnest($2::text[], $3::bigint[]) WITH ORDINALITY q(type, id, n) ORDER BY q.n`

	typeKey = "types_pkey"
)

// FindType implements types.Store.
func (s *Store) FindType(ctx context.Context, orgID int64, name string) (t types.Type, err error) {
	b := batch(orgID)
	b.Queue(findType, orgID, name)
	err = send(ctx, s.pool, b, 1, func(results pgx.BatchResults) (err error) {
		t, err = readType(results.QueryRow(), orgID)
		return err
	})
	if errors.Is(err, pgx.ErrNoRows) {
		return t, types.ErrNotFound()
	}
	return t, pg.Translate(err)
}

// ListTypes implements types.Store.
func (s *Store) ListTypes(ctx context.Context, orgID int64) (list []types.Type, err error) {
	b := batch(orgID)
	b.Queue(listTypes, orgID)
	err = send(ctx, s.pool, b, 1, func(results pgx.BatchResults) error {
		rows, err := results.Query()
		if err != nil {
			return err
		}
		list, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (types.Type, error) { return readType(row, orgID) })
		return err
	})
	return list, pg.Translate(err)
}

// CreateType implements types.Store.
func (s *Store) CreateType(ctx context.Context, call records.Call, t types.Type) (made types.Type, err error) {
	if t.ID, err = s.ids.next(ctx); err != nil {
		return t, err
	}
	b := batch(call.OrgID)
	b.Queue(insertType, call.OrgID, t.ID, t.Name, t.Description, string(t.Schema))
	if err := queueType(b, call, &types.Change{Operation: event.Create, Next: t}); err != nil {
		return t, err
	}
	err = s.write(ctx, b, func(results pgx.BatchResults) (err error) {
		made, err = readType(results.QueryRow(), call.OrgID)
		return err
	})
	if pg.IsUnique(err, typeKey) {
		return t, errs.New(errs.AlreadyExists, "TYPE_EXISTS", "the organisation has a type of that name, perhaps an archived one").WithCause(err)
	}
	return made, err
}

// ChangeType implements types.Store: one round trip to lock, one to write.
func (s *Store) ChangeType(ctx context.Context, call records.Call, name string, decide types.Decide) (result types.Type, err error) {
	err = s.connected(ctx, func(c *pgxpool.Conn) error {
		var now time.Time
		b := transaction(call.OrgID, "BEGIN")
		b.Queue(lockType, call.OrgID, name)
		err := send(ctx, c, b, 2, func(results pgx.BatchResults) (err error) {
			result, err = readType(results.QueryRow(), call.OrgID, &now)
			return err
		})
		if errors.Is(err, pgx.ErrNoRows) {
			return types.ErrNotFound()
		}
		if err != nil {
			return err
		}
		change, err := decide(result, now)
		if err != nil || change == nil {
			return err
		}
		n := &change.Next
		b = &pgx.Batch{}
		b.Queue(updateType, call.OrgID, n.Name, n.Description, string(n.Schema), n.Version, n.UpdatedAt, n.ArchivedAt)
		if err := queueType(b, call, change); err != nil {
			return err
		}
		b.Queue("COMMIT")
		return outcome(send(ctx, c, b, 0, func(results pgx.BatchResults) (err error) {
			result, err = readType(results.QueryRow(), call.OrgID)
			return err
		}))
	})
	return result, pg.Translate(err)
}

func queueType(b *pgx.Batch, call records.Call, c *types.Change) error {
	pre := outbox.Event{OrgID: call.OrgID, AggregateType: types.Aggregate, AggregateID: c.Next.ID, RecordName: c.Next.Name,
		Changes: c.Changes, Action: event.Pre(c.Operation)}
	post := pre
	post.Action = event.Post(c.Operation)
	return queueEvents(b, call, pre, post)
}

// Existing implements types.Store.
func (s *Store) Existing(ctx context.Context, orgID int64, refs []schema.Ref) (there []bool, err error) {
	kinds, ids := make([]string, len(refs)), make([]int64, len(refs))
	for i, r := range refs {
		kinds[i], ids[i] = r.Type, r.ID
	}
	b := batch(orgID)
	b.Queue(existing, orgID, kinds, ids)
	err = send(ctx, s.pool, b, 1, func(results pgx.BatchResults) error {
		rows, err := results.Query()
		if err != nil {
			return err
		}
		there, err = pgx.CollectRows(rows, pgx.RowTo[bool])
		return err
	})
	return there, pg.Translate(err)
}

// readType reads typeColumns, and what follows them into more.
func readType(row pgx.Row, orgID int64, more ...any) (types.Type, error) {
	t := types.Type{OrgID: orgID}
	var text string
	err := row.Scan(append([]any{&t.ID, &t.Name, &t.Description, &text, &t.Version, &t.CreatedAt, &t.UpdatedAt, &t.ArchivedAt}, more...)...)
	t.Schema = []byte(text)
	return t, err
}
