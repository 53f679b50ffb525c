package store

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/sametick/sametick/pkg/event"
	"github.com/sametick/sametick/pkg/outbox"
	"github.com/sametick/sametick/pkg/pg"
	"github.com/sametick/sametick/services/api-gateway/internal/paging"
	"github.com/sametick/sametick/services/api-gateway/internal/records"
	"github.com/sametick/sametick/services/api-gateway/internal/workflow"
)

const (
	insertRun = `INSERT INTO sametick.workflow_runs (org_id, workflow_id, definition_id, definition_version, status) VALUES ($1, $2, $3, $4, $5)`

	insertStep = `INSERT INTO sametick.workflow_steps (org_id, workflow_id, step_id, place, key, needs, approval, on_failure, status)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)`

	findRun = `SELECT r.name, w.status, w.definition_id, w.definition_version FROM sametick.workflow_runs w
		JOIN sametick.records r ON r.org_id = w.org_id AND r.type = 'workflow' AND r.id = w.workflow_id WHERE w.org_id = $1 AND w.workflow_id = $2`

	findSteps = `SELECT s.step_id, s.key, r.name, s.needs, s.approval, s.on_failure, s.status FROM sametick.workflow_steps s
		JOIN sametick.records r ON r.org_id = s.org_id AND r.type = 'step' AND r.id = s.step_id
		WHERE s.org_id = $1 AND s.workflow_id = $2 ORDER BY s.place`

	// In the order of ids, as batches of records lock them.
	lockParts = `SELECT id FROM sametick.records WHERE org_id = $1 AND id = ANY($2) AND type IN ('workflow', 'step') ORDER BY id FOR UPDATE`

	moveRun  = `UPDATE sametick.workflow_runs SET status = $3 WHERE org_id = $1 AND workflow_id = $2`
	moveStep = `UPDATE sametick.workflow_steps SET status = $3 WHERE org_id = $1 AND step_id = $2`

	movePart = `UPDATE sametick.records SET attributes = attributes || $4, version = version + 1, updated_at = date_trunc('milliseconds', clock_timestamp())
		WHERE org_id = $1 AND type = $2 AND id = $3`
)

// Start implements workflow.Store, in one round trip.
func (s *Store) Start(ctx context.Context, call records.Call, d workflow.Definition, draft records.Record, steps []workflow.Step) (workflow.Flow, error) {
	flow := workflow.Flow{Name: draft.Name, Status: workflow.Running, DefinitionID: d.ID, DefinitionVersion: d.Version, Steps: steps}
	for _, id := range append([]*int64{&flow.ID}, stepIDs(steps)...) {
		var err error
		if *id, err = s.ids.next(ctx); err != nil {
			return flow, err
		}
	}
	draft.ID = flow.ID
	var err error
	if draft.Attributes, err = merged(draft.Attributes, map[string]any{"status": flow.Status, "definition_id": d.ID, "definition_version": d.Version}); err != nil {
		return flow, err
	}
	b := batch(call.OrgID)
	list := queuePart(b, call, draft, records.Names{})
	started := list[1]
	started.Action = "started"
	list = append(list, started)
	b.Queue(insertRun, call.OrgID, flow.ID, d.ID, d.Version, flow.Status)
	for i := range steps {
		st := &steps[i]
		attributes, err := merged(nil, map[string]any{"key": st.Key, "status": st.Status})
		if err != nil {
			return flow, err
		}
		list = append(list, queuePart(b, call, records.Record{Type: "step", ID: st.ID, Name: st.Name, Attributes: attributes, WorkflowID: &flow.ID},
			records.Names{Workflow: &draft.Name})...)
		b.Queue(insertStep, call.OrgID, flow.ID, st.ID, i, st.Key, st.Needs, st.Approval, st.OnFailure, st.Status)
	}
	if err := queueEvents(b, call, list...); err != nil {
		return flow, err
	}
	err = s.write(ctx, b, func(pgx.BatchResults) error { return nil })
	if pg.IsUnique(err, externalKey) {
		err = s.taken(ctx, records.Record{OrgID: call.OrgID, Type: "workflow", Attributes: draft.Attributes}, err)
	}
	return flow, err
}

