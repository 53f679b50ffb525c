package store

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sametick/sametick/pkg/errs"
	"github.com/sametick/sametick/pkg/event"
	"github.com/sametick/sametick/services/prompt-worker/internal/backtest"
	"github.com/sametick/sametick/services/prompt-worker/internal/hooks"
)

const (
	backtestColumns = `SELECT b.org_id, b.id, b.hook_id, b.hook_version, b.template_id, b.template_version, b.request, b.settings, b.status, b.error,
  b.exhausted, b.selected, b.created_at, b.finished_at FROM sametick.prompt_backtests b`
	backtestByID   = backtestColumns + ` WHERE b.org_id = $1 AND b.id = $2`
	insertBacktest = `INSERT INTO sametick.prompt_backtests (org_id, id, hook_id, hook_version, template_id, template_version, request, settings) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)`
	openBacktests  = `SELECT count(*) FROM sametick.prompt_backtests WHERE org_id = $1 AND status IN ('queued', 'running')`
	// lockBacktests lets no two requests pass their organisation's bound together.
	lockBacktests = `SELECT pg_advisory_xact_lock(hashtext('sametick.prompt_backtests'), hashint8($1))`
	whereBacktest = ` WHERE b.org_id = $1 AND ($2::bigint IS NULL OR b.hook_id = $2)`
	listBacktests = backtestColumns + whereBacktest + ` AND ($3 = 0 OR b.id < $3) ORDER BY b.id DESC LIMIT $4`
	endBacktest   = `UPDATE sametick.prompt_backtests SET status = $3, error = $4, exhausted = $5, finished_at = date_trunc('milliseconds', now()) WHERE org_id = $1 AND id = $2`
	casesOf       = `SELECT c.backtest_id, c.event_id, c.run_id, c.attempts::int, c.unknown::int, c.took_runs, c.took_tokens, c.took_cost, c.result
  FROM sametick.prompt_backtest_events c WHERE c.org_id = $1 AND c.backtest_id = ANY($2) ORDER BY c.backtest_id, c.event_id DESC`

	// untested are hooks without a backtest that lets a protected label move: of the hook as it is, in its whole, with a tenth of
	// failures at most.
	untested = `
SELECT h.id FROM unnest($2::bigint[]) h(id) WHERE NOT EXISTS (
  SELECT FROM sametick.prompt_backtests b WHERE b.org_id = $1 AND b.hook_id = h.id AND b.template_id = $3 AND b.template_version = $4
     AND b.status = 'completed' AND b.exhausted = '' AND b.finished_at > now() - make_interval(secs => $5)
     AND NOT b.request ? 'provider_id' AND NOT b.request ? 'model'
     AND (SELECT count(*) FILTER (WHERE c.result->>'cause' <> '') * 10 <= count(*) FROM sametick.prompt_backtest_events c
           WHERE c.org_id = b.org_id AND c.backtest_id = b.id)) ORDER BY 1`

	pruneBacktests = `DELETE FROM sametick.prompt_backtests WHERE (org_id, id) IN (SELECT org_id, id FROM sametick.prompt_backtests WHERE finished_at < $1 ORDER BY id LIMIT $2 FOR UPDATE SKIP LOCKED)`
)

// errNoBacktest is of another organisation's too.
var errNoBacktest = errs.New(errs.NotFound, "BACKTEST_NOT_FOUND", "there is no such backtest")

func readBacktest(row pgx.CollectableRow) (*backtest.Backtest, error) {
	b := &backtest.Backtest{}
	err := row.Scan(&b.OrgID, &b.ID, &b.HookID, &b.HookVersion, &b.TemplateID, &b.TemplateVersion, &b.Request, &b.Settings, &b.Status, &b.Error,
		&b.Exhausted, &b.Selected, &b.CreatedAt, &b.FinishedAt)
	return b, err
}

type ownedCase struct {
	backtest.Case
	of int64
}

func readCase(row pgx.CollectableRow) (c ownedCase, err error) {
	err = row.Scan(&c.of, &c.EventID, &c.RunID, &c.Attempts, &c.Unknown, &c.Took.Runs, &c.Took.Tokens, &c.Took.Cost, &c.Result)
	return c, err
}

// withCases fills in the events of backtests.
func withCases(ctx context.Context, tx pgx.Tx, orgID int64, list ...*backtest.Backtest) error {
	ids, byID := make([]int64, len(list)), map[int64]*backtest.Backtest{}
	for i, b := range list {
		ids[i], byID[b.ID] = b.ID, b
	}
	cases, err := many(ctx, tx, readCase, casesOf, orgID, ids)
	for _, c := range cases {
		byID[c.of].Cases = append(byID[c.of].Cases, c.Case)
	}
	return err
}

func backtestFields(b *backtest.Backtest) (map[string]any, error) {
	out, err := fields(b.Request)
	if err == nil {
		out["hook_id"], out["template_id"], out["template_version"] = b.HookID, b.TemplateID, b.TemplateVersion
		out["status"], out["error"], out["budget_exhausted"] = b.Status, b.Error, b.Exhausted
	}
	return out, err
}

// recordBacktest records a change of one.
func recordBacktest(ctx context.Context, tx pgx.Tx, call hooks.Call, operation string, before, after *backtest.Backtest) error {
	o := object{typ: hooks.TypeBacktest, id: after.ID, name: after.Settings.Name}
	var err error
	if before != nil {
		if o.before, err = backtestFields(before); err != nil {
			return err
		}
	}
	if o.after, err = backtestFields(after); err != nil {
		return err
	}
	return record(ctx, tx, call, operation, o)
}

