package store

import (
	"context"
	"encoding/json"
	"errors"
	"strconv"

	"github.com/jackc/pgx/v5"

	"github.com/sametick/sametick/pkg/errs"
	"github.com/sametick/sametick/pkg/event"
	"github.com/sametick/sametick/pkg/idempotency"
	"github.com/sametick/sametick/pkg/outbox"
	"github.com/sametick/sametick/pkg/pg"
	"github.com/sametick/sametick/services/webhook-worker/internal/delivery"
	"github.com/sametick/sametick/services/webhook-worker/internal/endpoints"
)

const (
	nextID = `SELECT nextval('sametick.webhook_ids')`

	endpointColumns = `SELECT e.id, e.url, e.description, e.event_types, e.aggregate_types, e.aggregate_ids, e.filter, e.transform, e.format,
		e.headers, e.rate_limit, e.ordered, e.auth_kind, e.client_certificate, e.ed25519,
		ARRAY(SELECT s.public_key FROM sametick.webhook_secrets s WHERE s.org_id = e.org_id AND s.endpoint_id = e.id AND s.kind = 'v1a'
			AND (s.expires_at IS NULL OR s.expires_at > now()) ORDER BY s.id DESC),
		e.enabled, e.disabled_reason, e.disabled_at, e.failing_since, e.version, e.created_at, e.updated_at, e.archived_at`
	endpointByID  = endpointColumns + ` FROM sametick.webhook_endpoints e WHERE e.org_id = $1 AND e.id = $2`
	lockEndpoint  = endpointColumns + `, e.client_key_sealed IS NOT NULL, date_trunc('milliseconds', now()) FROM sametick.webhook_endpoints e WHERE e.org_id = $1 AND e.id = $2 FOR UPDATE`
	endpointWhere = ` FROM sametick.webhook_endpoints e WHERE e.org_id = $1 AND ($2 OR e.archived_at IS NULL) AND ($3::boolean IS NULL OR e.enabled = $3)
		AND ($4::bigint[] = '{}' OR e.id = ANY($4))`
	listEndpoints = endpointColumns + endpointWhere + ` AND ($5 = 0 OR e.id < $5) ORDER BY e.id DESC LIMIT $6`
	allEndpoints  = endpointColumns + ` FROM sametick.webhook_endpoints e WHERE e.org_id = $1 AND e.archived_at IS NULL ORDER BY e.id`

	insertEndpoint = `INSERT INTO sametick.webhook_endpoints (org_id, id, url, description, event_types, aggregate_types, aggregate_ids, filter,
		transform, format, headers, rate_limit, ordered, auth_kind, client_certificate, ed25519, enabled, disabled_reason, disabled_at)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, CASE WHEN NOT $17 THEN date_trunc('milliseconds', now()) END)`
	updateEndpoint = `UPDATE sametick.webhook_endpoints SET url = $3, description = $4, event_types = $5, aggregate_types = $6, aggregate_ids = $7,
		filter = $8, transform = $9, format = $10, headers = $11, rate_limit = $12, ordered = $13, auth_kind = $14, client_certificate = $15,
		ed25519 = $16, enabled = $17, disabled_reason = $18, disabled_at = $19, failing_since = $20, version = $21, updated_at = $22, archived_at = $23
		WHERE org_id = $1 AND id = $2`
	setAuth      = `UPDATE sametick.webhook_endpoints SET auth_sealed = $3 WHERE org_id = $1 AND id = $2`
	setClientKey = `UPDATE sametick.webhook_endpoints SET client_key_sealed = $3 WHERE org_id = $1 AND id = $2`
	addSecret    = `INSERT INTO sametick.webhook_secrets (org_id, endpoint_id, id, kind, sealed, public_key) VALUES ($1, $2, nextval('sametick.webhook_ids'), $3, $4, $5)`
	endSecrets   = `UPDATE sametick.webhook_secrets SET expires_at = $4 WHERE org_id = $1 AND endpoint_id = $2 AND kind = $3
		AND (expires_at IS NULL OR expires_at > $4)`
	// What comes before the event, at whatever position that is, is not sent: see beginSQL.
	await     = `UPDATE sametick.webhook_endpoints SET from_position = -$3::bigint WHERE org_id = $1 AND id = $2`
	dropEnded = `DELETE FROM sametick.webhook_secrets WHERE org_id = $1 AND endpoint_id = $2 AND (kind = $3 OR expires_at < now())`
)

// NewID implements endpoints.Store.
func (s *Store) NewID(ctx context.Context) (id int64, err error) {
	err = s.pool.QueryRow(ctx, nextID).Scan(&id)
	return id, pg.Translate(err)
}

// org runs fn in a transaction that sees one organisation: that of the call's Idempotency-Key, where it has one.
func (s *Store) org(ctx context.Context, orgID int64, fn func(tx pgx.Tx) error) error {
	return idempotency.InTx(ctx, s.pool, pg.TxOptions{Org: orgID, Retries: 3}, fn)
}

