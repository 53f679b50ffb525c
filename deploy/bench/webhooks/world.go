package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/sametick/sametick/deploy/bench/internal/backlog"
	"github.com/sametick/sametick/deploy/bench/internal/rig"
	"github.com/sametick/sametick/pkg/keyring"
)

// world is a database with a relay that has published all its events, and endpoints.
type world struct {
	bench *bench
	url   string
	pool  *pgxpool.Pool
	relay *rig.Process
	keys  string
	// deliveries are what a drain consists of: those to endpoints that answer.
	deliveries int
	// profile keeps a CPU profile of each drain.
	profile bool
}

// newWorld makes a database whose relay runs. Close it.
func (b *bench) newWorld(ctx context.Context, name string) (w *world, err error) {
	if err := b.rig.Settle(ctx); err != nil {
		return nil, err
	}
	w = &world{bench: b, keys: keyring.Generate("bench")}
	if w.url, err = b.rig.Database(ctx, name, "outbox-relay", "webhook-worker"); err != nil {
		return nil, err
	}
	if w.pool, err = pgxpool.New(ctx, w.url+"&pool_max_conns=20"); err != nil {
		return nil, fmt.Errorf("connect to %s: %w", name, err)
	}
	url, err := b.rig.As(ctx, w.url, "sametick_relay")
	if err == nil {
		w.relay, err = b.rig.Service("outbox-relay", "DATABASE_URL="+url)
	}
	if err == nil {
		err = w.relay.Ready(ctx)
	}
	if err != nil {
		return nil, errors.Join(err, w.close())
	}
	return w, nil
}

func (w *world) close() (err error) {
	if w.relay != nil {
		err = w.relay.Stop()
	}
	w.pool.Close()
	return err
}

// fill commits n events of organisations 1 to orgs and waits until the relay has published them.
func (w *world) fill(ctx context.Context, n, orgs int) error {
	w.bench.say("  committing %d events", n)
	if err := backlog.LoadOf(ctx, w.pool, n, orgs); err != nil {
		return err
	}
	deadline := time.Now().Add(5 * time.Minute)
	for {
		var positions, published int64
		if err := w.pool.QueryRow(ctx, `SELECT count(*) FROM sametick.positions`).Scan(&positions); err != nil {
			return fmt.Errorf("count the positions: %w", err)
		}
		for shard := range 16 {
			length, err := w.bench.rig.Redis.Do(ctx, w.bench.rig.Redis.B().Xlen().Key("sametick:{"+strconv.Itoa(shard)+"}:events").Build()).AsInt64()
			if err != nil {
				return fmt.Errorf("count a stream: %w", err)
			}
			published += length
		}
		if positions == int64(n) && published == int64(n) {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%d of %d events are published, %d have positions", published, n, positions)
		}
		if err := wait(ctx, 50*time.Millisecond); err != nil {
			return err
		}
	}
}

// endpoint of the bench.
type endpoint struct {
	org int64
	url string
}

// perOrg gives each of the organisations one endpoint that answers.
func (b *bench) perOrg(orgs int) []endpoint {
	list := make([]endpoint, orgs)
	for i := range list {
		list[i] = endpoint{int64(i) + 1, b.receiver.url + pathWell + strconv.Itoa(i)}
	}
	return list
}

// endpoints makes them with ids from 1 on, as if each had been created before the first event; they get every event of
// their organisation.
func (w *world) endpoints(ctx context.Context, list []endpoint) error {
	ring, err := keyring.Parse(w.keys)
	if err != nil {
		return err
	}
	const secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwMfKQ9r8GKYo="
	_, err = w.pool.CopyFrom(ctx, pgx.Identifier{"sametick", "webhook_endpoints"}, []string{"org_id", "id", "url", "event_types", "from_position"},
		pgx.CopyFromSlice(len(list), func(i int) ([]any, error) {
			return []any{list[i].org, int64(i) + 1, list[i].url, []string{"*"}, int64(0)}, nil
		}))
	if err != nil {
		return fmt.Errorf("make endpoints: %w", err)
	}
	_, err = w.pool.CopyFrom(ctx, pgx.Identifier{"sametick", "webhook_secrets"}, []string{"org_id", "endpoint_id", "id", "kind", "sealed"},
		pgx.CopyFromSlice(len(list), func(i int) ([]any, error) {
			owner := keyring.Owner{OrgID: list[i].org, ID: int64(i) + 1, Purpose: "webhook.secret"}
			return []any{list[i].org, int64(i) + 1, int64(i) + 1, "v1", ring.Seal(owner, []byte(secret))}, nil
		}))
	if err == nil {
		_, err = w.pool.Exec(ctx, `VACUUM (ANALYZE) sametick.webhook_endpoints, sametick.webhook_secrets`)
	}
	if err != nil {
		return fmt.Errorf("make their secrets: %w", err)
	}
	return nil
}

// reset makes everything undelivered again.
func (w *world) reset(ctx context.Context) error {
	_, err := w.pool.Exec(ctx, `TRUNCATE sametick.webhook_queue, sametick.webhook_attempts, sametick.consumer_cursors, sametick.consumer_leases, sametick.consumer_members`)
	if err == nil {
		_, err = w.pool.Exec(ctx, `UPDATE sametick.webhook_endpoints SET failing_since = NULL WHERE failing_since IS NOT NULL`)
	}
	if err == nil {
		_, err = w.pool.Exec(ctx, `CHECKPOINT`)
	}
	if err != nil {
		return fmt.Errorf("reset: %w", err)
	}
	return nil
}

// worker starts webhook-worker, under the role it has in earnest.
func (w *world) worker(ctx context.Context) (*rig.Process, error) {
	url, err := w.bench.rig.As(ctx, w.url, "sametick_webhook")
	if err != nil {
		return nil, err
	}
	return w.bench.rig.Service("webhook-worker", "DATABASE_URL="+url, "RELAY_ADDR="+w.relay.GRPC, "ENCRYPTION_KEYS="+w.keys,
		"EGRESS_ALLOW=127.0.0.0/8", "EGRESS_HTTP=true", "MAX_IN_FLIGHT="+strconv.Itoa(w.bench.flying))
}

func wait(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