// CreateBacktest queues one under an id of NewID. Errors: reason TOO_MANY_BACKTESTS when so many of the organisation wait
// or run already.
func (s *Store) CreateBacktest(ctx context.Context, call hooks.Call, b *backtest.Backtest) (made *backtest.Backtest, err error) {
	err = s.org(ctx, call.OrgID, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, lockBacktests, call.OrgID); err != nil {
			return err
		}
		var open int
		if err := tx.QueryRow(ctx, openBacktests, call.OrgID).Scan(&open); err != nil {
			return err
		}
		if open >= backtest.MaxOpen {
			return errs.New(errs.FailedPrecondition, "TOO_MANY_BACKTESTS", fmt.Sprintf("%d backtests wait or run: let one end, or cancel it", open))
		}
		if _, err := tx.Exec(ctx, insertBacktest, call.OrgID, b.ID, b.HookID, b.HookVersion, b.TemplateID, b.TemplateVersion, asJSON(b.Request), asJSON(b.Settings)); err != nil {
			return err
		}
		if made, err = one(ctx, tx, readBacktest, errNoBacktest, backtestByID, call.OrgID, b.ID); err != nil {
			return err
		}
		return recordBacktest(ctx, tx, call, event.Create, nil, made)
	})
	return made, err
}

// GetBacktest gives one with its events. Errors: reason BACKTEST_NOT_FOUND.
func (s *Store) GetBacktest(ctx context.Context, orgID, id int64) (b *backtest.Backtest, err error) {
	err = s.org(ctx, orgID, func(tx pgx.Tx) error {
		if b, err = one(ctx, tx, readBacktest, errNoBacktest, backtestByID, orgID, id); err != nil {
			return err
		}
		return withCases(ctx, tx, orgID, b)
	})
	return b, err
}

// ListBacktests gives a page with their events, of one hook or of all, and how many there are.
func (s *Store) ListBacktests(ctx context.Context, orgID int64, hookID *int64, p Page) (list []*backtest.Backtest, total int64, err error) {
	err = s.org(ctx, orgID, func(tx pgx.Tx) error {
		if err := tx.QueryRow(ctx, `SELECT count(*) FROM sametick.prompt_backtests b`+whereBacktest, orgID, hookID).Scan(&total); err != nil {
			return err
		}
		if list, err = many(ctx, tx, readBacktest, listBacktests, orgID, hookID, p.Before, p.Limit); err != nil {
			return err
		}
		return withCases(ctx, tx, orgID, list...)
	})
	return list, total, err
}

// CancelBacktest ends one. One that has ended stays as it is. Errors: reason BACKTEST_NOT_FOUND.
func (s *Store) CancelBacktest(ctx context.Context, call hooks.Call, id int64) (b *backtest.Backtest, err error) {
	err = s.org(ctx, call.OrgID, func(tx pgx.Tx) error {
		if b, err = one(ctx, tx, readBacktest, errNoBacktest, backtestByID+forUpdate, call.OrgID, id); err != nil {
			return err
		}
		if !b.Ended() {
			if b, err = closeBacktest(ctx, tx, call, b, backtest.Cancelled, "", ""); err != nil {
				return err
			}
		}
		return withCases(ctx, tx, call.OrgID, b)
	})
	return b, err
}

// closeBacktest ends one that is locked.
func closeBacktest(ctx context.Context, tx pgx.Tx, call hooks.Call, before *backtest.Backtest, status, text, exhausted string) (*backtest.Backtest, error) {
	if _, err := tx.Exec(ctx, endBacktest, before.OrgID, before.ID, status, text, exhausted); err != nil {
		return nil, err
	}
	after, err := one(ctx, tx, readBacktest, errNoBacktest, backtestByID, before.OrgID, before.ID)
	if err != nil {
		return nil, err
	}
	return after, recordBacktest(ctx, tx, call, event.Update, before, after)
}

// Untested gives those hooks that have no backtest by which a protected label may move to a version: see backtest.Valid.
func (s *Store) Untested(ctx context.Context, tx Tx, orgID, templateID int64, version int, hookIDs []int64) ([]int64, error) {
	return many(ctx, tx, pgx.RowTo[int64], untested, orgID, hookIDs, templateID, version, backtest.Valid.Seconds())
}

// PruneBacktests drops those that ended before, and gives how many.
func (s *Store) PruneBacktests(ctx context.Context, before time.Time) (n int64, err error) {
	for did := int64(pruneAt); did == pruneAt; n += did {
		err := s.worker(ctx, func(tx pgx.Tx) error {
			tag, err := tx.Exec(ctx, pruneBacktests, before, pruneAt)
			did = tag.RowsAffected()
			return err
		})
		if err != nil {
			return n, err
		}
	}
	return n, nil
}

// patternsOf are patterns as a statement takes them: parts before and after the first point, * for any.
func patternsOf(list []string) (aggregates, actions []string) {
	for _, p := range list {
		aggregate, action, ok := strings.Cut(p, ".")
		if !ok {
			action = "*"
		}
		aggregates, actions = append(aggregates, aggregate), append(actions, action)
	}
	return aggregates, actions
}
