package store

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sametick/sametick/services/prompt-worker/internal/prompting"
)

const (
	hold = `SELECT sametick.hold_prompt_budget($1, $2, $3, $4, $5, $6, $7, $8)`
	// holdFree holds for those that nothing bounds, in the order of locks.
	holdFree = `
INSERT INTO sametick.prompt_budgets AS b (org_id, hook_id, day, held_runs, held_tokens, held_cost)
SELECT u.org, h.hook, $3, sum(u.runs), sum(u.tokens), sum(u.cost)
  FROM unnest($1::bigint[], $2::bigint[], $4::bigint[], $5::bigint[], $6::bigint[]) u(org, hook, runs, tokens, cost), LATERAL (VALUES (0::bigint), (u.hook)) h(hook)
 GROUP BY u.org, h.hook ORDER BY u.org, h.hook <> 0, h.hook
ON CONFLICT (org_id, hook_id, day) DO UPDATE
   SET held_runs = b.held_runs + excluded.held_runs, held_tokens = b.held_tokens + excluded.held_tokens, held_cost = b.held_cost + excluded.held_cost`
	reserve = `
INSERT INTO sametick.prompt_reservations (run_id, attempt, org_id, hook_id, day, tokens, cost, expires_at)
SELECT u.run, u.attempt, u.org, u.hook, $5, u.tokens, u.cost, u.until
  FROM unnest($1::bigint[], $2::smallint[], $3::bigint[], $4::bigint[], $6::bigint[], $7::bigint[], $8::timestamptz[]) u(run, attempt, org, hook, tokens, cost, until)`
	reserved = `SELECT EXISTS (SELECT FROM sametick.prompt_reservations WHERE run_id = $1 AND attempt = $2)`

	// move books what is gone from reservations: what they took is spent (less what was guessed), what they held is free.
	// Budgets are locked in the order of hold_prompt_budget.
	move = `, moved AS (
  SELECT org_id, h.hook, day, sum(took_runs) AS took_runs, sum(took_tokens) AS took_tokens, sum(took_cost) AS took_cost,
    sum(free_runs) AS free_runs, sum(free_tokens) AS free_tokens, sum(free_cost) AS free_cost
    FROM gone, LATERAL (VALUES (0::bigint), (hook_id)) h(hook) GROUP BY 1, 2, 3),
locked AS (
  SELECT b.org_id, b.hook_id, b.day FROM sametick.prompt_budgets b JOIN moved m ON (b.org_id, b.hook_id, b.day) = (m.org_id, m.hook, m.day)
   ORDER BY b.org_id, b.hook_id <> 0, b.hook_id, b.day FOR UPDATE OF b)
UPDATE sametick.prompt_budgets b
   SET spent_runs = b.spent_runs + m.took_runs, spent_tokens = b.spent_tokens + m.took_tokens, spent_cost = b.spent_cost + m.took_cost,
       held_runs = b.held_runs - m.free_runs, held_tokens = b.held_tokens - m.free_tokens, held_cost = b.held_cost - m.free_cost
  FROM moved m JOIN locked l ON (l.org_id, l.hook_id, l.day) = (m.org_id, m.hook, m.day)
 WHERE (b.org_id, b.hook_id, b.day) = (m.org_id, m.hook, m.day)`

	settle = `
WITH gone AS (
  DELETE FROM sametick.prompt_reservations r
   USING unnest($1::bigint[], $2::smallint[], $3::bigint[], $4::bigint[], $5::bigint[]) u(run, attempt, runs, tokens, cost)
   WHERE r.run_id = u.run AND r.attempt = u.attempt
  RETURNING r.org_id, r.hook_id, r.day,
    u.runs - r.guessed::int AS took_runs, u.tokens - CASE WHEN r.guessed THEN r.tokens ELSE 0 END AS took_tokens,
    u.cost - CASE WHEN r.guessed THEN r.cost ELSE 0 END AS took_cost, (NOT r.guessed)::int AS free_runs,
    CASE WHEN r.guessed THEN 0 ELSE r.tokens END AS free_tokens, CASE WHEN r.guessed THEN 0 ELSE r.cost END AS free_cost)` + move

	expire = `
WITH gone AS (
  UPDATE sametick.prompt_reservations SET guessed = true WHERE NOT guessed AND expires_at <= $1
  RETURNING org_id, hook_id, day, 1 AS took_runs, tokens AS took_tokens, cost AS took_cost, 1 AS free_runs, tokens AS free_tokens, cost AS free_cost)` + move
	// forget ends the guesses that nobody corrects any more.
	forget = `DELETE FROM sametick.prompt_reservations WHERE guessed AND expires_at < $1::timestamptz - interval '1 day'`
)

// Reservation is an attempt's worst case, to be held of its hook's day and its organisation's.
type Reservation struct {
	prompting.Attempt
	OrgID, HookID int64
	Worst         prompting.Amount
	// Limits are the hook's.
	Limits prompting.Limits
	// Until is when nobody will settle it any more.
	Until time.Time
}

// Settlement is what an attempt took.
type Settlement struct {
	prompting.Attempt
	Took prompting.Amount
}

func limits(l prompting.Limits) []*int64 { return []*int64{l.Runs, l.Tokens, l.Cost} }

// Reserve holds the worst case of one attempt before its call; refused says whose budget does not cover it, and then
// nothing is held. To reserve what is held already changes nothing.
func (s *Store) Reserve(ctx context.Context, r Reservation) (refused string, err error) {
	err = s.worker(ctx, func(tx pgx.Tx) error {
		var held bool
		if err := tx.QueryRow(ctx, reserved, r.Run, r.No).Scan(&held); err != nil || held {
			return err
		}
		list, day := []Reservation{r}, today()
		all, err := s.reserve(ctx, tx, day, list)
		if err != nil {
			return err
		}
		refused = all[0]
		b := &pgx.Batch{}
		book(b, day, list, all)
		return tx.SendBatch(ctx, b).Close()
	})
	return refused, err
}

