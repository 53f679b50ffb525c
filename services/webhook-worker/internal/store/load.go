package store

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/sametick/sametick/pkg/keyring"
	"github.com/sametick/sametick/pkg/pg"
	"github.com/sametick/sametick/services/webhook-worker/internal/delivery"
)

// Vault opens what is sealed of endpoints (pkg/keyring.Ring).
type Vault interface {
	Open(owner keyring.Owner, sealed []byte) ([]byte, error)
}

const (
	targetSQL = `
SELECT e.org_id, e.id, e.url, e.event_types, e.aggregate_types, e.aggregate_ids, e.filter, e.transform, e.format, e.headers,
       coalesce(e.rate_limit, 0), e.ordered, e.auth_sealed, e.client_certificate, e.client_key_sealed, e.enabled,
       e.archived_at IS NOT NULL, e.failing_since, coalesce(e.from_position, -1), e.version, s.sealed, s.expires
  FROM sametick.webhook_endpoints e LEFT JOIN LATERAL
       (SELECT array_agg(sealed ORDER BY id DESC) AS sealed, array_agg(expires_at ORDER BY id DESC) AS expires FROM sametick.webhook_secrets s
         WHERE s.org_id = e.org_id AND s.endpoint_id = e.id AND (s.expires_at IS NULL OR s.expires_at > now())) s ON true`
	targetsSQL   = targetSQL + ` WHERE e.org_id = ANY($1) AND e.archived_at IS NULL`
	oneTargetSQL = targetSQL + ` WHERE e.org_id = $1 AND e.id = $2`

	// What begins anew after it was disabled gets only what comes after that, too. A negative position is the id of the
	// event that it was restored by: events before that one, such as of its creation, begin nothing when they are read
	// late. An endpoint's ids are in the order of their positions.
	beginSQL = `UPDATE sametick.webhook_endpoints SET from_position = greatest(from_position, $3)
		WHERE org_id = $1 AND id = $2 AND coalesce(from_position, 0) >= -$4::bigint`
)

// Endpoints gives those of organisations that are not archived, in the worker's transaction.
func (s *Worker) Endpoints(ctx context.Context, tx pgx.Tx, orgs []int64) ([]*delivery.Endpoint, error) {
	rows, err := tx.Query(ctx, targetsSQL, orgs)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, s.scanEndpoint)
}

// Endpoint gives one, archived ones too; NotFound when there is none.
func (s *Worker) Endpoint(ctx context.Context, tx pgx.Tx, orgID, id int64) (*delivery.Endpoint, error) {
	rows, err := tx.Query(ctx, oneTargetSQL, orgID, id)
	if err != nil {
		return nil, err
	}
	e, err := pgx.CollectExactlyOneRow(rows, s.scanEndpoint)
	return e, pg.Translate(err)
}

// BeginEndpoint notes from which position on an endpoint gets events: that of one of its own events, which has an id too.
func (s *Worker) BeginEndpoint(ctx context.Context, tx pgx.Tx, orgID, id, position, eventID int64) error {
	_, err := tx.Exec(ctx, beginSQL, orgID, id, position, eventID)
	return err
}

func (s *Worker) scanEndpoint(row pgx.CollectableRow) (*delivery.Endpoint, error) {
	e := &delivery.Endpoint{}
	var headers, auth, key []byte
	var certificate string
	var failing *time.Time
	var sealed [][]byte
	var expires []*time.Time
	err := row.Scan(&e.OrgID, &e.ID, &e.URL, &e.EventTypes, &e.AggregateTypes, &e.AggregateIDs, &e.Filter, &e.Transform, &e.Format, &headers,
		&e.RateLimit, &e.Ordered, &auth, &certificate, &key, &e.Enabled, &e.Archived, &failing, &e.FromPosition, &e.Version, &sealed, &expires)
	if err != nil {
		return nil, err
	}
	if failing != nil {
		e.FailingSince = *failing
	}
	if err := json.Unmarshal(headers, &e.Headers); err != nil {
		return nil, fmt.Errorf("headers of endpoint %d: %w", e.ID, err)
	}
	if err := s.open(e, auth, certificate, key, sealed, expires); err != nil {
		e.Fault = err.Error()
	}
	return e, nil
}

