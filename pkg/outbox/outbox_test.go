package outbox_test

import (
	"context"
	"database/sql"
	"encoding/json"
	"io/fs"
	"log/slog"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	_ "github.com/jackc/pgx/v5/stdlib"
	"github.com/stretchr/testify/require"

	"github.com/sametick/sametick/pkg/event"
	"github.com/sametick/sametick/pkg/outbox"
	"github.com/sametick/sametick/pkg/pgtest"
)

func database(t *testing.T) *pgtest.DB {
	t.Helper()
	return pgtest.Migrated(t, fingerprint(t), func(ctx context.Context, url string) error {
		return outbox.Migrate(ctx, url, slog.New(slog.DiscardHandler))
	})
}

func fingerprint(t *testing.T) string {
	t.Helper()
	names, err := fs.Glob(outbox.Migrations(), "*.sql")
	require.NoError(t, err)
	var parts [][]byte
	for _, n := range names {
		text, err := fs.ReadFile(outbox.Migrations(), n)
		require.NoError(t, err)
		parts = append(parts, text)
	}
	return pgtest.Fingerprint(parts...)
}

func TestShardOfIsTheSameInGoAndSQL(t *testing.T) {
	t.Parallel()
	pool := database(t).Pool(t)
	for _, org := range []int64{1, 2, 15, 16, 17, 1<<31 - 1, 1 << 31, 1<<40 + 12345, 1<<63 - 1} {
		var shard int
		require.NoError(t, pool.QueryRow(t.Context(), "SELECT sametick.shard_of($1)", org).Scan(&shard))
		require.Equal(t, shard, event.ShardOf(org), "org %d", org)
	}
}

// TestEveryDriverRecordsTheSame appends one event by pgx, database/sql and plain SQL.
func TestEveryDriverRecordsTheSame(t *testing.T) {
	t.Parallel()
	db := database(t)
	pool := db.Pool(t)
	actor := int64(7)
	shared := outbox.Context{ActorID: &actor, RequestID: "r1", IP: "127.0.0.1", UserAgent: "test", Traceparent: "00-aa"}
	e := outbox.Event{OrgID: 1, AggregateType: "task", AggregateID: 234, Action: "post_update", RecordName: "Say \"hi\"\n",
		Changes: json.RawMessage(`{"name":{"before":"a","after":"b"}}`), Extra: json.RawMessage(`{"n":12345678901234567890}`)}

	tx, err := pool.Begin(t.Context())
	require.NoError(t, err)
	first, err := outbox.Append(t.Context(), tx, shared, e)
	require.NoError(t, err)
	require.NoError(t, tx.Commit(t.Context()))

	std, err := sql.Open("pgx", db.URL)
	require.NoError(t, err)
	defer func() { require.NoError(t, std.Close()) }()
	stdTx, err := std.BeginTx(t.Context(), nil)
	require.NoError(t, err)
	second, err := outbox.AppendSQL(t.Context(), stdTx, shared, e)
	require.NoError(t, err)
	require.NoError(t, stdTx.Commit())

	_, err = pool.Exec(t.Context(), `SELECT sametick.record_event(1, 'task', 234, 'post_update', 7, E'Say "hi"\n',
		'{"name":{"before":"a","after":"b"}}', '{"n":12345678901234567890}',
		'{"request_id":"r1","ip":"127.0.0.1","user_agent":"test","traceparent":"00-aa"}')`)
	require.NoError(t, err)

	require.Equal(t, []int64{1, 2}, []int64{first[0].Sequence, second[0].Sequence})
	var kinds, rows int
	require.NoError(t, pool.QueryRow(t.Context(), `SELECT count(DISTINCT (org_id, shard, event_type, payload - 'timestamp', trace_context)), count(*)
		FROM sametick.events WHERE aggregate_id = 234`).Scan(&kinds, &rows))
	require.Equal(t, []int{1, 3}, []int{kinds, rows}, "three events that differ in nothing but id, sequence and time")
	require.NoError(t, pool.QueryRow(t.Context(), `SELECT count(DISTINCT (actor_id, action, outcome, changes, request_id, ip, user_agent)), count(*)
		FROM sametick.audit_entries WHERE aggregate_id = 234`).Scan(&kinds, &rows))
	require.Equal(t, []int{1, 3}, []int{kinds, rows})
	var payload string
	require.NoError(t, pool.QueryRow(t.Context(), "SELECT payload FROM sametick.events WHERE sequence = 3").Scan(&payload))
	require.Contains(t, payload, "12345678901234567890", "numbers keep their digits")
}

