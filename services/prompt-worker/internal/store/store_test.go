package store_test

import (
	"context"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/sametick/sametick/pkg/errs"
	"github.com/sametick/sametick/pkg/keyring"
	"github.com/sametick/sametick/pkg/pg"
	"github.com/sametick/sametick/services/prompt-worker/internal/hooks"
	"github.com/sametick/sametick/services/prompt-worker/internal/prompting"
	"github.com/sametick/sametick/services/prompt-worker/internal/runs"
	"github.com/sametick/sametick/services/prompt-worker/internal/store"
	"github.com/sametick/sametick/services/prompt-worker/internal/workertest"
)

func TestMain(m *testing.M) { workertest.Main(m) }

func TestSchema(t *testing.T) {
	t.Parallel()
	w := workertest.NewWorld(t, prompting.Limits{})
	require.NoError(t, w.Store.CheckSchema(t.Context()))
	_, err := w.Admin.Exec(t.Context(), "DELETE FROM sametick.schema_prompt WHERE version_id > 0")
	require.NoError(t, err)
	require.ErrorContains(t, w.Store.CheckSchema(t.Context()), "migrate")
}

// fill puts something of organisation 1 into every table.
func fill(w *workertest.World) {
	ctx := w.T.Context()
	h := w.Hook()
	_, err := w.Store.CreateServer(ctx, w.Call, hooks.Server{ID: 99, Name: "tools", Transport: "http", URL: "https://tools.example"})
	require.NoError(w.T, err)
	item := &runs.Item{OrgID: 1, HookID: h.ID, EventID: 1, Event: []byte(`{}`), EventType: "task.post_create", AggregateType: "task", AggregateID: 1}
	require.NoError(w.T, pg.InTx(ctx, w.Pool, pg.TxOptions{}, func(tx pgx.Tx) error {
		s, err := w.Store.Schedule(ctx, tx)
		if err != nil {
			return err
		}
		return s.Enqueue(ctx, 3, []*runs.Item{item})
	}))
	require.NoError(w.T, w.Store.SaveRuns(ctx, []*runs.Run{{ID: 77, OrgID: 1, HookID: h.ID, Mode: "review", Trigger: runs.ByReview, Status: runs.Completed,
		CreatedAt: time.Now(), FinishedAt: time.Now()}}))
	_, err = w.Store.Reserve(ctx, store.Reservation{Attempt: prompting.Attempt{Run: 5, No: 1}, OrgID: 1, HookID: h.ID, Until: time.Now().Add(time.Hour)})
	require.NoError(w.T, err)
	_, err = w.Admin.Exec(ctx, `INSERT INTO sametick.prompt_backtests (org_id, id, hook_id, template_version) VALUES (1, 1, 1, 1);
		INSERT INTO sametick.prompt_backtest_events (org_id, backtest_id, event_id, run_id) VALUES (1, 1, 1, 1);
		INSERT INTO sametick.review_hooks VALUES (1, 1, 'n', '{}', 'fail_open', 'warn', 1)`)
	require.NoError(w.T, err)
}

// Row-level security alone keeps organisations apart, in every table that has them. The control takes its policy away.
func TestRows(t *testing.T) {
	t.Parallel()
	w := workertest.NewWorld(t, prompting.Limits{})
	fill(w)
	ctx := t.Context()
	rows, err := w.Admin.Query(ctx, `SELECT c.relname FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'org_id'
		WHERE c.relnamespace = 'sametick'::regnamespace AND c.relkind IN ('r', 'p') AND NOT c.relispartition
		AND (c.relname LIKE 'prompt%' OR c.relname LIKE 'mcp%' OR c.relname LIKE 'review%') ORDER BY 1`)
	require.NoError(t, err)
	tables, err := pgx.CollectRows(rows, pgx.RowTo[string])
	require.NoError(t, err)
	require.Len(t, tables, 13)
	sees := func(table string, org int64) (n int) {
		require.NoError(t, pg.InTx(ctx, w.Pool, pg.TxOptions{Org: org}, func(tx pgx.Tx) error {
			return tx.QueryRow(ctx, "SELECT count(*) FROM sametick."+table).Scan(&n)
		}))
		return n
	}
	for _, table := range tables {
		require.Positive(t, sees(table, 1), table)
		require.Zero(t, sees(table, 2), table)
		require.Zero(t, sees(table, 0), "%s: who names no organisation sees none", table)
		policy := "org"
		if table == "review_hooks" || table == "review_sets" {
			policy = "worker"
		}
		_, err := w.Admin.Exec(ctx, "ALTER POLICY "+policy+" ON sametick."+table+" USING (true)")
		require.NoError(t, err)
		require.Positive(t, sees(table, 2), "%s: the control", table)
	}
	w = workertest.NewWorld(t, prompting.Limits{})
	err = pg.InTx(ctx, w.Pool, pg.TxOptions{Org: 2}, func(tx pgx.Tx) error {
		_, err := tx.Exec(ctx, `INSERT INTO sametick.prompt_templates (org_id, id, name) VALUES (1, 1, 'x')`)
		return err
	})
	require.Error(t, err, "nor does one write for another")
}