// reserve holds what reservations want, and answers each, in order; book keeps them. Those of one hook are held together
// when all of them fit, and those of hooks that nothing bounds in one statement: a budget's row is written once.
func (s *Store) reserve(ctx context.Context, tx pgx.Tx, day time.Time, list []Reservation) ([]string, error) {
	order := make([]int, len(list))
	for i := range order {
		order[i] = i
	}
	// In the order of locks, so that no two transactions wait for each other.
	slices.SortStableFunc(order, func(a, b int) int {
		return cmp.Or(cmp.Compare(list[a].OrgID, list[b].OrgID), cmp.Compare(list[a].HookID, list[b].HookID))
	})
	answers := make([]string, len(list))
	for len(order) > 0 {
		// As many as nothing bounds; else those of one hook.
		first, n := list[order[0]], 0
		for n < len(order) && s.free(list[order[n]]) {
			n++
		}
		if n > 0 {
			if err := holdUnbounded(ctx, tx, day, list, order[:n]); err != nil {
				return nil, err
			}
			order = order[n:]
			continue
		}
		for n = 1; n < len(order) && list[order[n]].HookID == first.HookID && list[order[n]].OrgID == first.OrgID; {
			n++
		}
		if err := s.holdEach(ctx, tx, day, list, order[:n], answers); err != nil {
			return nil, err
		}
		order = order[n:]
	}
	return answers, nil
}

func today() time.Time { return time.Now().UTC().Truncate(24 * time.Hour) }

// free tells whether no budget bounds a reservation; what it takes is counted all the same.
func (s *Store) free(r Reservation) bool {
	return r.Limits == (prompting.Limits{}) && s.orgBudget == (prompting.Limits{})
}

func holdUnbounded(ctx context.Context, tx pgx.Tx, day time.Time, list []Reservation, of []int) error {
	n := len(of)
	org, hook, count, tokens, cost := make([]int64, n), make([]int64, n), make([]int64, n), make([]int64, n), make([]int64, n)
	for k, i := range of {
		r := &list[i]
		org[k], hook[k], count[k], tokens[k], cost[k] = r.OrgID, r.HookID, r.Worst.Runs, r.Worst.Tokens, r.Worst.Cost
	}
	_, err := tx.Exec(ctx, holdFree, org, hook, day, count, tokens, cost)
	return err
}

// holdEach holds what reservations of one hook want: all at once or, when that is too much, each that still fits.
func (s *Store) holdEach(ctx context.Context, tx pgx.Tx, day time.Time, list []Reservation, of []int, answers []string) error {
	var sum prompting.Amount
	for _, i := range of {
		sum = sum.Plus(list[i].Worst)
	}
	r := list[of[0]]
	var refused string
	err := tx.QueryRow(ctx, hold, r.OrgID, r.HookID, day, sum.Runs, sum.Tokens, sum.Cost, limits(s.orgBudget), limits(r.Limits)).Scan(&refused)
	switch {
	case err != nil || refused == "":
		return err
	case len(of) == 1:
		answers[of[0]] = refused
		return nil
	}
	for _, i := range of {
		if err := s.holdEach(ctx, tx, day, list, []int{i}, answers); err != nil {
			return err
		}
	}
	return nil
}

// book queues the keeping of those reservations that were granted.
func book(b *pgx.Batch, day time.Time, list []Reservation, answers []string) {
	var run, org, hook, tokens, cost []int64
	var attempt []int16
	var until []time.Time
	for i, r := range list {
		if answers[i] == "" {
			run, attempt, org, hook = append(run, r.Run), append(attempt, int16(r.No)), append(org, r.OrgID), append(hook, r.HookID) //nolint:gosec // at most runs.MaxAttempts
			tokens, cost, until = append(tokens, r.Worst.Tokens), append(cost, r.Worst.Cost), append(until, r.Until)
		}
	}
	if len(run) > 0 {
		b.Queue(reserve, run, attempt, org, hook, day, tokens, cost, until)
	}
}

// Settle counts what attempts took, each once however often it is told, and takes back what was guessed of them.
func (s *Store) Settle(ctx context.Context, list []Settlement) error {
	return s.worker(ctx, func(tx pgx.Tx) error {
		b := &pgx.Batch{}
		queueSettle(b, list)
		return tx.SendBatch(ctx, b).Close()
	})
}

func queueSettle(b *pgx.Batch, list []Settlement) {
	if len(list) == 0 {
		return
	}
	n := len(list)
	run, attempt, count, tokens, cost := make([]int64, n), make([]int16, n), make([]int64, n), make([]int64, n), make([]int64, n)
	for i, t := range list {
		run[i], attempt[i], count[i], tokens[i], cost[i] = t.Run, int16(t.No), t.Took.Runs, t.Took.Tokens, t.Took.Cost //nolint:gosec // at most runs.MaxAttempts
	}
	b.Queue(settle, run, attempt, count, tokens, cost)
}

// Expire settles at their worst case the reservations that nobody has settled until now, and gives how many budgets
// that moved.
func (s *Store) Expire(ctx context.Context, now time.Time) (n int64, err error) {
	err = s.worker(ctx, func(tx pgx.Tx) error {
		tag, err := tx.Exec(ctx, expire, now)
		if err != nil {
			return err
		}
		n = tag.RowsAffected()
		_, err = tx.Exec(ctx, forget, now)
		return err
	})
	return n, err
}