func TestWhatIsNoEventIsRefusedWhole(t *testing.T) {
	t.Parallel()
	pool := database(t).Pool(t)
	good := outbox.Event{OrgID: 1, AggregateType: "task", AggregateID: 1, Action: "post_create"}
	for name, breakIt := range map[string]func(*outbox.Event){
		"no org":           func(e *outbox.Event) { e.OrgID = 0 },
		"no aggregate":     func(e *outbox.Event) { e.AggregateID = 0 },
		"type in capitals": func(e *outbox.Event) { e.AggregateType = "Task" },
		"newline in type":  func(e *outbox.Event) { e.AggregateType = "task\n" },
		"no action":        func(e *outbox.Event) { e.Action = "" },
		"dots in event":    func(e *outbox.Event) { e.EventType = "a.b.c" },
		"extra an array":   func(e *outbox.Event) { e.Extra = json.RawMessage(`[]`) },
		"changes a string": func(e *outbox.Event) { e.Changes = json.RawMessage(`"x"`) },
		"NUL in name":      func(e *outbox.Event) { e.RecordName = "a\x00b" },
	} {
		bad := good
		breakIt(&bad)
		err := pgx.BeginFunc(t.Context(), pool, func(tx pgx.Tx) error {
			_, err := outbox.Append(t.Context(), tx, outbox.Context{}, good, bad)
			return err
		})
		require.Error(t, err, name)
	}
	var rows int
	require.NoError(t, pool.QueryRow(t.Context(), "SELECT (SELECT count(*) FROM sametick.events) + (SELECT count(*) FROM sametick.aggregates)").Scan(&rows))
	require.Zero(t, rows, "one bad event refuses the whole call")
}

// TestNoEventIsTooLargeToRead: one that no reader can hold would stop the relay for everybody, and
// history cannot be mended. A number of eight characters prints as 131,072 digits.
func TestNoEventIsTooLargeToRead(t *testing.T) {
	t.Parallel()
	pool := database(t).Pool(t)
	for name, extra := range map[string]string{
		"large numbers": `{"x":[` + strings.Repeat("1e131071,", 9000) + `1]}`,
		"small numbers": `{"x":{"y":1e-16000}}`,
		"grown numbers": `{"x":[` + strings.Repeat("1e308,", 43000) + `1]}`,
		"long text":     `{"x":"` + strings.Repeat("x", 3<<20) + `"}`,
	} {
		_, err := pool.Exec(t.Context(), "SELECT sametick.record_event(1, 'task', 1, 'post_update', extra => $1::jsonb)", extra)
		require.ErrorContains(t, err, "too large", name)
		_, err = pool.Exec(t.Context(), "SELECT sametick.record_event(1, 'task', 1, 'post_update', changes => $1::jsonb)", extra)
		require.ErrorContains(t, err, "too large", name)
	}
	_, err := pool.Exec(t.Context(), "SELECT sametick.record_event(1, 'task', 1, 'post_update', extra => $1::jsonb)", `{"x":[0,1e308,-0.0,1e-300]}`)
	require.NoError(t, err)
}

