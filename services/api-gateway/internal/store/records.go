package store

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/sametick/sametick/pkg/errs"
	"github.com/sametick/sametick/pkg/event"
	"github.com/sametick/sametick/pkg/outbox"
	"github.com/sametick/sametick/pkg/pg"
	"github.com/sametick/sametick/services/api-gateway/internal/records"
)

const (
	columns = `r.type, r.id, r.name, r.attributes::text, r.version, r.workflow_id, r.step_id, r.created_at, r.updated_at, r.archived_at`

	// Whether a workflow's definition moves the record.
	governed = `CASE r.type WHEN 'workflow' THEN EXISTS (SELECT FROM sametick.workflow_runs g WHERE g.org_id = r.org_id AND g.workflow_id = r.id)
		WHEN 'step' THEN EXISTS (SELECT FROM sametick.workflow_steps g WHERE g.org_id = r.org_id AND g.step_id = r.id) ELSE false END`

	insertRecord = `INSERT INTO sametick.records AS r (org_id, type, id, name, attributes, workflow_id, step_id)
		VALUES ($1, $2, $3, $4, $5, $6, $7) RETURNING ` + columns

	updateRecord = `UPDATE sametick.records AS r SET name = $4, attributes = $5, version = $6, workflow_id = $7, step_id = $8,
		updated_at = $9, archived_at = $10 WHERE org_id = $1 AND type = $2 AND id = $3 RETURNING ` + columns

	getRecord = `SELECT ` + columns + ` FROM sametick.records r WHERE org_id = $1 AND type = $2 AND id = $3`

	// The names are those of the references that are asked for ($4, $5), else of the record's own.
	lockRecord = peekRecord + ` FOR UPDATE OF r`
	peekRecord = `SELECT ` + columns + `, w.name, s.name, ` + governed + `, date_trunc('milliseconds', clock_timestamp())
		FROM sametick.records r
		LEFT JOIN sametick.records w ON w.org_id = $1 AND w.type = 'workflow' AND w.id = coalesce($4, r.workflow_id)
		LEFT JOIN sametick.records s ON s.org_id = $1 AND s.type = 'step' AND s.id = coalesce($5, r.step_id)
		WHERE r.org_id = $1 AND r.type = $2 AND r.id = $3`

	findNames = `SELECT (SELECT name FROM sametick.records WHERE org_id = $1 AND type = 'workflow' AND id = $2),
		(SELECT name FROM sametick.records WHERE org_id = $1 AND type = 'step' AND id = $3)`

	findExternal = `SELECT id FROM sametick.records WHERE org_id = $1 AND type = $2 AND external_id = $3`

	listWhere = ` FROM sametick.records r WHERE org_id = $1 AND type = $2 AND ($3 OR archived_at IS NULL)
		AND ($4::bigint IS NULL OR workflow_id = $4) AND ($5::text IS NULL OR external_id = $5)`
	countRecords = `SELECT count(*)` + listWhere
	listRecords  = `SELECT ` + columns + listWhere + ` ORDER BY created_at DESC, id DESC LIMIT $6 OFFSET $7`

	externalKey = "records_external_id_key"
)

// Create implements records.Writer: one round trip, two when the record refers to others.
func (s *Store) Create(ctx context.Context, call records.Call, draft records.Record) (records.Record, error) {
	names, err := s.names(ctx, call.OrgID, records.Refs{WorkflowID: draft.WorkflowID, StepID: draft.StepID})
	if err != nil {
		return records.Record{}, err
	}
	if draft.ID, err = s.ids.next(ctx); err != nil {
		return records.Record{}, err
	}
	b := beginBatch(call)
	if err := queueCreate(b, call, draft, names); err != nil {
		return records.Record{}, err
	}
	var made records.Record
	err = s.write(ctx, b, func(results pgx.BatchResults) (err error) {
		made, err = readRecord(results.QueryRow(), call.OrgID)
		return err
	})
	if pg.IsUnique(err, externalKey) {
		err = s.taken(ctx, draft, err)
	}
	return made, err
}

// queueCreate queues a new record and its events.
func queueCreate(b *pgx.Batch, call records.Call, draft records.Record, names records.Names) error {
	c := &records.Change{Operation: event.Create, Next: draft, Names: names, Reviews: call.Reviews}
	queueRecord(b, call.OrgID, c)
	return queueChange(b, call, c)
}

// Change implements records.Writer: one round trip to lock, one to write.
func (s *Store) Change(ctx context.Context, call records.Call, typ string, id int64, refs records.Refs, decide records.Decide) (records.Record, error) {
	var result records.Record
	err := s.connected(ctx, func(c *pgxpool.Conn) error {
		current, err := lock(ctx, c, call, lockRecord, typ, id, refs)
		if err != nil {
			return err
		}
		result = current.Record
		change, err := decide(current)
		if err != nil || change == nil {
			return err
		}
		result, err = apply(ctx, c, call, change)
		return err
	})
	if pg.IsUnique(err, externalKey) {
		return records.Record{}, errs.New(errs.AlreadyExists, "EXTERNAL_ID_EXISTS", "another record has this external_id").WithCause(err)
	}
	if isLastAdministrator(err) {
		return records.Record{}, errLastAdministrator(err)
	}
	if err != nil {
		return records.Record{}, pg.Translate(err)
	}
	return result, nil
}

