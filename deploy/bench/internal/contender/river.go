package contender

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/redis/rueidis"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"github.com/riverqueue/river/rivermigrate"
)

// relayArgs is the job that a producer would enqueue in its transaction. The envelope is one string:
// River indexes the arguments (GIN), and a string is one entry of that index where an object is many.
type relayArgs struct {
	Shard         int    `json:"s"`
	Org           string `json:"o"`
	EventType     string `json:"t"`
	AggregateType string `json:"a"`
	AggregateID   string `json:"i"`
	Envelope      string `json:"e"`
}

// Kind names the job to River.
func (relayArgs) Kind() string { return "relay" }

type relayWorker struct {
	river.WorkerDefaults[relayArgs]
	client rueidis.Client
}

// Work appends one event; River's many workers fill the client's pipeline.
func (w *relayWorker) Work(ctx context.Context, job *river.Job[relayArgs]) error {
	e := entry{
		shard: job.Args.Shard, org: job.Args.Org, eventType: job.Args.EventType,
		aggregateType: job.Args.AggregateType, aggregateID: job.Args.AggregateID, envelope: []byte(job.Args.Envelope),
	}
	return w.client.Do(ctx, e.xadd(w.client, "*")).Error()
}

func migrateRiver(ctx context.Context, pool *pgxpool.Pool) error {
	migrator, err := rivermigrate.New(riverpgxv5.New(pool), nil)
	if err != nil {
		return fmt.Errorf("prepare River's migrations: %w", err)
	}
	if _, err := migrator.Migrate(ctx, rivermigrate.DirectionUp, nil); err != nil {
		return fmt.Errorf("create River's tables: %w", err)
	}
	return nil
}

// resetRiver enqueues the jobs anew: a worked job is a changed row.
func resetRiver(ctx context.Context, pool *pgxpool.Pool) error {
	if _, err := pool.Exec(ctx, `TRUNCATE river_job`); err != nil {
		return fmt.Errorf("empty River's table: %w", err)
	}
	return copyEvents(ctx, pool, `
		INSERT INTO river_job (kind, args, max_attempts)
		SELECT 'relay', jsonb_build_object('s', shard, 'o', org_id::text, 't', event_type, 'a', aggregate_type,
		                                   'i', aggregate_id::text, 'e', `+envelopeSQL+`), 25
		  FROM sametick.events WHERE id >= $1 AND id < $2 ORDER BY id`, `VACUUM (ANALYZE) river_job`)
}

// runRiver takes the settings of River's own benchmark command: fetch every 2 ms, poll every 20 ms,
// as many workers as it allows. Completion is batched by River itself.
func runRiver(ctx context.Context, t Target) error {
	pool, err := pgxpool.New(ctx, t.DatabaseURL)
	if err != nil {
		return fmt.Errorf("connect to Postgres: %w", err)
	}
	defer pool.Close()
	client, err := dial(t.RedisURL)
	if err != nil {
		return err
	}
	defer client.Close()
	workers := river.NewWorkers()
	river.AddWorker(workers, &relayWorker{client: client})
	relay, err := river.NewClient(riverpgxv5.New(pool), &river.Config{
		FetchCooldown:     2 * time.Millisecond,
		FetchPollInterval: 20 * time.Millisecond,
		Queues:            map[string]river.QueueConfig{river.QueueDefault: {MaxWorkers: river.QueueNumWorkersMax}},
		Workers:           workers,
		Logger:            slog.New(slog.DiscardHandler),
	})
	if err != nil {
		return fmt.Errorf("make a River client: %w", err)
	}
	if err := relay.Start(ctx); err != nil {
		return fmt.Errorf("start River: %w", err)
	}
	<-relay.Stopped()
	return nil
}