func stepIDs(steps []workflow.Step) (ids []*int64) {
	for i := range steps {
		ids = append(ids, &steps[i].ID)
	}
	return ids
}

// queuePart queues a record of a workflow and gives its pre_ and post_create.
func queuePart(b *pgx.Batch, call records.Call, r records.Record, names records.Names) []outbox.Event {
	c := &records.Change{Operation: event.Create, Next: r, Names: names}
	queueRecord(b, call.OrgID, c)
	pre, post := changeEvents(call.OrgID, c)
	return []outbox.Event{pre, post}
}

// merged sets members of a JSON object.
func merged(attributes []byte, members map[string]any) ([]byte, error) {
	all := map[string]json.RawMessage{}
	if len(attributes) > 0 {
		if err := json.Unmarshal(attributes, &all); err != nil {
			return nil, err
		}
	}
	for name, value := range members {
		text, err := json.Marshal(value)
		if err != nil {
			return nil, err
		}
		all[name] = text
	}
	return json.Marshal(all)
}

// FindFlow implements workflow.Store.
func (s *Store) FindFlow(ctx context.Context, orgID, id int64) (f workflow.Flow, err error) {
	f.ID = id
	err = s.read(ctx, orgID, func(b *pgx.Batch) {
		b.Queue(findRun, orgID, id)
		b.Queue(findSteps, orgID, id)
	}, func(results pgx.BatchResults) error { return readFlow(results, &f) })
	return f, noFlow(err)
}

func noFlow(err error) error {
	if errors.Is(err, pgx.ErrNoRows) {
		return workflow.ErrNotFound()
	}
	return err
}

func readFlow(results pgx.BatchResults, f *workflow.Flow) error {
	if err := results.QueryRow().Scan(&f.Name, &f.Status, &f.DefinitionID, &f.DefinitionVersion); err != nil {
		return err
	}
	rows, err := results.Query()
	if err != nil {
		return err
	}
	f.Steps, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (st workflow.Step, err error) {
		err = row.Scan(&st.ID, &st.Key, &st.Name, &st.Needs, &st.Approval, &st.OnFailure, &st.Status)
		return st, err
	})
	return err
}

// MoveFlow implements workflow.Store: a round trip to lock the workflow's run, after which nobody else moves it, one
// to read it, one to lock the records that change, one to write.
func (s *Store) MoveFlow(ctx context.Context, call records.Call, id int64, decide func(workflow.Flow) (workflow.Transition, error)) (after workflow.Flow, err error) {
	err = s.connected(ctx, func(c *pgxpool.Conn) error {
		before := workflow.Flow{ID: id}
		b := transaction(call.OrgID, "BEGIN")
		b.Queue(`SELECT FROM sametick.workflow_runs WHERE org_id = $1 AND workflow_id = $2 FOR UPDATE`, call.OrgID, id)
		// A statement after the lock sees what the one before us has committed.
		b.Queue(findRun, call.OrgID, id)
		b.Queue(findSteps, call.OrgID, id)
		if err := send(ctx, c, b, 3, func(results pgx.BatchResults) error { return readFlow(results, &before) }); err != nil {
			return noFlow(err)
		}
		t, err := decide(before)
		if err != nil {
			return err
		}
		after = t.After
		if b, err = moveBatch(call, &t); err != nil {
			return err
		}
		b.Queue("COMMIT")
		return outcome(send(ctx, c, b, 0, func(pgx.BatchResults) error { return nil }))
	})
	return after, pg.Translate(err)
}

