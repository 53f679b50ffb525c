package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/sametick/sametick/deploy/bench/internal/backlog"
	"github.com/sametick/sametick/deploy/bench/internal/rig"
	"github.com/sametick/sametick/pkg/keyring"
)

// world is a database with a relay.
type world struct {
	bench    *bench
	url      string
	redisURL string
	pool     *pgxpool.Pool
	relay    *rig.Process
	keys     string
	// orgs have a hook each.
	orgs int
}

// newWorld makes a database with the schemas of relay, api-gateway and the other services named, and starts its relay, over
// the Redis database of that number. Close it.
func (b *bench) newWorld(ctx context.Context, name string, redis int, services ...string) (w *world, err error) {
	w = &world{bench: b, keys: keyring.Generate("bench"), redisURL: strings.TrimSuffix(b.rig.RedisURL, "/0") + "/" + strconv.Itoa(redis)}
	if w.url, err = b.rig.Database(ctx, name, append([]string{"outbox-relay", "api-gateway"}, services...)...); err != nil {
		return nil, err
	}
	if w.pool, err = pgxpool.New(ctx, w.url+"&pool_max_conns=20"); err != nil {
		return nil, fmt.Errorf("connect to %s: %w", name, err)
	}
	url, err := b.rig.As(ctx, w.url, "sametick_relay")
	if err == nil {
		w.relay, err = b.rig.Service("outbox-relay", "DATABASE_URL="+url, "REDIS_URL="+w.redisURL)
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

// gateway starts api-gateway, which asks the prompt-worker at an address, and waits until it is ready.
func (w *world) gateway(ctx context.Context, prompts string) (*rig.Process, error) {
	url, err := w.bench.rig.As(ctx, w.url, "sametick_api")
	if err != nil {
		return nil, err
	}
	t := w.bench.tokens
	return ready(ctx)(w.bench.rig.Service("api-gateway", "DATABASE_URL="+url, "REDIS_URL="+w.redisURL, "RELAY_ADDR="+w.relay.GRPC, "PROMPT_ADDR="+prompts,
		"TOKEN_SIGNING_KEY="+t.SigningKey, "TOKEN_PUBLIC_KEYS="+t.PublicKeys, "ENCRYPTION_KEYS="+w.keys))
}

// worker starts prompt-worker, under the role it has in earnest; it is not waited for.
func (w *world) worker(ctx context.Context) (*rig.Process, error) {
	url, err := w.bench.rig.As(ctx, w.url, "sametick_prompt")
	if err != nil {
		return nil, err
	}
	return w.bench.rig.Service("prompt-worker", "DATABASE_URL="+url, "REDIS_URL="+w.redisURL, "RELAY_ADDR="+w.relay.GRPC, "ENCRYPTION_KEYS="+w.keys,
		"EGRESS_ALLOW=127.0.0.0/8", "EGRESS_HTTP=true")
}

func ready(ctx context.Context) func(*rig.Process, error) (*rig.Process, error) {
	return func(p *rig.Process, err error) (*rig.Process, error) {
		if err != nil {
			return nil, err
		}
		if err := p.Ready(ctx); err != nil {
			return nil, errors.Join(err, p.Stop())
		}
		return p, nil
	}
}

// fill commits n events of organisations 1 to orgs and waits until the relay has published them.
func (w *world) fill(ctx context.Context, n, orgs int) error {
	w.bench.say("  committing %d events", n)
	if err := backlog.LoadOf(ctx, w.pool, n, orgs); err != nil {
		return err
	}
	deadline := time.Now().Add(5 * time.Minute)
	for {
		var open int
		err := w.pool.QueryRow(ctx, `SELECT count(*) FROM sametick.events e WHERE NOT EXISTS (SELECT FROM sametick.positions p WHERE p.event_id = e.id)`).Scan(&open)
		if err != nil || open == 0 {
			return err
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%d events have no position", open)
		}
		if err := wait(ctx, 50*time.Millisecond); err != nil {
			return err
		}
	}
}

// hooks gives each of the organisations 1 to orgs a provider, a template and an async hook on every event of a task, each
// with the organisation's id, as if they had been made before the first event.
func (w *world) hooks(ctx context.Context, orgs int) error {
	messages, err := json.Marshal([]map[string]string{
		{"role": "system", "text": "You write one sentence."}, {"role": "user", "text": "Say what happened to {{ name }}: {{ action }}."}})
	if err != nil {
		return err
	}
	variables, err := json.Marshal([]map[string]string{{"name": "name", "path": "payload.record_name"}, {"name": "action", "path": "payload.action"}})
	if err != nil {
		return err
	}
	b := &pgx.Batch{}
	b.Queue(`INSERT INTO sametick.prompt_providers (org_id, id, name, kind, base_url, default_model) SELECT i, i, 'instant', 'openai', $2, 'instant' FROM generate_series(1, $1::bigint) i`,
		orgs, w.bench.model.url)
	b.Queue(`INSERT INTO sametick.prompt_templates (org_id, id, name) SELECT i, i, 'sentence' FROM generate_series(1, $1::bigint) i`, orgs)
	b.Queue(`INSERT INTO sametick.prompt_template_versions (org_id, template_id, version, messages, variables) SELECT i, i, 1, $2, $3 FROM generate_series(1, $1::bigint) i`,
		orgs, string(messages), string(variables))
	b.Queue(`INSERT INTO sametick.prompt_hooks (org_id, id, from_position, settings) SELECT i, i, 0, jsonb_build_object('name', 'sentences', 'mode', 'async',
		'event_types', jsonb_build_array('task.*'), 'template_id', i, 'template_version', 1, 'provider_id', i, 'failure_policy', 'fail_closed', 'enforcement', 'enforce',
		'timeout_ms', 600000, 'enabled', true) FROM generate_series(1, $1::bigint) i`, orgs)
	if err := w.pool.SendBatch(ctx, b).Close(); err != nil {
		return fmt.Errorf("make hooks: %w", err)
	}
	_, err = w.pool.Exec(ctx, `VACUUM (ANALYZE) sametick.prompt_hooks, sametick.prompt_providers, sametick.prompt_templates, sametick.prompt_template_versions`)
	return err
}

// metrics reads a process' metrics: name with labels to value.
func metrics(ctx context.Context, p *rig.Process) (map[string]float64, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+p.Ops+"/metrics", nil)
	if err != nil {
		return nil, fmt.Errorf("read the metrics: %w", err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, fmt.Errorf("read the metrics: %w", err)
	}
	defer func() { _ = resp.Body.Close() }()
	out := map[string]float64{}
	lines := bufio.NewScanner(resp.Body)
	for lines.Scan() {
		at := strings.LastIndexByte(lines.Text(), ' ')
		if at < 0 || strings.HasPrefix(lines.Text(), "#") {
			continue
		}
		if v, err := strconv.ParseFloat(lines.Text()[at+1:], 64); err == nil {
			out[lines.Text()[:at]] = v
		}
	}
	return out, lines.Err()
}

// until waits until something holds, and errs when the process ends or the time is over.
func until(ctx context.Context, p *rig.Process, within time.Duration, what string, holds func() (bool, error)) error {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	for {
		ok, err := holds()
		if err != nil || ok {
			return err
		}
		if err := p.Failure(); err != nil {
			return err
		}
		if err := wait(ctx, 20*time.Millisecond); err != nil {
			return p.Blame(fmt.Errorf("%s: %w", what, err))
		}
	}
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
