package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"github.com/riverqueue/river/rivermigrate"
	"golang.org/x/sync/errgroup"

	"github.com/sametick/sametick/deploy/bench/internal/rig"
)

// contendArg makes this program run one contender, as a child of itself.
const contendArg = "contend"

// bodySQL gives the body that webhook-worker sends for each event, but for white space inside the payload.
const bodySQL = `format('{"type":"%s","timestamp":"2026-04-12T14:30:00.000Z","data":{"id":%s,"org_id":%s,"aggregate_type":"%s","aggregate_id":%s,"event_type":"%s","payload":%s,"occurred_at":"2026-04-12T14:30:00.000Z"}}',
	event_type, id, org_id, aggregate_type, aggregate_id, event_type, payload)`

func (b *bench) child(name, databaseURL string) (*rig.Process, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find this program: %w", err)
	}
	return b.rig.Program(name, exec.Command(self, contendArg, name, databaseURL, b.receiver.url+pathWell, strconv.Itoa(b.flying))) //nolint:noctx // Stop ends it, gently
}

func contend(ctx context.Context, args []string) error {
	if len(args) != 4 {
		return errors.New("contend NAME DATABASE_URL RECEIVER_URL IN_FLIGHT")
	}
	flying, err := strconv.Atoi(args[3])
	if err != nil {
		return fmt.Errorf("in flight: %w", err)
	}
	pool, err := pgxpool.New(ctx, args[1])
	if err != nil {
		return fmt.Errorf("connect to Postgres: %w", err)
	}
	defer pool.Close()
	p := &poster{url: args[2], client: &http.Client{Timeout: 15 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: flying, MaxConnsPerHost: flying}}}
	switch args[0] {
	case nameBare:
		err = runBare(ctx, pool, p, flying)
	case nameRiver:
		err = runRiver(ctx, pool, p, flying)
	default:
		err = fmt.Errorf("no contender is called %q", args[0])
	}
	if ctx.Err() != nil { // being stopped is how it ends
		return nil
	}
	return err
}

// poster posts bodies, signed by nobody.
type poster struct {
	url    string
	client *http.Client
}

func (p *poster) post(ctx context.Context, org string, body []byte) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, p.url+org, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := p.client.Do(req)
	if err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, resp.Body)
	if err = errors.Join(err, resp.Body.Close()); err == nil && resp.StatusCode != http.StatusOK {
		err = errors.New(resp.Status)
	}
	return err
}

// runBare posts every event once, and remembers nothing: the least that a webhook worker can do. The bodies are in memory
// before the first is posted.
func runBare(ctx context.Context, pool *pgxpool.Pool, p *poster, flying int) error {
	type body struct{ org, text string }
	rows, err := pool.Query(ctx, `SELECT org_id::text, `+bodySQL+` FROM sametick.events ORDER BY id`)
	if err != nil {
		return fmt.Errorf("read the events: %w", err)
	}
	list, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (b body, err error) {
		err = row.Scan(&b.org, &b.text)
		return b, err
	})
	if err != nil {
		return fmt.Errorf("read the events: %w", err)
	}
	group, groupCtx := errgroup.WithContext(ctx)
	for n := range flying {
		group.Go(func() error {
			for i := n; i < len(list); i += flying {
				if err := p.post(groupCtx, list[i].org, []byte(list[i].text)); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	<-ctx.Done() // whoever measures reads what it cost, and stops it
	return nil
}

// hookArgs is the job that a producer would enqueue in its transaction for each endpoint.
type hookArgs struct {
	Org  string `json:"o"`
	Body string `json:"b"`
}

// Kind names the job to River.
func (hookArgs) Kind() string { return "webhook" }

type hookWorker struct {
	river.WorkerDefaults[hookArgs]
	poster *poster
}

// Work makes one attempt.
func (w *hookWorker) Work(ctx context.Context, job *river.Job[hookArgs]) error {
	return w.poster.post(ctx, job.Args.Org, []byte(job.Args.Body))
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

// resetRiver enqueues a job for each event: committed beforehand, as the events are.
func (w *world) resetRiver(ctx context.Context) error {
	for _, sql := range []string{`TRUNCATE river_job`,
		`INSERT INTO river_job (kind, args, max_attempts) SELECT 'webhook', jsonb_build_object('o', org_id::text, 'b', ` + bodySQL + `), 25 FROM sametick.events ORDER BY id`,
		`VACUUM (ANALYZE) river_job`, `CHECKPOINT`} {
		if _, err := w.pool.Exec(ctx, sql); err != nil {
			return fmt.Errorf("enqueue River's jobs: %w", err)
		}
	}
	return nil
}

func (w *world) riverDone(ctx context.Context, _ *rig.Process) (done bool, err error) {
	if err := w.pool.QueryRow(ctx, `SELECT NOT EXISTS (SELECT FROM river_job WHERE state <> 'completed')`).Scan(&done); err != nil {
		return false, fmt.Errorf("look at River's jobs: %w", err)
	}
	return done, nil
}

// runRiver takes the intervals of River's own benchmark command: fetch every 2 ms, poll every 20 ms; as many workers as the
// others have requests in flight. Completion is batched by River itself.
func runRiver(ctx context.Context, pool *pgxpool.Pool, p *poster, flying int) error {
	workers := river.NewWorkers()
	river.AddWorker(workers, &hookWorker{poster: p})
	client, err := river.NewClient(riverpgxv5.New(pool), &river.Config{
		FetchCooldown: 2 * time.Millisecond, FetchPollInterval: 20 * time.Millisecond,
		Queues:  map[string]river.QueueConfig{river.QueueDefault: {MaxWorkers: flying}},
		Workers: workers, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		return fmt.Errorf("make a River client: %w", err)
	}
	if err := client.Start(ctx); err != nil {
		return fmt.Errorf("start River: %w", err)
	}
	<-client.Stopped()
	return nil
}
