package grpcapi_test

import (
	"context"
	"fmt"
	"regexp"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/dynamicpb"

	promptsv1 "github.com/sametick/sametick/proto/gen/go/sametick/prompts/v1"
	"github.com/sametick/sametick/services/prompt-worker/internal/prompting"
	"github.com/sametick/sametick/services/prompt-worker/internal/runs"
)

// tables are those with an organisation's rows that the service's role sees.
var tables = []string{"prompt_templates", "prompt_template_versions", "prompt_providers", "mcp_servers", "prompt_hooks", "prompt_queue", "prompt_runs",
	"prompt_budgets", "prompt_reservations", "prompt_backtests", "prompt_backtest_events", "idempotency_keys", "events", "review_hooks", "review_sets"}

const mark = "zq-secret"

// plant gives org A something of everything, and gives the ids of it, by the names of requests' fields.
func plant(a *api) map[string][]int64 {
	event := a.event("pre_create", 7, mark, nil)
	h, err := a.client.CreateHook(a.keyed(mark), review(func(r *promptsv1.CreateHookRequest) { r.Name = mark }))
	require.NoError(a.t, err)
	withModel := a.async(func(r *promptsv1.CreateHookRequest) { r.Name = mark })
	second, err := a.client.CreateHook(a.as(orgA), withModel)
	require.NoError(a.t, err)
	m, err := a.client.CreateMcpServer(a.as(orgA), &promptsv1.CreateMcpServerRequest{Name: mark, Transport: "http", Url: "https://" + mark + ".example"})
	require.NoError(a.t, err)
	run := a.finished(second.GetId(), event, func(r *runs.Run) { r.Reason = mark })
	a.offered = []prompting.Tool{{Name: mark}}
	for _, sql := range []string{
		`INSERT INTO sametick.prompt_queue (id, org_id, shard, hook_id, event_id, event, event_type, aggregate_type, aggregate_id, due_at, created_at)
			VALUES (1000000, 1, sametick.shard_of(1), $1, 7, '{}', 'task.post_create', 'task', 7, now(), now())`,
		`INSERT INTO sametick.prompt_budgets (org_id, hook_id, day) VALUES (1, $1, current_date)`,
		`INSERT INTO sametick.prompt_reservations (run_id, attempt, org_id, hook_id, day, tokens, cost, expires_at) VALUES (1000000, 1, 1, $1, current_date, 1, 1, now() + interval '1 day')`,
		`INSERT INTO sametick.prompt_backtests (org_id, id, hook_id, template_version, status) VALUES (1, 2000000, $1, 1, 'completed')`,
		`INSERT INTO sametick.prompt_backtest_events (org_id, backtest_id, event_id, run_id, done) SELECT 1, 2000000, 7, $1, true`,
	} {
		_, err := a.Admin.Exec(a.t.Context(), sql, second.GetId())
		require.NoError(a.t, err)
	}
	a.fillers = map[int64]map[string]int64{orgA: {"id": h.GetId(), "template_id": withModel.GetTemplateId(), "event_id": event}}
	tpl, err := a.client.CreateTemplate(a.as(orgB), &promptsv1.CreateTemplateRequest{Name: "of B", Messages: []*promptsv1.Message{{Role: "user", Text: "x"}}})
	require.NoError(a.t, err)
	theirs, err := a.client.CreateHook(a.as(orgB), review())
	require.NoError(a.t, err)
	a.fillers[orgB] = map[string]int64{"id": theirs.GetId(), "template_id": tpl.GetId(),
		"event_id": int64(a.Count(`SELECT min(id) FROM sametick.events WHERE org_id = 2`))}
	return map[string][]int64{"id": {h.GetId(), second.GetId(), m.GetId(), withModel.GetTemplateId(), withModel.GetProviderId(), run, 1000000, 2000000},
		"template_id": {withModel.GetTemplateId()}, "provider_id": {withModel.GetProviderId()}, "event_id": {event}, "hook_id": {second.GetId()}}
}