func lock(ctx context.Context, c *pgxpool.Conn, call records.Call, statement, typ string, id int64, refs records.Refs) (current records.Current, err error) {
	b := &pgx.Batch{}
	b.Queue("BEGIN")
	queueBegin(b, call)
	b.Queue(statement, call.OrgID, typ, id, refs.WorkflowID, refs.StepID)
	err = send(ctx, c, b, 2, func(results pgx.BatchResults) (err error) {
		current.Record, err = readRecord(results.QueryRow(), call.OrgID, &current.Names.Workflow, &current.Names.Step, &current.Governed, &current.Now)
		return err
	})
	if errors.Is(err, pgx.ErrNoRows) {
		err = records.ErrNotFound(typ, id)
	}
	return current, err
}

func apply(ctx context.Context, c *pgxpool.Conn, call records.Call, change *records.Change) (r records.Record, err error) {
	b := &pgx.Batch{}
	queueRecord(b, call.OrgID, change)
	if err := queueChange(b, call, change); err != nil {
		return r, err
	}
	b.Queue("COMMIT")
	err = send(ctx, c, b, 0, func(results pgx.BatchResults) (err error) {
		r, err = readRecord(results.QueryRow(), call.OrgID)
		return err
	})
	return r, outcome(err)
}

// queueChange queues the pre_ and the post_ event of a change and its audit entry.
func queueChange(b *pgx.Batch, call records.Call, c *records.Change) error {
	pre, post := changeEvents(call.OrgID, c)
	return queueEvents(b, call, pre, post)
}

func changeEvents(orgID int64, c *records.Change) (pre, post outbox.Event) {
	refs, workflow, step := c.Context()
	pre = outbox.Event{OrgID: orgID, AggregateType: c.Next.Type, AggregateID: c.Next.ID, RecordName: c.Next.Name,
		WorkflowID: refs.WorkflowID, WorkflowName: workflow, StepID: refs.StepID, StepName: step, Changes: c.Changes}
	post = pre
	pre.Extra = reviewsOf(c.Reviews)
	pre.Action, post.Action = event.Pre(c.Operation), event.Post(c.Operation)
	return pre, post
}

func (s *Store) names(ctx context.Context, orgID int64, refs records.Refs) (names records.Names, err error) {
	if refs.WorkflowID == nil && refs.StepID == nil {
		return names, nil
	}
	b := batch(orgID)
	b.Queue(findNames, orgID, refs.WorkflowID, refs.StepID)
	err = send(ctx, s.pool, b, 1, func(results pgx.BatchResults) error {
		return results.QueryRow().Scan(&names.Workflow, &names.Step)
	})
	if err != nil {
		return names, pg.Translate(err)
	}
	return names, records.CheckNames(refs, names)
}

// taken says which record has the external id.
func (s *Store) taken(ctx context.Context, draft records.Record, cause error) error {
	exists := errs.New(errs.AlreadyExists, "EXTERNAL_ID_EXISTS", "another record has this external_id").WithCause(cause)
	var key struct {
		ExternalID string `json:"external_id"`
	}
	if err := json.Unmarshal(draft.Attributes, &key); err != nil {
		return exists
	}
	// Outside a unit, whose transaction has failed; not for long, as it may hold the connection that others wait for.
	ctx, cancel := context.WithTimeout(context.WithValue(ctx, unitKey{}, nil), time.Second)
	defer cancel()
	var id int64
	b := batch(draft.OrgID)
	b.Queue(findExternal, draft.OrgID, draft.Type, key.ExternalID)
	err := send(ctx, s.pool, b, 1, func(results pgx.BatchResults) error { return results.QueryRow().Scan(&id) })
	if err != nil {
		return exists
	}
	return exists.WithMeta("id", idText(id))
}

// Get implements records.Reader.
func (s *Store) Get(ctx context.Context, orgID int64, typ string, id int64) (r records.Record, err error) {
	b := batch(orgID)
	b.Queue(getRecord, orgID, typ, id)
	err = send(ctx, s.pool, b, 1, func(results pgx.BatchResults) (err error) {
		r, err = readRecord(results.QueryRow(), orgID)
		return err
	})
	if errors.Is(err, pgx.ErrNoRows) {
		return r, records.ErrNotFound(typ, id)
	}
	return r, pg.Translate(err)
}

// List implements records.Reader.
func (s *Store) List(ctx context.Context, orgID int64, q records.Query) (list []records.Record, total int64, err error) {
	args := []any{orgID, q.Type, q.IncludeArchived, q.WorkflowID, q.ExternalID}
	err = s.read(ctx, orgID, func(b *pgx.Batch) {
		b.Queue(countRecords, args...)
		b.Queue(listRecords, append(args, q.Page.Limit, q.Page.Offset)...)
	}, func(results pgx.BatchResults) error {
		if err := results.QueryRow().Scan(&total); err != nil {
			return err
		}
		rows, err := results.Query()
		if err != nil {
			return err
		}
		list, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (records.Record, error) { return readRecord(row, orgID) })
		return err
	})
	return list, total, err
}

// readRecord reads columns, and what follows them into more.
func readRecord(row pgx.Row, orgID int64, more ...any) (records.Record, error) {
	r := records.Record{OrgID: orgID}
	var attributes string
	err := row.Scan(append([]any{&r.Type, &r.ID, &r.Name, &attributes, &r.Version, &r.WorkflowID, &r.StepID,
		&r.CreatedAt, &r.UpdatedAt, &r.ArchivedAt}, more...)...)
	r.Attributes = json.RawMessage(attributes)
	return r, err
}
