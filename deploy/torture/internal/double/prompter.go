package double

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"

	"github.com/jackc/pgx/v5"

	"github.com/sametick/sametick/deploy/torture/internal/prompts"
	"github.com/sametick/sametick/pkg/event"
)

const (
	// PrompterRight queues runs and moves the cursor in one transaction, marks an attempt before its call, and ends a run with
	// its row.
	PrompterRight = "right"
	// PrompterWrongCursor moves the cursor in a transaction of its own, and then queues: what was between the two when it died
	// never runs.
	PrompterWrongCursor = "wrong-cursor"
	// PrompterWrongMark marks no attempt: replicas ask for the same run, each without knowing of the other.
	PrompterWrongMark = "wrong-mark"
)

// PrompterKinds are the names of the prompters.
func PrompterKinds() []string {
	return []string{PrompterRight, PrompterWrongCursor, PrompterWrongMark}
}

// prompter is a prompt-worker that polls, and keeps nothing in memory. It works on the product's tables, and has no
// budgets, no reviews and no retries but at once.
type prompter struct {
	hooks  []*prompts.Hook
	kind   string
	url    func(moody bool) string
	client *http.Client
}

// NewPrompter prepares a prompter of a kind for hooks, whose models are at the base URLs that url gives.
func NewPrompter(name, kind string, servers Servers, hooks []*prompts.Hook, url func(moody bool) string) (*Replica, error) {
	p := &prompter{hooks: hooks, kind: kind, url: url, client: &http.Client{Timeout: attemptTimeout, Transport: &http.Transport{DisableKeepAlives: true}}}
	switch kind {
	case PrompterRight, PrompterWrongCursor, PrompterWrongMark:
		return &Replica{name: name, step: p.step, servers: servers}, nil
	default:
		return nil, fmt.Errorf("there is no prompter %q", kind)
	}
}

// step schedules a page of each shard that has hooks and runs a window of each hook.
func (p *prompter) step(ctx context.Context, s *session) error {
	done := map[int]bool{}
	for _, h := range p.hooks {
		shard := event.ShardOf(h.OrgID)
		if !done[shard] {
			done[shard] = true
			if err := p.schedule(ctx, s, shard); err != nil {
				return err
			}
		}
		if err := p.run(ctx, s, h); err != nil {
			return err
		}
	}
	return nil
}

// schedule takes the events after the cursor.
func (p *prompter) schedule(ctx context.Context, s *session, shard int) error {
	c := cursor{consumer: "prompts", shard: shard, apart: p.kind == PrompterWrongCursor}
	return c.take(ctx, s, func(tx pgx.Tx, after, through int64) error { return p.queue(ctx, s, tx, shard, after, through) })
}

// queue makes a run of each pair in (after, through].
func (p *prompter) queue(ctx context.Context, s *session, tx pgx.Tx, shard int, after, through int64) error {
	list, err := s.read(ctx, `JOIN sametick.positions p ON p.event_id = e.id WHERE p.shard = $1 AND p.position > $2 AND p.position <= $3
		ORDER BY p.position`, shard, after, through)
	if err != nil {
		return err
	}
	for i := range list {
		for _, h := range p.hooks {
			v := &list[i].Event
			if v.OrgID != h.OrgID || !h.Selects(v.AggregateType, v.AggregateID) {
				continue
			}
			if _, err := tx.Exec(ctx, `INSERT INTO sametick.prompt_queue (id, org_id, shard, hook_id, event_id, event, event_type, aggregate_type, aggregate_id, due_at, created_at)
				VALUES (nextval('sametick.prompt_run_ids'), $1, $2, $3, $4, '{}', $5, $6, $7, now(), now())`,
				v.OrgID, shard, h.ID, v.ID, v.EventType, v.AggregateType, v.AggregateID); err != nil {
				return fmt.Errorf("queue runs: %w", err)
			}
		}
	}
	return nil
}