// absent are ids that nothing has.
const absent = int64(1) << 50

// ask calls a method as an organisation, with ids in the fields that have them, and gives what it says; ids are left out
// of it, and so is what the answer knows from the request alone.
func (a *api) ask(org int64, m protoreflect.MethodDescriptor, ids map[string]int64) string {
	req := dynamicpb.NewMessage(m.Input())
	fields := m.Input().Fields()
	for i := range fields.Len() {
		f := fields.Get(i)
		id, ok := ids[string(f.Name())]
		if !ok && m.Input().Fields().ByName("event_id") != nil && m.Name() != "ListRuns" {
			id, ok = a.fillers[org][string(f.Name())]
		}
		switch {
		case ok:
			req.Set(f, protoreflect.ValueOfInt64(id))
		case f.Name() == "name":
			req.Set(f, protoreflect.ValueOfString("of B"))
		case (f.Name() == "version" || f.Name() == "from" || f.Name() == "to") && f.Kind() == protoreflect.Int32Kind:
			req.Set(f, protoreflect.ValueOfInt32(1))
		case f.Name() == "messages":
			list := req.Mutable(f).List()
			list.Append(protoreflect.ValueOfMessage((&promptsv1.Message{Role: "user", Text: "x"}).ProtoReflect()))
		case f.Name() == "label":
			req.Set(f, protoreflect.ValueOfString("production"))
		}
	}
	out := dynamicpb.NewMessage(m.Output())
	err := a.conn.Invoke(a.as(org), fmt.Sprintf("/%s/%s", m.Parent().FullName(), m.Name()), req, out)
	said := prototext.Format(out)
	if err != nil {
		st := status.Convert(err)
		said = fmt.Sprint(st.Code(), st.Message(), st.Details())
	}
	return regexp.MustCompile(`\b\d+\b`).ReplaceAllString(said, "N")
}

// digest is of all rows of an organisation's.
func (a *api) digest(org int64) string {
	var all []string
	for _, table := range tables {
		var text string
		require.NoError(a.t, a.Admin.QueryRow(a.t.Context(), fmt.Sprintf(`SELECT coalesce(md5(string_agg(t::text, '|' ORDER BY t::text)), '') FROM sametick.%s t WHERE org_id = $1`, table), org).Scan(&text))
		all = append(all, text)
	}
	return strings.Join(all, " ")
}

// differences calls every method with every id of org A's and, beside it, with one that nothing has, and gives those that
// say something else to the two.
func differences(a *api, org int64, ids map[string][]int64) (found map[string]bool) {
	found = map[string]bool{}
	methods := promptsv1.File_sametick_prompts_v1_prompts_proto.Services().ByName("PromptService").Methods()
	for i := range methods.Len() {
		m := methods.Get(i)
		for name, list := range ids {
			if m.Input().Fields().ByName(protoreflect.Name(name)) == nil {
				continue
			}
			for _, id := range list {
				nothing := a.ask(org, m, map[string]int64{name: absent})
				if said := a.ask(org, m, map[string]int64{name: id}); said != nothing {
					found[string(m.Name())] = true
					if org == orgB {
						a.t.Logf("%s of %s %d: %s, of nothing: %s", m.Name(), name, id, said, nothing)
					}
				}
			}
		}
	}
	return found
}