// TestContextKeysAreTheEventsOwn: types are those of the contract, and extra cannot stand in for them.
func TestContextKeysAreTheEventsOwn(t *testing.T) {
	t.Parallel()
	pool := database(t).Pool(t)
	for _, e := range []string{
		`{"org_id":"1","aggregate_type":"task","aggregate_id":7,"action":"x"}`,
		`{"org_id":1,"aggregate_type":"task","aggregate_id":" 7 ","action":"x"}`,
		`{"org_id":1,"aggregate_type":"task","aggregate_id":7,"action":"x","record_name":{"a":1}}`,
		`{"org_id":1,"aggregate_type":"task","aggregate_id":7,"action":"x","workflow_id":"x"}`,
	} {
		_, err := pool.Exec(t.Context(), "SELECT sametick.record_events($1::jsonb)", "["+e+"]")
		require.ErrorContains(t, err, "not an event", e)
	}
	_, err := pool.Exec(t.Context(), `SELECT sametick.record_events('[{"org_id":1,"aggregate_type":"task","aggregate_id":7,"action":"x"}]', '{"actor_id":"9"}')`)
	require.Error(t, err)
	_, err = pool.Exec(t.Context(), `SELECT sametick.record_event(1, 'task', 7, 'x', extra => '{"step_id":"evil","org_id":2,"mine":1}')`)
	require.NoError(t, err)
	var payload string
	require.NoError(t, pool.QueryRow(t.Context(), "SELECT payload - 'timestamp' FROM sametick.events").Scan(&payload))
	require.JSONEq(t, `{"org_id":1,"actor_id":null,"record_id":7,"record_type":"task","action":"x","mine":1}`, payload)
}

// TestHistoryIsAppendOnly tries as the superuser, who bypasses grants and policies. Only who disables the
// triggers can change history, which then the sealed log shows.
func TestHistoryIsAppendOnly(t *testing.T) {
	t.Parallel()
	db := database(t)
	pool := db.Pool(t)
	for _, sql := range []string{
		"SELECT sametick.record_event(1, 'task', 1, 'post_create')",
		`INSERT INTO sametick.audit_leaves VALUES (0, 1, decode(repeat('00', 16), 'hex'), decode(repeat('00', 32), 'hex'))`,
		`INSERT INTO sametick.audit_heads (seal, size, snapshot, page_after, max_id, claim_xid, system_identifier, note)
			VALUES (1, 1, '3:3:', 0, 1, pg_current_xact_id(), 1, 'x')`,
	} {
		_, err := pool.Exec(t.Context(), sql)
		require.NoError(t, err)
	}
	columns := map[string]string{"events": "occurred_at = now()", "audit_entries": "occurred_at = now()",
		"audit_leaves": "entry_id = 2", "audit_heads": "note = 'y'"}
	for _, table := range []string{"events", "events_1", "audit_entries", "audit_entries_1", "audit_leaves", "audit_heads"} {
		set := columns[strings.TrimSuffix(table, "_1")]
		for _, sql := range []string{"UPDATE sametick." + table + " SET " + set, "DELETE FROM sametick." + table, "TRUNCATE sametick." + table} {
			_, err := pool.Exec(t.Context(), sql)
			require.ErrorContains(t, err, "append-only", sql)
			for _, role := range []string{"sametick_api", "sametick_relay", "sametick_webhook", "sametick_prompt"} {
				_, err := pgtest.Pool(t, db.URLAs(t, role)).Exec(t.Context(), sql)
				require.Error(t, err, "%s as %s", sql, role)
			}
		}
	}
	_, err := pool.Exec(t.Context(), "ALTER TABLE sametick.audit_entries DISABLE TRIGGER append_only")
	require.NoError(t, err)
	tag, err := pool.Exec(t.Context(), "UPDATE sametick.audit_entries SET action = 'forged'")
	require.NoError(t, err)
	require.EqualValues(t, 1, tag.RowsAffected(), "the control: without its trigger the superuser's change goes through")
}