func TestAppendOnly(t *testing.T) {
	t.Parallel()
	w := workertest.NewWorld(t, prompting.Limits{})
	fill(w)
	for _, sql := range []string{`UPDATE sametick.prompt_template_versions SET note = 'x'`, `DELETE FROM sametick.prompt_template_versions`,
		`UPDATE sametick.prompt_runs SET verdict = 'approve'`, `DELETE FROM sametick.prompt_runs`} {
		_, err := w.Pool.Exec(t.Context(), sql)
		require.ErrorContains(t, err, "permission denied", sql)
		_, err = w.Admin.Exec(t.Context(), sql)
		require.ErrorContains(t, err, "append-only", sql)
	}
	_, err := w.Admin.Exec(t.Context(), `UPDATE sametick.prompt_hooks SET version = version`)
	require.NoError(t, err, "the control: what may change does")
}

// Each change has its pre_ and post_ event and its audit entry, and no secret is in any of them.
func TestChangesAreRecorded(t *testing.T) {
	t.Parallel()
	w := workertest.NewWorld(t, prompting.Limits{})
	ctx, s := t.Context(), w.Store
	ring, err := keyring.Parse(keyring.Generate("a"))
	require.NoError(t, err)
	w.Call.RequestID = "req-1"
	h := w.Hook()
	p, err := s.UpdateProvider(ctx, w.Call, h.ProviderID, nil, func(p hooks.Provider) (hooks.Provider, error) {
		p.BaseURL, p.KeySealed = "https://user:hunter2@models.example/hunter2", ring.Seal(keyring.Owner{OrgID: 1, ID: p.ID, Purpose: hooks.PurposeProviderKey}, []byte("hunter2"))
		return p, nil
	})
	require.NoError(t, err)
	require.EqualValues(t, 2, p.Version)
	m, err := s.CreateServer(ctx, w.Call, hooks.Server{ID: 1000, Name: "tools", Transport: "stdio", Command: []string{"/bin/tools", "--token=hunter2"}, HeadersSealed: []byte("x")})
	require.NoError(t, err)
	_, err = s.AddVersion(ctx, w.Call, h.TemplateID, prompting.Version{Messages: []prompting.Message{{Role: "user", Text: "x"}}}, "note")
	require.NoError(t, err)
	h, err = s.UpdateHook(ctx, w.Call, h.ID, &h.Version, func(h hooks.Hook) (hooks.Settings, error) { h.Name = "renamed"; return h.Settings, nil })
	require.NoError(t, err)
	for range 2 { // a second time changes nothing
		_, err = s.ArchiveHook(ctx, w.Call, h.ID, nil)
		require.NoError(t, err)
		_, err = s.ArchiveTemplate(ctx, w.Call, h.TemplateID)
		require.NoError(t, err)
		_, err = s.ArchiveProvider(ctx, w.Call, p.ID)
		require.NoError(t, err)
		_, err = s.ArchiveServer(ctx, w.Call, m.ID)
		require.NoError(t, err)
	}
	for typ, changes := range map[string]int{hooks.TypeHook: 3, hooks.TypeTemplate: 3, hooks.TypeProvider: 3, hooks.TypeServer: 2} {
		require.Equal(t, changes, w.Count(`SELECT count(*) FROM sametick.events WHERE aggregate_type = $1 AND event_type LIKE '%.pre\_%'`, typ), typ)
		require.Equal(t, changes, w.Count(`SELECT count(*) FROM sametick.events WHERE aggregate_type = $1 AND event_type LIKE '%.post\_%'`, typ), typ)
		require.Equal(t, changes, w.Count(`SELECT count(*) FROM sametick.audit_entries WHERE aggregate_type = $1 AND request_id = 'req-1'`, typ), typ)
	}
	require.Equal(t, 1, w.Count(`SELECT count(*) FROM sametick.events WHERE event_type = 'prompt_hook.post_update'
		AND payload->'changes' = '{"name": {"before": "hook", "after": "renamed"}}'`))
	require.Zero(t, w.Count(`SELECT count(*) FROM sametick.events WHERE payload::text LIKE '%hunter2%'`))
	require.Zero(t, w.Count(`SELECT count(*) FROM sametick.audit_entries WHERE changes::text LIKE '%hunter2%'`))
	require.Equal(t, 2, w.Count(`SELECT count(*) FROM sametick.events WHERE payload::text LIKE '%models.example%' AND event_type LIKE '%update'`), "the control: the host is shown")
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	w := workertest.NewWorld(t, prompting.Limits{})
	ctx, s := t.Context(), w.Store
	h := w.Hook()
	other := w.Call
	other.OrgID = 2
	keep := func(h hooks.Hook) (hooks.Settings, error) { return h.Settings, nil }
	_, err := s.UpdateHook(ctx, other, h.ID, nil, keep)
	require.True(t, errs.HasReason(err, "HOOK_NOT_FOUND"), err)
	_, err = s.ArchiveTemplate(ctx, other, h.TemplateID)
	require.True(t, errs.HasReason(err, "TEMPLATE_NOT_FOUND"), err)
	_, err = s.ArchiveProvider(ctx, other, h.ProviderID)
	require.True(t, errs.HasReason(err, "PROVIDER_NOT_FOUND"), err)
	_, err = s.GetSetup(ctx, 2, h.ID)
	require.True(t, errs.HasReason(err, "HOOK_NOT_FOUND"), err)
	list, total, err := s.ListHooks(ctx, 2, store.Page{Limit: 10})
	require.NoError(t, err)
	require.Empty(t, list)
	require.Zero(t, total)
	old := h.Version - 1
	_, err = s.UpdateHook(ctx, w.Call, h.ID, &old, keep)
	require.True(t, errs.HasReason(err, "VERSION_MISMATCH"), err)
	_, err = s.ArchiveHook(ctx, w.Call, h.ID, &h.Version)
	require.NoError(t, err)
	_, err = s.UpdateHook(ctx, w.Call, h.ID, nil, keep)
	require.True(t, errs.HasReason(err, "ARCHIVED"), err)
}