// waiting is a row of the queue.
type waiting struct {
	ID, EventID int64
	Attempts    int
}

// run works off what is due of a hook.
func (p *prompter) run(ctx context.Context, s *session, h *prompts.Hook) error {
	s.gate.pass()
	rows, err := s.conn.Query(ctx, `SELECT id, event_id, attempts::int FROM sametick.prompt_queue WHERE hook_id = $1 AND due_at <= now() ORDER BY id LIMIT $2`, h.ID, window)
	if err != nil {
		return fmt.Errorf("read the queue: %w", err)
	}
	list, err := pgx.CollectRows(rows, pgx.RowToStructByPos[waiting])
	if err != nil {
		return fmt.Errorf("read the queue: %w", err)
	}
	for _, w := range list {
		if err := p.attempt(ctx, s, h, w); err != nil {
			return err
		}
	}
	return nil
}

// attempt asks once, after it has said so, and ends the run when it gets an answer.
func (p *prompter) attempt(ctx context.Context, s *session, h *prompts.Hook, w waiting) error {
	s.gate.pass()
	if h.Model && p.kind != PrompterWrongMark {
		tag, err := s.conn.Exec(ctx, `UPDATE sametick.prompt_queue SET attempts = attempts + 1, unknown = unknown + calling::int, calling = true, due_at = now() + interval '3 s'
			WHERE id = $1 AND attempts = $2 AND due_at <= now()`, w.ID, w.Attempts)
		if err != nil || tag.RowsAffected() == 0 {
			return err
		}
		w.Attempts++
	}
	output := []byte(fmt.Sprintf(`{"event":%d}`, w.EventID))
	if h.Model {
		s.gate.pass()
		var told bool
		if output, told = p.ask(ctx, h, w.EventID); output == nil {
			_, err := s.conn.Exec(ctx, `UPDATE sametick.prompt_queue SET calling = false, unknown = unknown + $3::int, due_at = now() WHERE id = $1 AND attempts = $2`,
				w.ID, w.Attempts, map[bool]int{false: 1}[told])
			return err
		}
	}
	s.gate.pass()
	return pgx.BeginFunc(ctx, s.conn, func(tx pgx.Tx) error {
		tag, err := tx.Exec(ctx, `WITH gone AS (DELETE FROM sametick.prompt_queue WHERE id = $1 AND attempts = $2 RETURNING *)
			INSERT INTO sametick.prompt_runs (id, org_id, hook_id, mode, trigger, status, event_id, event_type, aggregate_type, aggregate_id, output, attempts, unknown, created_at)
			SELECT id, org_id, hook_id, 'async', 'event', 'completed', event_id, event_type, aggregate_type, aggregate_id, $3, greatest(attempts, 1), unknown, created_at FROM gone`,
			w.ID, w.Attempts, output)
		if err != nil || tag.RowsAffected() == 0 {
			return err
		}
		_, err = tx.Exec(ctx, `SELECT sametick.record_event($1, 'prompt_run', $2, 'completed')`, h.OrgID, w.ID)
		return err
	})
}

// ask makes one call; no output for none, and then whether the model told that nothing was done.
func (p *prompter) ask(ctx context.Context, h *prompts.Hook, eventID int64) (output []byte, told bool) {
	body := fmt.Appendf(nil, `{"model":%q,"messages":[{"role":"user","content":"Say something about event <data-a>%d</data-a>."}]}`, h.ModelName(), eventID)
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, p.url(h.Moody)+"/chat/completions", bytes.NewReader(body))
	if err != nil {
		return nil, false
	}
	resp, err := p.client.Do(req)
	if err != nil {
		return nil, false
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode >= http.StatusBadRequest {
		return nil, true
	}
	var answer struct {
		Choices []struct {
			Message struct{ Content json.RawMessage }
		}
	}
	if json.NewDecoder(resp.Body).Decode(&answer) != nil || len(answer.Choices) == 0 {
		return nil, false
	}
	return answer.Choices[0].Message.Content, false
}