// TestGrants walks what each service's role may do; a table that is not named here fails the test.
func TestGrants(t *testing.T) {
	t.Parallel()
	pool := database(t).Pool(t)
	rows, err := pool.Query(t.Context(), `
		SELECT r.rolname || ' ' || c.relname || ' ' || string_agg(p.p, ',' ORDER BY p.p)
		  FROM pg_class c, unnest(ARRAY['SELECT','INSERT','UPDATE','DELETE','TRUNCATE']) p(p), pg_roles r
		 WHERE c.relnamespace = 'sametick'::regnamespace AND c.relkind IN ('r', 'p') AND NOT c.relispartition AND c.relname NOT LIKE 'schema%'
		   AND r.rolname ~ '^sametick_(api|relay|webhook|prompt|producer)$' AND has_table_privilege(r.oid, c.oid, p.p)
		 GROUP BY r.rolname, c.relname ORDER BY 1`)
	require.NoError(t, err)
	got, err := pgx.CollectRows(rows, pgx.RowTo[string])
	require.NoError(t, err)
	require.Equal(t, []string{
		"sametick_api audit_entries SELECT",
		"sametick_api entry_actor_counts SELECT",
		"sametick_api entry_counts SELECT",
		"sametick_api entry_times SELECT",
		"sametick_api event_actor_counts SELECT",
		"sametick_api event_counts SELECT",
		"sametick_api event_times SELECT",
		"sametick_api events SELECT",
		"sametick_api idempotency_keys INSERT,SELECT,UPDATE",
		"sametick_api review_hooks SELECT",
		"sametick_api review_sets SELECT",
		"sametick_prompt consumer_cursors INSERT,SELECT,UPDATE",
		"sametick_prompt consumer_leases DELETE,INSERT,SELECT,UPDATE",
		"sametick_prompt consumer_members DELETE,INSERT,SELECT,UPDATE",
		"sametick_prompt idempotency_keys INSERT,SELECT,UPDATE",
		"sametick_prompt review_hooks DELETE,INSERT,SELECT,UPDATE",
		"sametick_prompt review_sets SELECT",
		"sametick_relay audit_entries SELECT",
		"sametick_relay audit_heads INSERT,SELECT",
		"sametick_relay audit_leaves INSERT,SELECT",
		"sametick_relay consumer_cursors SELECT",
		"sametick_relay events SELECT",
		"sametick_relay positions DELETE,INSERT,SELECT",
		"sametick_relay relay_batches DELETE,INSERT,SELECT",
		"sametick_webhook consumer_cursors INSERT,SELECT,UPDATE",
		"sametick_webhook consumer_leases DELETE,INSERT,SELECT,UPDATE",
		"sametick_webhook consumer_members DELETE,INSERT,SELECT,UPDATE",
		"sametick_webhook idempotency_keys INSERT,SELECT,UPDATE",
	}, got)
}

// TestARoleSeesItsOrganisationAlone reads and writes as api-gateway's role.
func TestARoleSeesItsOrganisationAlone(t *testing.T) {
	t.Parallel()
	db := database(t)
	admin := db.Pool(t)
	_, err := admin.Exec(t.Context(), "SELECT sametick.record_event(1, 'task', 1, 'post_create'), sametick.record_event(2, 'task', 2, 'post_create')")
	require.NoError(t, err)
	api := pgtest.Pool(t, db.URLAs(t, "sametick_api"))

	seen := func(org string) (events, entries int) {
		require.NoError(t, pgx.BeginFunc(t.Context(), api, func(tx pgx.Tx) error {
			if _, err := tx.Exec(t.Context(), "SELECT set_config('sametick.org_id', $1, true)", org); err != nil {
				return err
			}
			return tx.QueryRow(t.Context(), "SELECT (SELECT count(*) FROM sametick.events), (SELECT count(*) FROM sametick.audit_entries)").Scan(&events, &entries)
		}))
		return events, entries
	}
	for org, want := range map[string]int{"": 0, "1": 1, "2": 1, "3": 0} {
		events, entries := seen(org)
		require.Equal(t, []int{want, want}, []int{events, entries}, "org %q", org)
	}
	require.Error(t, pgx.BeginFunc(t.Context(), api, func(tx pgx.Tx) error {
		if _, err := tx.Exec(t.Context(), "SELECT set_config('sametick.org_id', '1', true)"); err != nil {
			return err
		}
		_, err := outbox.Append(t.Context(), tx, outbox.Context{}, outbox.Event{OrgID: 2, AggregateType: "task", AggregateID: 9, Action: "x"})
		return err
	}), "org 1 cannot write org 2's history")

	_, err = admin.Exec(t.Context(), "DROP POLICY org ON sametick.events; CREATE POLICY org ON sametick.events FOR SELECT TO sametick_api USING (true)")
	require.NoError(t, err)
	events, _ := seen("1")
	require.Equal(t, 2, events, "the control: without its policy the same query leaks")
}