// moveBatch queues what a transition changes.
func moveBatch(call records.Call, t *workflow.Transition) (*pgx.Batch, error) {
	b := &pgx.Batch{}
	ids := []int64{t.After.ID}
	for i := range t.After.Steps {
		if t.After.Steps[i].Status != t.Before.Steps[i].Status {
			ids = append(ids, t.After.Steps[i].ID)
		}
	}
	slices.Sort(ids)
	b.Queue(lockParts, call.OrgID, ids)
	var list []outbox.Event
	for i := range t.After.Steps {
		was, is := &t.Before.Steps[i], &t.After.Steps[i]
		if was.Status == is.Status {
			continue
		}
		e := outbox.Event{OrgID: call.OrgID, AggregateType: "step", AggregateID: is.ID, RecordName: is.Name,
			WorkflowID: &t.After.ID, WorkflowName: t.After.Name, StepID: &is.ID, StepName: is.Name}
		note, named := "", ""
		if is.ID == t.StepID {
			note, named = t.Note, t.StepEvent
		}
		b.Queue(moveStep, call.OrgID, is.ID, is.Status)
		more, err := queueMove(b, e, was.Status, is.Status, note, named)
		if err != nil {
			return nil, err
		}
		list = append(list, more...)
	}
	if t.After.Status != t.Before.Status {
		e := outbox.Event{OrgID: call.OrgID, AggregateType: "workflow", AggregateID: t.After.ID, RecordName: t.After.Name,
			WorkflowID: &t.After.ID, WorkflowName: t.After.Name}
		b.Queue(moveRun, call.OrgID, t.After.ID, t.After.Status)
		more, err := queueMove(b, e, t.Before.Status, t.After.Status, t.Note, t.FlowEvent)
		if err != nil {
			return nil, err
		}
		list = append(list, more...)
	}
	return b, queueEvents(b, call, list...)
}

// queueMove queues a record's new status, and gives its events: pre_update, post_update and the one that names
// the move, if any.
func queueMove(b *pgx.Batch, e outbox.Event, before, after, note, named string) ([]outbox.Event, error) {
	members := map[string]any{"status": after}
	if note != "" {
		members["note"] = note
	}
	patch, err := json.Marshal(members)
	if err != nil {
		return nil, err
	}
	b.Queue(movePart, e.OrgID, e.AggregateType, e.AggregateID, string(patch))
	changes, err := json.Marshal(map[string]any{"attributes": map[string]any{"before": map[string]any{"status": before}, "after": members}})
	if err != nil {
		return nil, err
	}
	e.Changes = changes
	pre, post := e, e
	pre.Action, post.Action = event.Pre(event.Update), event.Post(event.Update)
	list := []outbox.Event{pre, post}
	if named == "" {
		return list, nil
	}
	e.Action, e.Changes = named, nil
	if note != "" {
		if e.Extra, err = json.Marshal(map[string]string{"note": note}); err != nil {
			return nil, err
		}
	}
	return append(list, e), nil
}

const (
	definitionColumns = `id, name, steps::text, version, created_at, updated_at, archived_at`
	insertDefinition  = `INSERT INTO sametick.workflow_definitions (org_id, id, name, steps) VALUES ($1, $2, $3, $4) RETURNING ` + definitionColumns
	findDefinition    = `SELECT ` + definitionColumns + ` FROM sametick.workflow_definitions WHERE org_id = $1 AND id = $2`
	lockDefinition    = `SELECT ` + definitionColumns + `, date_trunc('milliseconds', clock_timestamp()) FROM sametick.workflow_definitions
		WHERE org_id = $1 AND id = $2 FOR UPDATE`
	countDefinitions = `SELECT count(*) FROM sametick.workflow_definitions WHERE org_id = $1 AND archived_at IS NULL`
	listDefinitions  = `SELECT ` + definitionColumns + ` FROM sametick.workflow_definitions WHERE org_id = $1 AND archived_at IS NULL
		ORDER BY created_at DESC, id DESC LIMIT $2 OFFSET $3`
	updateDefinition = `UPDATE sametick.workflow_definitions SET name = $3, steps = $4, version = $5, updated_at = $6, archived_at = $7
		WHERE org_id = $1 AND id = $2 RETURNING ` + definitionColumns
)

// CreateDefinition implements workflow.Store.
func (s *Store) CreateDefinition(ctx context.Context, call records.Call, d workflow.Definition) (made workflow.Definition, err error) {
	if d.ID, err = s.ids.next(ctx); err != nil {
		return d, err
	}
	steps, err := json.Marshal(d.Steps)
	if err != nil {
		return d, err
	}
	b := batch(call.OrgID)
	b.Queue(insertDefinition, call.OrgID, d.ID, d.Name, string(steps))
	if err := queueDefinition(b, call, &workflow.DefinitionChange{Operation: event.Create, Next: d}); err != nil {
		return d, err
	}
	err = s.write(ctx, b, func(results pgx.BatchResults) (err error) {
		made, err = readDefinition(results.QueryRow(), call.OrgID)
		return err
	})
	return made, err
}

