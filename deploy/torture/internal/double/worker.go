package double

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"github.com/sametick/sametick/deploy/torture/internal/hooks"
	"github.com/sametick/sametick/pkg/event"
)

const (
	// WorkerRight queues deliveries and moves the cursor in one transaction, and sends an endpoint's one by one.
	WorkerRight = "right"
	// WorkerWrongCursor moves the cursor in a transaction of its own, and then queues: what was between the two when it died is
	// never sent, and what another replica queues meanwhile comes before it.
	WorkerWrongCursor = "wrong-cursor"
)

// WorkerKinds are the names of the workers.
func WorkerKinds() []string { return []string{WorkerRight, WorkerWrongCursor} }

const (
	// pageOfEvents is how many positions are scheduled at a time, window how many deliveries sent.
	pageOfEvents = 200
	window       = 20
	// apart is how long a busy machine lets pass between the two transactions of WorkerWrongCursor.
	apart = 150 * time.Millisecond
	// attemptTimeout is that of the worker under torture.
	attemptTimeout = time.Second
)

// worker is a webhook-worker that polls, and keeps nothing in memory. It works on the product's tables.
type worker struct {
	endpoints []*hooks.Endpoint
	wrong     bool
	client    *http.Client
}

// NewWorker prepares a worker of a kind for endpoints.
func NewWorker(name, kind string, servers Servers, endpoints []*hooks.Endpoint) (*Replica, error) {
	if kind != WorkerRight && kind != WorkerWrongCursor {
		return nil, fmt.Errorf("there is no worker %q", kind)
	}
	w := &worker{endpoints: endpoints, wrong: kind == WorkerWrongCursor,
		client: &http.Client{Timeout: attemptTimeout, Transport: &http.Transport{DisableKeepAlives: true}}}
	return &Replica{name: name, step: w.step, servers: servers}, nil
}

// step schedules a page of each shard that has endpoints and sends a window of each endpoint.
func (w *worker) step(ctx context.Context, s *session) error {
	done := map[int]bool{}
	for _, e := range w.endpoints {
		shard := event.ShardOf(e.OrgID)
		if !done[shard] {
			done[shard] = true
			if err := w.schedule(ctx, s, shard); err != nil {
				return err
			}
		}
		if err := w.send(ctx, s, e); err != nil {
			return err
		}
	}
	return nil
}

// schedule takes the events after the cursor.
func (w *worker) schedule(ctx context.Context, s *session, shard int) error {
	c := cursor{consumer: "webhooks", shard: shard, apart: w.wrong}
	return c.take(ctx, s, func(tx pgx.Tx, after, through int64) error { return w.queue(ctx, s, tx, shard, after, through) })
}

// queue makes a delivery of each pair in (after, through].
func (w *worker) queue(ctx context.Context, s *session, tx pgx.Tx, shard int, after, through int64) error {
	list, err := s.read(ctx, `JOIN sametick.positions p ON p.event_id = e.id WHERE p.shard = $1 AND p.position > $2 AND p.position <= $3
		ORDER BY p.position`, shard, after, through)
	if err != nil {
		return err
	}
	var endpoints, events []int64
	for i := range list {
		for _, e := range w.endpoints {
			if v := &list[i].Event; v.OrgID == e.OrgID && e.Selects(v.EventType, v.AggregateType, v.AggregateID) {
				endpoints, events = append(endpoints, e.ID), append(events, v.ID)
			}
		}
	}
	if _, err := tx.Exec(ctx, `INSERT INTO sametick.webhook_queue (id, org_id, shard, endpoint_id, event_id, position, event_type, due_at, created_at)
		SELECT nextval('sametick.webhook_delivery_ids'), e.org_id, e.shard, r.endpoint, r.event, p.position, e.event_type, now(), now()
		  FROM unnest($1::bigint[], $2::bigint[]) WITH ORDINALITY AS r(endpoint, event, n) JOIN sametick.events e ON e.id = r.event
		  JOIN sametick.positions p ON p.event_id = e.id ORDER BY r.n`, endpoints, events); err != nil {
		return fmt.Errorf("queue deliveries: %w", err)
	}
	return nil
}

// send sends what waits for an endpoint, in order, up to the first that fails. One replica at a time sends for it.
func (w *worker) send(ctx context.Context, s *session, e *hooks.Endpoint) error {
	s.gate.pass()
	return pgx.BeginFunc(ctx, s.conn, func(tx pgx.Tx) error {
		var mine bool
		if err := tx.QueryRow(ctx, `SELECT pg_try_advisory_xact_lock(2, $1)`, e.ID).Scan(&mine); err != nil || !mine {
			return err
		}
		list, err := s.read(ctx, `JOIN (SELECT id, event_id FROM sametick.webhook_queue WHERE endpoint_id = $1 ORDER BY id LIMIT $2) q
			ON q.event_id = e.id ORDER BY q.id`, e.ID, window)
		if err != nil {
			return err
		}
		var done []int64
		for i := range list {
			s.gate.pass()
			if w.post(ctx, e, &list[i].Event) != nil {
				break
			}
			done = append(done, list[i].ID)
		}
		if len(done) == 0 {
			return ctx.Err()
		}
		_, err = tx.Exec(ctx, `WITH gone AS (DELETE FROM sametick.webhook_queue WHERE endpoint_id = $1 AND event_id = ANY($2) RETURNING *)
			INSERT INTO sametick.webhook_attempts (org_id, endpoint_id, delivery_id, event_id, position, event_type, trigger, attempt, outcome, scheduled_at, created_at)
			SELECT org_id, endpoint_id, id, event_id, position, event_type, trigger, 1, 'delivered', created_at, now() FROM gone`, e.ID, done)
		return err
	})
}

// post makes one attempt.
func (w *worker) post(ctx context.Context, e *hooks.Endpoint, v *event.Event) (err error) {
	var data bytes.Buffer
	if err := json.Compact(&data, v.AppendJSON(nil)); err != nil {
		return fmt.Errorf("event %d: %w", v.ID, err)
	}
	body := fmt.Appendf(nil, `{"type":%q,"timestamp":%q,"data":%s}`, v.EventType, v.OccurredAt.UTC().Format(time.RFC3339Nano), data.Bytes())
	signer, err := standardwebhooks.NewWebhook(e.Secret)
	if err != nil {
		return err
	}
	id, now := fmt.Sprintf("msg_%d_%d", v.ID, e.ID), time.Now()
	signature, err := signer.Sign(id, now, body)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, e.URL, bytes.NewReader(body))
	if err != nil {
		return err
	}
	for name, value := range map[string]string{"webhook-id": id, "webhook-timestamp": strconv.FormatInt(now.Unix(), 10), "webhook-signature": signature} {
		req.Header.Set(name, value)
	}
	resp, err := w.client.Do(req)
	if err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, resp.Body)
	if err = errors.Join(err, resp.Body.Close()); err == nil && resp.StatusCode >= 300 {
		err = errors.New(resp.Status)
	}
	return err
}