// Create implements endpoints.Store.
func (s *Store) Create(ctx context.Context, call endpoints.Call, c endpoints.Change, most int) (e endpoints.Endpoint, err error) {
	err = s.org(ctx, call.OrgID, func(tx pgx.Tx) error {
		if err := room(ctx, tx, call.OrgID, most); err != nil {
			return err
		}
		n := &c.Next
		_, err := tx.Exec(ctx, insertEndpoint, append(settingsArgs(call.OrgID, n), n.Enabled, n.DisabledReason)...)
		if err != nil {
			return err
		}
		if _, err := writeChange(ctx, tx, call, &c); err != nil {
			return err
		}
		e, err = readEndpoint(tx.QueryRow(ctx, endpointByID, call.OrgID, n.ID))
		return err
	})
	return e, err
}

// room refuses one endpoint more than most. One at a time in an organisation: else two would both be the last that there
// is room for.
func room(ctx context.Context, tx pgx.Tx, orgID int64, most int) error {
	var there int
	err := tx.QueryRow(ctx, `SELECT count(*) FROM sametick.webhook_endpoints, (SELECT pg_advisory_xact_lock(hashtext('sametick.webhook_endpoints'), $1::int)) l
		WHERE org_id = $2 AND archived_at IS NULL`, int32(orgID), orgID).Scan(&there)
	if err == nil && there >= most {
		err = errs.New(errs.ResourceExhausted, "TOO_MANY_ENDPOINTS", "the organisation has as many endpoints as it may have").
			WithMeta("limit", idText(int64(most)))
	}
	return err
}

// Restore implements endpoints.Store.
func (s *Store) Restore(ctx context.Context, call endpoints.Call, id int64, most int, decide endpoints.Decide) (e endpoints.Endpoint, err error) {
	err = s.org(ctx, call.OrgID, func(tx pgx.Tx) error {
		var eventID int64
		if e, eventID, err = change(ctx, tx, call, id, decide); err != nil || eventID == 0 {
			return err
		}
		if err := room(ctx, tx, call.OrgID, most+1); err != nil { // it is among those that are counted
			return err
		}
		_, err := tx.Exec(ctx, await, call.OrgID, id, eventID)
		return err
	})
	return e, err
}

// settingsArgs are the first arguments of insertEndpoint and updateEndpoint.
func settingsArgs(orgID int64, e *endpoints.Endpoint) []any {
	return []any{orgID, e.ID, e.URL, e.Description, orEmpty(e.EventTypes), orEmpty(e.AggregateTypes), orEmpty(e.AggregateIDs), e.Filter,
		e.Transform, e.Format, headersOf(e.Headers), e.RateLimit, e.Ordered, e.AuthKind, e.ClientCertificate, e.Asymmetric}
}

func orEmpty[T any](list []T) []T {
	if list == nil {
		return []T{}
	}
	return list
}

func headersOf(m map[string]string) map[string]string {
	if m == nil {
		return map[string]string{}
	}
	return m
}

// writeChange writes what a change has beside the row itself, and its events; it gives the last one's id.
func writeChange(ctx context.Context, tx pgx.Tx, call endpoints.Call, c *endpoints.Change) (int64, error) {
	org, id := call.OrgID, c.Next.ID
	b := &pgx.Batch{}
	if c.Auth != nil {
		b.Queue(setAuth, org, id, orNull(c.Auth))
	}
	if c.ClientKey != nil {
		b.Queue(setClientKey, org, id, orNull(c.ClientKey))
	}
	for _, s := range c.Secrets {
		if !c.OldUntil.IsZero() {
			b.Queue(endSecrets, org, id, s.Kind, c.OldUntil)
		}
		b.Queue(addSecret, org, id, s.Kind, s.Sealed, s.PublicKey)
	}
	if c.DropKind != "" || !c.OldUntil.IsZero() {
		b.Queue(dropEnded, org, id, c.DropKind)
	}
	if b.Len() > 0 {
		if err := tx.SendBatch(ctx, b).Close(); err != nil {
			return 0, err
		}
	}
	return record(ctx, tx, call, &c.Next, c.Changes, c.Extra, c.Actions...)
}

func orNull(b []byte) []byte {
	if len(b) == 0 {
		return nil
	}
	return b
}

// record records an endpoint's events; extra joins the last one's payload. It gives the last one's id, 0 for none.
func record(ctx context.Context, tx pgx.Tx, call endpoints.Call, e *endpoints.Endpoint, changes, extra json.RawMessage, actions ...string) (int64, error) {
	if len(actions) == 0 {
		return 0, nil
	}
	list := make([]outbox.Event, len(actions))
	for i, action := range actions {
		list[i] = outbox.Event{OrgID: call.OrgID, AggregateType: delivery.EndpointType, AggregateID: e.ID, Action: action, RecordName: e.Name(), Changes: changes}
	}
	list[len(list)-1].Extra = extra
	recorded, err := outbox.Append(ctx, tx, call.Context, list...)
	if err != nil {
		return 0, err
	}
	return recorded[len(recorded)-1].ID, nil
}