func queueDefinition(b *pgx.Batch, call records.Call, c *workflow.DefinitionChange) error {
	pre := outbox.Event{OrgID: call.OrgID, AggregateType: workflow.Aggregate, AggregateID: c.Next.ID, RecordName: c.Next.Name,
		Changes: c.Changes, Action: event.Pre(c.Operation)}
	post := pre
	post.Action = event.Post(c.Operation)
	return queueEvents(b, call, pre, post)
}

// FindDefinition implements workflow.Store.
func (s *Store) FindDefinition(ctx context.Context, orgID, id int64) (d workflow.Definition, err error) {
	b := batch(orgID)
	b.Queue(findDefinition, orgID, id)
	err = send(ctx, s.pool, b, 1, func(results pgx.BatchResults) (err error) {
		d, err = readDefinition(results.QueryRow(), orgID)
		return err
	})
	if errors.Is(err, pgx.ErrNoRows) {
		return d, workflow.ErrNoDefinition()
	}
	return d, pg.Translate(err)
}

// ChangeDefinition implements workflow.Store: one round trip to lock, one to write.
func (s *Store) ChangeDefinition(ctx context.Context, call records.Call, id int64, decide func(workflow.Definition, time.Time) (*workflow.DefinitionChange, error)) (d workflow.Definition, err error) {
	err = s.connected(ctx, func(c *pgxpool.Conn) error {
		var now time.Time
		b := transaction(call.OrgID, "BEGIN")
		b.Queue(lockDefinition, call.OrgID, id)
		err := send(ctx, c, b, 2, func(results pgx.BatchResults) (err error) {
			d, err = readDefinition(results.QueryRow(), call.OrgID, &now)
			return err
		})
		if errors.Is(err, pgx.ErrNoRows) {
			return workflow.ErrNoDefinition()
		}
		if err != nil {
			return err
		}
		change, err := decide(d, now)
		if err != nil || change == nil {
			return err
		}
		n := &change.Next
		steps, err := json.Marshal(n.Steps)
		if err != nil {
			return err
		}
		b = &pgx.Batch{}
		b.Queue(updateDefinition, call.OrgID, n.ID, n.Name, string(steps), n.Version, n.UpdatedAt, n.ArchivedAt)
		if err := queueDefinition(b, call, change); err != nil {
			return err
		}
		b.Queue("COMMIT")
		return outcome(send(ctx, c, b, 0, func(results pgx.BatchResults) (err error) {
			d, err = readDefinition(results.QueryRow(), call.OrgID)
			return err
		}))
	})
	return d, pg.Translate(err)
}

// ListDefinitions implements workflow.Store.
func (s *Store) ListDefinitions(ctx context.Context, orgID int64, p paging.Page) (list []workflow.Definition, total int64, err error) {
	err = s.read(ctx, orgID, func(b *pgx.Batch) {
		b.Queue(countDefinitions, orgID)
		b.Queue(listDefinitions, orgID, p.Limit, p.Offset)
	}, func(results pgx.BatchResults) error {
		if err := results.QueryRow().Scan(&total); err != nil {
			return err
		}
		rows, err := results.Query()
		if err != nil {
			return err
		}
		list, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (workflow.Definition, error) { return readDefinition(row, orgID) })
		return err
	})
	return list, total, err
}

func readDefinition(row pgx.Row, orgID int64, more ...any) (workflow.Definition, error) {
	d := workflow.Definition{OrgID: orgID}
	var steps string
	err := row.Scan(append([]any{&d.ID, &d.Name, &steps, &d.Version, &d.CreatedAt, &d.UpdatedAt, &d.ArchivedAt}, more...)...)
	if err != nil {
		return d, err
	}
	return d, json.Unmarshal([]byte(steps), &d.Steps)
}