// open fills in what is secret. What cannot be opened must not stop the others of its shard: the endpoint carries it.
func (s *Worker) open(e *delivery.Endpoint, auth []byte, certificate string, key []byte, sealed [][]byte, expires []*time.Time) error {
	owner := keyring.Owner{OrgID: e.OrgID, ID: e.ID, Purpose: delivery.PurposeSecret}
	for i := range sealed {
		text, err := s.vault.Open(owner, sealed[i])
		if err != nil {
			return fmt.Errorf("a secret: %w", err)
		}
		secret := delivery.Secret{Text: string(text)}
		if expires[i] != nil {
			secret.Expires = *expires[i]
		}
		e.Secrets = append(e.Secrets, secret)
	}
	if len(auth) > 0 {
		owner.Purpose = delivery.PurposeAuth
		text, err := s.vault.Open(owner, auth)
		if err != nil {
			return fmt.Errorf("its authorization: %w", err)
		}
		e.Authorization = string(text)
	}
	if certificate == "" {
		return nil
	}
	owner.Purpose = delivery.PurposeClientKey
	text, err := s.vault.Open(owner, key)
	if err != nil {
		return fmt.Errorf("its client key: %w", err)
	}
	pair, err := tls.X509KeyPair([]byte(certificate), text)
	if err != nil {
		return fmt.Errorf("its client certificate: %w", err)
	}
	e.Certificate = &pair
	return nil
}

const (
	// One probe of the index for each endpoint that something waits for (a loose index scan), whatever the number of rows.
	waitingSQL = `
WITH RECURSIVE w AS (
  (SELECT org_id, endpoint_id, due_at FROM sametick.webhook_queue WHERE shard = $1 ORDER BY endpoint_id, due_at LIMIT 1)
  UNION ALL
  SELECT n.* FROM w, LATERAL (SELECT q.org_id, q.endpoint_id, q.due_at FROM sametick.webhook_queue q
    WHERE q.shard = $1 AND q.endpoint_id > w.endpoint_id ORDER BY q.endpoint_id, q.due_at LIMIT 1) n)
SELECT org_id, endpoint_id, due_at FROM w`
	newestSQL = `SELECT last_value FROM sametick.webhook_delivery_ids`

	queueColumns = `SELECT id, event_id, position, event_type, trigger, attempts, due_at, created_at, trace_context FROM sametick.webhook_queue
 WHERE shard = $1 AND endpoint_id = $2 AND id <> ALL($3)`
	dueSQL     = queueColumns + ` AND due_at <= $4 AND due_at >= $5 ORDER BY due_at, id LIMIT $6`
	orderedSQL = queueColumns + ` ORDER BY id LIMIT $4`
	// Due times say nothing of the order, so each look sorts all that waits for the endpoint; ids that come next save most.
	byIDSQL    = queueColumns + ` AND id = ANY($4) ORDER BY id`
	aheadIDs   = `SELECT id FROM sametick.webhook_queue WHERE shard = $1 AND endpoint_id = $2 AND id > $3 ORDER BY id LIMIT 65536`
	nextDueSQL = `SELECT due_at FROM sametick.webhook_queue WHERE shard = $1 AND endpoint_id = $2 AND id <> ALL($3) AND due_at > $4 ORDER BY due_at LIMIT 1`
)

// Newest gives an id that no earlier delivery exceeds.
func (s *Worker) Newest(ctx context.Context) (id int64, err error) {
	err = s.pool.QueryRow(ctx, newestSQL).Scan(&id)
	return id, pg.Translate(err)
}

// Waiting gives the endpoints of a shard that something waits for.
func (s *Worker) Waiting(ctx context.Context, shard int) (list []delivery.Waiting, err error) {
	err = s.worker(ctx, func(tx pgx.Tx) error {
		rows, err := tx.Query(ctx, waitingSQL, shard)
		if err != nil {
			return err
		}
		list, err = pgx.CollectRows(rows, pgx.RowToStructByPos[delivery.Waiting])
		return err
	})
	return list, err
}