// Another organisation's ids are like ids of nothing, in every method, and nothing of the other's changes. The control
// is the same walk by their owner, which every method that has ids must notice.
func TestNobodySeesAnotherOrganisation(t *testing.T) {
	a := start(t)
	ids := plant(a)
	before := a.digest(orgA)
	require.Empty(t, differences(a, orgB, ids))
	require.Equal(t, before, a.digest(orgA))
	// What stands in A's lists alone.
	seen := func(method string) string {
		return map[string]string{"ListBacktests": "id:2000000", "ListTemplates": fmt.Sprint("id:", ids["template_id"][0]), "ListProviders": fmt.Sprint("id:", ids["provider_id"][0]),
			"ListRuns": fmt.Sprint("hook_id:", ids["hook_id"][0]), "ListHooks": mark, "ListMcpServers": mark}[method]
	}
	for _, m := range []struct {
		name string
		req  proto.Message
		into proto.Message
	}{{"ListHooks", &promptsv1.ListHooksRequest{IncludeArchived: true}, &promptsv1.ListHooksResponse{}},
		{"ListTemplates", &promptsv1.ListTemplatesRequest{IncludeArchived: true}, &promptsv1.ListTemplatesResponse{}},
		{"ListProviders", &promptsv1.ListProvidersRequest{IncludeArchived: true}, &promptsv1.ListProvidersResponse{}},
		{"ListMcpServers", &promptsv1.ListMcpServersRequest{IncludeArchived: true}, &promptsv1.ListMcpServersResponse{}},
		{"ListBacktests", &promptsv1.ListBacktestsRequest{}, &promptsv1.ListBacktestsResponse{}},
		{"ListRuns", &promptsv1.ListRunsRequest{}, &promptsv1.ListRunsResponse{}},
		{"ListRuns", &promptsv1.ListRunsRequest{Status: "pending"}, &promptsv1.ListRunsResponse{}}} {
		require.NoError(t, a.conn.Invoke(a.as(orgB), "/sametick.prompts.v1.PromptService/"+m.name, m.req, m.into))
		require.NotContains(t, m.into.(fmt.Stringer).String(), seen(m.name), m.name)
		require.NoError(t, a.conn.Invoke(a.as(orgA), "/sametick.prompts.v1.PromptService/"+m.name, m.req, m.into))
		require.Contains(t, m.into.(fmt.Stringer).String(), seen(m.name), "the control")
	}

	own := differences(a, orgA, ids)
	methods := promptsv1.File_sametick_prompts_v1_prompts_proto.Services().ByName("PromptService").Methods()
	for i := range methods.Len() {
		m := methods.Get(i)
		withID := false
		for name := range ids {
			withID = withID || m.Input().Fields().ByName(protoreflect.Name(name)) != nil
		}
		require.Equal(t, withID, own[string(m.Name())], "the control: %s of one's own", m.Name())
	}
}

// Ids that stand deeper in a request are held to the same.
func TestNestedIdsOfAnotherOrganisation(t *testing.T) {
	a := start(t)
	ids := plant(a)
	for _, field := range []string{"tools[0].mcp_server_id", "fallback_provider_ids[0]", "template_id"} {
		set := func(id int64) func(*promptsv1.CreateHookRequest) {
			return func(r *promptsv1.CreateHookRequest) {
				switch field {
				case "template_id":
					r.TemplateId = id
				case "fallback_provider_ids[0]":
					r.FallbackProviderIds = []int64{id}
				default:
					r.Tools = []*promptsv1.ToolGrant{{McpServerId: id, Tools: []string{"x"}}}
				}
			}
		}
		id := map[string]int64{"template_id": ids["template_id"][0], "fallback_provider_ids[0]": ids["provider_id"][0], "tools[0].mcp_server_id": ids["id"][2]}[field]
		_, theirs := a.client.CreateHook(a.as(orgB), a.async(set(id)))
		_, nothing := a.client.CreateHook(a.as(orgB), a.async(set(absent)))
		require.Equal(t, "NOT_FOUND", faults(theirs)[field])
		require.Equal(t, faults(nothing), faults(theirs))
		_, err := a.client.CreateHook(a.as(orgA), a.async(set(id)))
		require.NoError(t, err, "the control")
	}
}