// Change implements endpoints.Store.
func (s *Store) Change(ctx context.Context, call endpoints.Call, id int64, decide endpoints.Decide) (e endpoints.Endpoint, eventID int64, err error) {
	err = s.org(ctx, call.OrgID, func(tx pgx.Tx) error {
		e, eventID, err = change(ctx, tx, call, id, decide)
		return err
	})
	return e, eventID, err
}

func change(ctx context.Context, tx pgx.Tx, call endpoints.Call, id int64, decide endpoints.Decide) (e endpoints.Endpoint, eventID int64, err error) {
	c, err := lock(ctx, tx, call.OrgID, id)
	if err != nil {
		return e, 0, err
	}
	ch, err := decide(c)
	if err != nil || ch == nil {
		return c.Endpoint, 0, err
	}
	n := &ch.Next
	if n.Version != c.Version {
		_, err = tx.Exec(ctx, updateEndpoint, append(settingsArgs(call.OrgID, n), n.Enabled, n.DisabledReason, n.DisabledAt, n.FailingSince,
			n.Version, n.UpdatedAt, n.ArchivedAt)...)
		if err != nil {
			return e, 0, err
		}
	}
	if eventID, err = writeChange(ctx, tx, call, ch); err != nil {
		return e, 0, err
	}
	e, err = readEndpoint(tx.QueryRow(ctx, endpointByID, call.OrgID, id))
	return e, eventID, err
}

func lock(ctx context.Context, tx pgx.Tx, orgID, id int64) (c endpoints.Current, err error) {
	c.Endpoint, err = readEndpoint(tx.QueryRow(ctx, lockEndpoint, orgID, id), &c.HasClientKey, &c.Now)
	if errors.Is(err, pgx.ErrNoRows) {
		err = endpoints.ErrNotFound("endpoint", id)
	}
	return c, err
}

// readEndpoint reads columns, and what follows them into more.
func readEndpoint(row pgx.Row, more ...any) (e endpoints.Endpoint, err error) {
	err = row.Scan(append([]any{&e.ID, &e.URL, &e.Description, &e.EventTypes, &e.AggregateTypes, &e.AggregateIDs, &e.Filter, &e.Transform, &e.Format,
		&e.Headers, &e.RateLimit, &e.Ordered, &e.AuthKind, &e.ClientCertificate, &e.Asymmetric, &e.PublicKeys,
		&e.Enabled, &e.DisabledReason, &e.DisabledAt, &e.FailingSince, &e.Version, &e.CreatedAt, &e.UpdatedAt, &e.ArchivedAt}, more...)...)
	return e, err
}

// Get implements endpoints.Store.
func (s *Store) Get(ctx context.Context, orgID, id int64) (e endpoints.Endpoint, err error) {
	err = s.org(ctx, orgID, func(tx pgx.Tx) error {
		e, err = readEndpoint(tx.QueryRow(ctx, endpointByID, orgID, id))
		if errors.Is(err, pgx.ErrNoRows) {
			return endpoints.ErrNotFound("endpoint", id)
		}
		return err
	})
	return e, err
}

// List implements endpoints.Store.
func (s *Store) List(ctx context.Context, orgID int64, q endpoints.Query) (list []endpoints.Endpoint, total int64, err error) {
	err = s.org(ctx, orgID, func(tx pgx.Tx) error {
		err := tx.QueryRow(ctx, `SELECT count(*)`+endpointWhere, orgID, q.IncludeArchived, q.Enabled, orEmpty(q.Only)).Scan(&total)
		if err != nil {
			return err
		}
		list, err = query(ctx, tx, func(row pgx.CollectableRow) (endpoints.Endpoint, error) { return readEndpoint(row) },
			listEndpoints, orgID, q.IncludeArchived, q.Enabled, orEmpty(q.Only), q.Before, q.Limit)
		return err
	})
	return list, total, err
}

func query[T any](ctx context.Context, tx pgx.Tx, read func(pgx.CollectableRow) (T, error), sql string, args ...any) ([]T, error) {
	rows, err := tx.Query(ctx, sql, args...)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, read)
}

// Export implements endpoints.Store: pre_export says that it begins, post_export what was read, in one transaction.
func (s *Store) Export(ctx context.Context, call endpoints.Call, told func([]endpoints.Endpoint) json.RawMessage) (list []endpoints.Endpoint, err error) {
	err = s.org(ctx, call.OrgID, func(tx pgx.Tx) error {
		list, err = query(ctx, tx, func(row pgx.CollectableRow) (endpoints.Endpoint, error) { return readEndpoint(row) }, allEndpoints, call.OrgID)
		if err != nil {
			return err
		}
		export := endpoints.Endpoint{Settings: endpoints.Settings{Description: "export of " + delivery.EndpointType}}
		if err := tx.QueryRow(ctx, nextID).Scan(&export.ID); err != nil { // an export has an id of its own
			return err
		}
		_, err = record(ctx, tx, call, &export, nil, told(list), event.Pre(event.Export), event.Post(event.Export))
		return err
	})
	return list, err
}

func idText(id int64) string { return strconv.FormatInt(id, 10) }