// What api-gateway knows of hooks that review is kept with each change of one.
func TestReviewHooksAreKept(t *testing.T) {
	t.Parallel()
	w := workertest.NewWorld(t, prompting.Limits{})
	set := func(h *hooks.Hook, change func(*hooks.Settings)) {
		_, err := w.Store.UpdateHook(t.Context(), w.Call, h.ID, nil, func(h hooks.Hook) (hooks.Settings, error) { change(&h.Settings); return h.Settings, nil })
		require.NoError(t, err)
	}
	known := func() int { return w.Count(`SELECT count(*) FROM sametick.review_hooks`) }
	generation := func() int { return w.Count(`SELECT coalesce(sum(generation), 0)::int FROM sametick.review_sets`) }
	async := w.Hook()
	h := w.Hook(func(s *hooks.Settings) { s.Mode, s.Enabled = hooks.ModeReview, false })
	require.Zero(t, known())
	for _, step := range []struct {
		change func(*hooks.Settings)
		known  int
	}{
		{func(s *hooks.Settings) { s.Enabled = true }, 1}, {func(s *hooks.Settings) { s.TimeoutMS = 99_000 }, 1}, {func(s *hooks.Settings) { s.Mode = hooks.ModeAsync }, 0},
		{func(s *hooks.Settings) { s.Mode = hooks.ModeReview }, 1}, {func(s *hooks.Settings) { s.Enabled = false }, 0}, {func(s *hooks.Settings) { s.Enabled = true }, 1},
	} {
		before := generation()
		set(h, step.change)
		require.Equal(t, step.known, known())
		require.Greater(t, generation(), before)
	}
	require.Equal(t, 1, w.Count(`SELECT count(*) FROM sametick.review_hooks WHERE timeout_ms = 10000`), "at most ten seconds")
	before := generation()
	set(async, func(s *hooks.Settings) { s.Name = "x" })
	require.Equal(t, before, generation(), "the control: another one is no change of it")
	_, err := w.Store.ArchiveHook(t.Context(), w.Call, h.ID, nil)
	require.NoError(t, err)
	require.Zero(t, known())
}