// Window gives what waits for an endpoint, without the events.
func (s *Worker) Window(ctx context.Context, w delivery.Want) (got delivery.Window, err error) {
	if w.Except == nil {
		w.Except = []int64{}
	}
	got, err = s.window(ctx, w)
	if err == nil && len(got.Deliveries) <= w.Limit && !w.From.IsZero() && !w.Ordered {
		w.From = time.Time{}
		got, err = s.window(ctx, w)
	}
	if len(got.Deliveries) > w.Limit {
		got.Next = got.Deliveries[w.Limit].Due
		got.Deliveries = got.Deliveries[:w.Limit]
		if w.Ordered {
			got.Ahead, err = s.ahead(ctx, w, got.Deliveries[w.Limit-1].ID)
		}
	}
	return got, err
}

// ahead gives ids that wait after one.
func (s *Worker) ahead(ctx context.Context, w delivery.Want, after int64) (ids []int64, err error) {
	err = s.worker(ctx, func(tx pgx.Tx) error {
		rows, err := tx.Query(ctx, aheadIDs, w.Shard, w.EndpointID, after)
		if err != nil {
			return err
		}
		ids, err = pgx.CollectRows(rows, pgx.RowTo[int64])
		return err
	})
	return ids, err
}

// window gives one more delivery than the limit if there is.
func (s *Worker) window(ctx context.Context, w delivery.Want) (got delivery.Window, err error) {
	b := &pgx.Batch{}
	b.Queue(everyOrg)
	scan := func(rows pgx.Rows) (err error) {
		got.Deliveries, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (*delivery.Delivery, error) {
			d := &delivery.Delivery{OrgID: w.OrgID, EndpointID: w.EndpointID, Shard: w.Shard}
			return d, row.Scan(&d.ID, &d.EventID, &d.Position, &d.EventType, &d.Trigger, &d.Attempts, &d.Due, &d.ScheduledAt, &d.Traceparent)
		})
		return err
	}
	switch {
	case len(w.IDs) > 0:
		b.Queue(byIDSQL, w.Shard, w.EndpointID, w.Except, w.IDs).Query(scan)
	case w.Ordered:
		b.Queue(orderedSQL, w.Shard, w.EndpointID, w.Except, w.Limit+1).Query(scan)
	default:
		from := pgtype.Timestamptz{Time: w.From, Valid: true}
		if w.From.IsZero() {
			from.InfinityModifier = pgtype.NegativeInfinity
		}
		b.Queue(dueSQL, w.Shard, w.EndpointID, w.Except, w.Until, from, w.Limit+1).Query(scan)
		b.Queue(nextDueSQL, w.Shard, w.EndpointID, w.Except, w.Until).Query(func(rows pgx.Rows) error {
			list, err := pgx.CollectRows(rows, pgx.RowTo[time.Time])
			if len(list) > 0 {
				got.Next = list[0]
			}
			return err
		})
	}
	if w.Conf {
		b.Queue(oneTargetSQL, w.OrgID, w.EndpointID).Query(func(rows pgx.Rows) (err error) {
			got.Endpoint, err = pgx.CollectExactlyOneRow(rows, s.scanEndpoint)
			return err
		})
	}
	if err := pg.Translate(s.pool.SendBatch(ctx, b).Close()); err != nil { // one implicit transaction
		return delivery.Window{}, err
	}
	return got, nil
}

const aheadSQL = `SELECT count(*) > $3 FROM (SELECT FROM sametick.webhook_queue WHERE shard = $1 AND endpoint_id = $2 LIMIT $3 + 1) w`

// Ahead tells whether more than n deliveries wait for an endpoint.
func (s *Worker) Ahead(ctx context.Context, shard int, endpointID int64, n int) (ahead bool, err error) {
	err = s.worker(ctx, func(tx pgx.Tx) error { return tx.QueryRow(ctx, aheadSQL, shard, endpointID, n).Scan(&ahead) })
	return ahead, err
}

// Begin begins a transaction; see EveryOrg.
func (s *Worker) Begin(ctx context.Context) (pgx.Tx, error) { return s.pool.Begin(ctx) }
