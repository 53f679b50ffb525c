package store

import (
	"context"
	"encoding/json"
	"fmt"
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
	// By id, so that two batches of the same records wait for each other and never in a ring.
	lockRecords = peekRecords + ` FOR UPDATE`
	peekRecords = `SELECT ` + columns + `, ` + governed + ` FROM sametick.records r WHERE org_id = $1 AND type = $2 AND id = ANY($3) ORDER BY id`

	findAllNames = `SELECT type, id, name FROM sametick.records WHERE org_id = $1
		AND (type = 'workflow' AND id = ANY($2) OR type = 'step' AND id = ANY($3))`

	// eventsAtOnce bounds the JSON of one call of record_events; jsonb ends at 256 MB.
	eventsAtOnce = 100
)

// Batch implements records.Writer in three round trips: lock, names, write.
func (s *Store) Batch(ctx context.Context, call records.Call, typ string, ids []int64, creates int, refs []records.Refs, decide records.DecideBatch) ([]records.Record, error) {
	l := nothingLocated()
	l.NewIDs = make([]int64, creates)
	for i := range l.NewIDs {
		var err error
		if l.NewIDs[i], err = s.ids.next(ctx); err != nil {
			return nil, err
		}
	}
	var made []records.Record
	err := s.connected(ctx, func(c *pgxpool.Conn) error {
		if err := locate(ctx, c, call, lockRecords, typ, ids, refs, &l); err != nil {
			return pg.Translate(err)
		}
		outcomes, err := decide(l)
		if err != nil {
			return err
		}
		made, err = applyAll(ctx, c, call, outcomes)
		return err
	})
	if isLastAdministrator(err) {
		return nil, errLastAdministrator(err)
	}
	return made, pg.Translate(err)
}

func nothingLocated() records.Located {
	return records.Located{Records: map[int64]records.Record{}, Governed: map[int64]bool{}, WorkflowNames: map[int64]string{}, StepNames: map[int64]string{}}
}

func locate(ctx context.Context, c *pgxpool.Conn, call records.Call, statement, typ string, ids []int64, refs []records.Refs, l *records.Located) error {
	b := &pgx.Batch{}
	b.Queue("BEGIN")
	queueBegin(b, call)
	b.Queue(statement, call.OrgID, typ, ids)
	b.Queue(`SELECT date_trunc('milliseconds', clock_timestamp())`) // after the locks
	err := send(ctx, c, b, 2, func(results pgx.BatchResults) error {
		rows, err := results.Query()
		if err != nil {
			return err
		}
		list, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (records.Record, error) {
			var moved bool
			r, err := readRecord(row, call.OrgID, &moved)
			l.Governed[r.ID] = moved
			return r, err
		})
		if err != nil {
			return err
		}
		for i := range list {
			l.Records[list[i].ID] = list[i]
			refs = append(refs, records.Refs{WorkflowID: list[i].WorkflowID, StepID: list[i].StepID})
		}
		return results.QueryRow().Scan(&l.Now)
	})
	if err != nil {
		return err
	}
	return findNamesOf(ctx, c, call.OrgID, refs, l)
}

func findNamesOf(ctx context.Context, c *pgxpool.Conn, orgID int64, refs []records.Refs, l *records.Located) error {
	var workflows, steps []int64
	for _, r := range refs {
		if r.WorkflowID != nil {
			workflows = append(workflows, *r.WorkflowID)
		}
		if r.StepID != nil {
			steps = append(steps, *r.StepID)
		}
	}
	if len(workflows)+len(steps) == 0 {
		return nil
	}
	rows, err := c.Query(ctx, findAllNames, orgID, workflows, steps)
	if err != nil {
		return err
	}
	var (
		typ, name string
		id        int64
	)
	_, err = pgx.ForEachRow(rows, []any{&typ, &id, &name}, func() error {
		if typ == "workflow" {
			l.WorkflowNames[id] = name
		} else {
			l.StepNames[id] = name
		}
		return nil
	})
	return err
}