// TestBudgetsKeepTheLedger: the tables do what prompting.Ledger says, over any order of reserving, settling and expiring.
func TestBudgetsKeepTheLedger(t *testing.T) {
	t.Parallel()
	w := workertest.NewWorld(t, prompting.Limits{})
	ctx := t.Context()
	day := time.Now().UTC().Truncate(24 * time.Hour)
	limit := int64(1000)
	limits := prompting.Limits{Tokens: &limit}
	var model prompting.Ledger
	random := rand.New(rand.NewPCG(7, 7)) //nolint:gosec // a test that can be repeated
	told := map[prompting.Attempt]bool{}
	now := time.Now()
	for step := range 400 {
		a := prompting.Attempt{Run: 1 + random.Int64N(40), No: 1 + random.IntN(2)}
		amount := prompting.Amount{Runs: 1, Tokens: random.Int64N(200), Cost: random.Int64N(9)}
		switch k := random.IntN(10); {
		case k < 5 && !told[a]:
			until := now.Add(time.Duration(random.IntN(60)) * time.Second)
			want := model.Reserve(a, amount, limits, until)
			refused, err := w.Store.Reserve(ctx, store.Reservation{Attempt: a, OrgID: 1, HookID: 3, Worst: amount, Limits: limits, Until: until})
			require.NoError(t, err)
			if want == prompting.ErrSettled { //nolint:errorlint // it is not wrapped
				told[a] = true
				continue
			}
			require.Equal(t, want != nil, refused != "", "step %d: %v, %q", step, want, refused)
		case k < 9:
			if model.Settle(a, amount) == nil {
				told[a] = true
			}
			require.NoError(t, w.Store.Settle(ctx, []store.Settlement{{Attempt: a, Took: amount}}))
		default:
			now = now.Add(20 * time.Second)
			for _, a := range model.Expire(now) {
				told[a] = true // reserved no more
			}
			_, err := w.Store.Expire(ctx, now)
			require.NoError(t, err)
		}
		for _, hook := range []int64{0, 3} {
			spent, held, err := w.Store.Spent(ctx, 1, hook, day)
			require.NoError(t, err)
			require.Equal(t, model.Spent(), spent, "step %d", step)
			require.Equal(t, model.Held(), held, "step %d", step)
		}
	}
	require.Positive(t, model.Spent().Runs)
}

// Days that nothing more can happen to go, and no others.
func TestPruneBudgets(t *testing.T) {
	t.Parallel()
	w := workertest.NewWorld(t, prompting.Limits{})
	ctx := t.Context()
	add := func(hook, ago, held int) {
		_, err := w.Admin.Exec(ctx, `INSERT INTO sametick.prompt_budgets (org_id, hook_id, day, spent_runs, held_runs)
			VALUES (1, $1, (now() AT TIME ZONE 'UTC')::date - $2::int, 5, $3)`, hook, ago, held)
		require.NoError(t, err)
	}
	for ago := range 20 {
		add(0, ago, 0)
		add(7, ago, 0)
	}
	add(8, 15, 1) // an attempt holds of it
	_, err := w.Admin.Exec(ctx, `INSERT INTO sametick.prompt_reservations (run_id, attempt, org_id, hook_id, day, tokens, cost, expires_at, guessed)
		VALUES (1, 1, 1, 7, (now() AT TIME ZONE 'UTC')::date - 16, 1, 1, now(), true)`) // may be corrected
	require.NoError(t, err)
	n, err := w.Store.PruneBudgets(ctx, time.Now().Add(-10*24*time.Hour))
	require.NoError(t, err)
	require.EqualValues(t, 2*9-2, n)
	require.Equal(t, 2*11, w.Count(`SELECT count(*) FROM sametick.prompt_budgets WHERE day >= (now() AT TIME ZONE 'UTC')::date - 10`))
	require.Equal(t, 3, w.Count(`SELECT count(*) FROM sametick.prompt_budgets WHERE day < (now() AT TIME ZONE 'UTC')::date - 10`))
	_, err = w.Store.PruneBudgets(ctx, time.Now())
	require.NoError(t, err)
	require.Equal(t, 2*4, w.Count(`SELECT count(*) FROM sametick.prompt_budgets WHERE day >= (now() AT TIME ZONE 'UTC')::date - 3`), "the last days stay, whatever is asked for")
}

// Sixty-four at once, each for a tenth of what is left: the sum never exceeds.
func TestReserveAtOnce(t *testing.T) {
	t.Parallel()
	limit := int64(100)
	w := workertest.NewWorld(t, prompting.Limits{Cost: &limit})
	granted := make(chan string, 64)
	for i := range 64 {
		go func() {
			refused, err := w.Store.Reserve(context.Background(), store.Reservation{Attempt: prompting.Attempt{Run: int64(i + 1), No: 1}, OrgID: 1, HookID: int64(i%3 + 1),
				Worst: prompting.Amount{Runs: 1, Cost: 10}, Until: time.Now().Add(time.Hour)})
			if err != nil {
				refused = err.Error()
			}
			granted <- refused
		}()
	}
	got := map[string]int{}
	for range 64 {
		got[<-granted]++
	}
	require.Equal(t, map[string]int{"": 10, "organisation": 54}, got)
}