// Row-level security keeps every table by itself, whatever a statement forgets; the control takes one policy away after
// the other, and each is missed.
func TestRowLevelSecurity(t *testing.T) {
	a := start(t)
	plant(a)
	// As the service's role for organisation B, by statements that forget the organisation.
	seen := func(table, org string) (n int) { // of org A's
		require.NoError(t, pgx.BeginFunc(t.Context(), a.Admin, func(tx pgx.Tx) error {
			if _, err := tx.Exec(t.Context(), `SET LOCAL ROLE sametick_prompt`); err != nil {
				return err
			}
			if _, err := tx.Exec(t.Context(), `SELECT set_config('sametick.org_id', $1, true)`, org); err != nil {
				return err
			}
			return tx.QueryRow(t.Context(), `SELECT count(*) FROM sametick.`+table+` WHERE org_id = 1`).Scan(&n)
		}))
		return n
	}
	changes := map[string]string{"prompt_templates": "name = 'stolen'", "prompt_providers": "key_sealed = NULL", "mcp_servers": "headers_sealed = NULL",
		"prompt_hooks": "version = 9", "prompt_queue": "due_at = now()", "prompt_budgets": "spent_runs = 9", "prompt_reservations": "tokens = 9",
		"prompt_backtests": "status = 'failed'", "prompt_backtest_events": "done = false", "review_hooks": "failure_policy = 'fail_open'", "idempotency_keys": "answer = NULL"}
	for _, table := range tables {
		require.Positive(t, seen(table, "1"), table)
		require.Zero(t, seen(table, "2"), table)

		require.Zero(t, seen(table, ""), "%s: who acts for nobody sees nothing", table)
		if set, ok := changes[table]; ok {
			require.NoError(t, pgx.BeginFunc(t.Context(), a.Admin, func(tx pgx.Tx) error {
				if _, err := tx.Exec(t.Context(), `SET LOCAL ROLE sametick_prompt; SELECT set_config('sametick.org_id', '2', true)`); err != nil {
					return err
				}
				tag, err := tx.Exec(t.Context(), `UPDATE sametick.`+table+` SET `+set+` WHERE org_id = 1`)
				require.Zero(t, tag.RowsAffected(), table)
				return err
			}))
		}
	}
	for _, table := range tables {
		var policy, roles string
		require.NoError(t, a.Admin.QueryRow(t.Context(), `SELECT polname, array_to_string(ARRAY(SELECT rolname FROM pg_roles WHERE oid = ANY(polroles)), ',') FROM pg_policy
			WHERE polrelid = ('sametick.' || $1)::regclass AND 'sametick_prompt'::regrole = ANY(polroles)`, table).Scan(&policy, &roles))
		tx, err := a.Admin.Begin(t.Context())
		require.NoError(t, err)
		_, err = tx.Exec(t.Context(), fmt.Sprintf(`ALTER POLICY %s ON sametick.%s USING (true)`, policy, table))
		require.NoError(t, err)
		_, err = tx.Exec(t.Context(), `SET LOCAL ROLE sametick_prompt; SELECT set_config('sametick.org_id', '2', true)`)
		require.NoError(t, err)
		var n int
		require.NoError(t, tx.QueryRow(t.Context(), `SELECT count(*) FROM sametick.`+table+` WHERE org_id = 1`).Scan(&n))
		require.Positive(t, n, "the control: %s without its policy", table)
		require.NoError(t, tx.Rollback(context.WithoutCancel(t.Context())))
	}
	// A table that is not walked above fails here.
	rows, err := a.Admin.Query(t.Context(), `SELECT c.relname FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'org_id'
		WHERE c.relnamespace = 'sametick'::regnamespace AND c.relkind IN ('r', 'p') AND NOT c.relispartition
		AND has_table_privilege('sametick_prompt', c.oid, 'SELECT')`)
	require.NoError(t, err)
	all, err := pgx.CollectRows(rows, pgx.RowTo[string])
	require.NoError(t, err)
	require.ElementsMatch(t, tables, all)
}