// applyAll writes the changes and commits.
func applyAll(ctx context.Context, c *pgxpool.Conn, call records.Call, outcomes []records.Outcome) ([]records.Record, error) {
	b := &pgx.Batch{}
	var list []outbox.Event
	for i := range outcomes {
		if change := outcomes[i].Change; change != nil {
			queueRecord(b, call.OrgID, change)
			pre, post := changeEvents(call.OrgID, change)
			list = append(list, pre, post)
		}
	}
	for len(list) > 0 {
		n := min(eventsAtOnce, len(list))
		if err := queueEvents(b, call, list[:n]...); err != nil {
			return nil, err
		}
		list = list[n:]
	}
	b.Queue("COMMIT")
	made := make([]records.Record, len(outcomes))
	at := 0
	err := send(ctx, c, b, 0, func(results pgx.BatchResults) (err error) {
		for i := range outcomes {
			at = i
			if made[i] = outcomes[i].Record; outcomes[i].Change == nil {
				continue
			}
			if made[i], err = readRecord(results.QueryRow(), call.OrgID); err != nil {
				return err
			}
		}
		return nil
	})
	if pg.IsUnique(err, externalKey) {
		return nil, errs.New(errs.AlreadyExists, "EXTERNAL_ID_EXISTS", "a record has this external_id already, so nothing was done").
			WithField(fmt.Sprintf("operations[%d]", at), "EXTERNAL_ID_EXISTS", "an attributes.external_id that no other record of the type has").WithCause(err)
	}
	return made, outcome(err)
}

func queueRecord(b *pgx.Batch, orgID int64, c *records.Change) {
	next := &c.Next
	if c.Operation == event.Create {
		b.Queue(insertRecord, orgID, next.Type, next.ID, next.Name, string(next.Attributes), next.WorkflowID, next.StepID)
		return
	}
	b.Queue(updateRecord, orgID, next.Type, next.ID, next.Name, string(next.Attributes), next.Version, next.WorkflowID, next.StepID,
		next.UpdatedAt, next.ArchivedAt)
}

const scanRecords = `SELECT ` + columns + ` FROM sametick.records r WHERE org_id = $1 AND type = $2 AND ($3 OR archived_at IS NULL)
	AND ($4::bigint IS NULL OR workflow_id = $4) ORDER BY id`

// BeginExport implements records.Exporter.
func (s *Store) BeginExport(ctx context.Context, call records.Call, typ string) (int64, error) {
	id, err := s.ids.next(ctx)
	if err != nil {
		return 0, err
	}
	return id, s.exportEvent(ctx, call, typ, id, event.Pre(event.Export), "applied", reviewsOf(call.Reviews))
}

// EndExport implements records.Exporter.
func (s *Store) EndExport(ctx context.Context, call records.Call, typ string, id int64, action, outcome string, extra json.RawMessage) error {
	return s.exportEvent(ctx, call, typ, id, action, outcome, extra)
}

// exportEvent writes one event of an export, which has an id of its own among the records of the type.
func (s *Store) exportEvent(ctx context.Context, call records.Call, typ string, id int64, action, outcome string, extra json.RawMessage) error {
	args, err := outbox.Args(outbox.Context{ActorID: call.ActorID, RequestID: call.RequestID, IP: call.IP, UserAgent: call.UserAgent,
		Traceparent: call.Traceparent, Outcome: outcome}, outbox.Event{OrgID: call.OrgID, AggregateType: typ, AggregateID: id,
		RecordName: "export of " + typ, Action: action, Extra: extra})
	if err != nil {
		return err
	}
	b := beginBatch(call)
	b.Queue(outbox.Statement, args...)
	return s.write(ctx, b, func(pgx.BatchResults) error { return nil })
}

// Scan implements records.Exporter: one statement, whose rows Postgres makes as they are taken. So neither side
// has more of them than fits the socket, and how fast the reader is decides how long it takes.
func (s *Store) Scan(ctx context.Context, orgID int64, q records.Query, each func(*records.Record) error) error {
	err := s.connected(ctx, func(c *pgxpool.Conn) error {
		b := transaction(orgID, "BEGIN READ ONLY")
		b.Queue(fmt.Sprintf("SET LOCAL statement_timeout = %d", (records.MaxExportTime + time.Minute).Milliseconds()))
		if err := send(ctx, c, b, 0, func(pgx.BatchResults) error { return nil }); err != nil {
			return err
		}
		rows, err := c.Query(ctx, scanRecords, orgID, q.Type, q.IncludeArchived, q.WorkflowID)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			r, err := readRecord(rows, orgID)
			if err != nil {
				return err
			}
			if err := each(&r); err != nil {
				return err
			}
		}
		return rows.Err()
	})
	return pg.Translate(err)
}
