package grpcapi_test

import (
	"context"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/dynamicpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	webhooksv1 "github.com/sametick/sametick/proto/gen/go/sametick/webhooks/v1"
)

// tables are those with an organisation's rows that the service's role sees.
var tables = []string{"webhook_endpoints", "webhook_secrets", "webhook_queue", "webhook_attempts", "webhook_replays", "idempotency_keys", "events"}

const mark = "zq-secret"

// plant gives org A something of everything, and gives the ids of it, by the names of requests' fields.
func plant(a *api) map[string][]int64 {
	e := a.create(func(r *webhooksv1.CreateEndpointRequest) {
		r.Url, r.Description, r.Filter = "https://"+mark+".example", mark, `event.event_type != "`+mark+`"`
	}).GetEndpoint().GetId()
	event := int64(a.count(`SELECT max(id) FROM sametick.events`))
	waiting := a.queue(e, event, 0)
	attempt, ended := a.attempt(e, event, 0, 1, "failed", mark)
	r, err := a.client.ReplayEndpoint(a.keyed(mark), &webhooksv1.ReplayEndpointRequest{Id: e, AfterPosition: proto.Int64(0)})
	require.NoError(a.t, err)
	return map[string][]int64{"id": {e, waiting, ended, attempt, r.GetId()}, "endpoint_id": {e}, "event_id": {event}, "delivery_id": {waiting, ended},
		"endpoint_ids": {e}}
}

// absent are ids that nothing has.
const absent = int64(1) << 50

// ask calls a method as who ctx says, with ids in the fields that have them, and gives what it says; ids are left out
// of it, and so is what the answer knows from the request alone.
func (a *api) ask(ctx context.Context, m protoreflect.MethodDescriptor, ids map[string]int64) string {
	req := dynamicpb.NewMessage(m.Input())
	fields := m.Input().Fields()
	for i := range fields.Len() {
		f := fields.Get(i)
		switch id, ok := ids[string(f.Name())]; {
		case ok && f.IsList():
			list := req.NewField(f).List()
			list.Append(protoreflect.ValueOfInt64(id))
			req.Set(f, protoreflect.ValueOfList(list))
		case ok:
			req.Set(f, protoreflect.ValueOfInt64(id))
		case f.Name() == "description":
			req.Set(f, protoreflect.ValueOfString("of B"))
		case f.Name() == "since":
			req.Set(f, protoreflect.ValueOfMessage(timestamppb.New(time.Now().Add(-time.Hour)).ProtoReflect()))
		}
	}
	out := dynamicpb.NewMessage(m.Output())
	err := a.conn.Invoke(ctx, fmt.Sprintf("/%s/%s", m.Parent().FullName(), m.Name()), req, out)
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
		require.NoError(a.t, a.admin.QueryRow(a.t.Context(), fmt.Sprintf(`SELECT coalesce(md5(string_agg(t::text, '|' ORDER BY t::text)), '') FROM sametick.%s t WHERE org_id = $1`, table), org).Scan(&text))
		all = append(all, text)
	}
	return strings.Join(all, " ")
}

// differences calls every method with every id of org A's and, beside it, with one that nothing has, and gives those that
// say something else to the two.
func differences(a *api, ctx context.Context, ids map[string][]int64) (found map[string]bool) { //nolint:revive // a is what it walks
	found = map[string]bool{}
	methods := webhooksv1.File_sametick_webhooks_v1_webhooks_proto.Services().ByName("WebhookService").Methods()
	for i := range methods.Len() {
		m := methods.Get(i)
		for name, list := range ids {
			if m.Input().Fields().ByName(protoreflect.Name(name)) == nil {
				continue
			}
			for _, id := range list {
				nothing := a.ask(ctx, m, map[string]int64{name: absent})
				if said := a.ask(ctx, m, map[string]int64{name: id}); said != nothing {
					found[string(m.Name())] = true
					a.t.Logf("%s of %s %d: %.200s, of nothing: %.200s", m.Name(), name, id, said, nothing)
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
	require.Empty(t, differences(a, a.as(orgB), ids))
	require.Equal(t, before, a.digest(orgA))
	for _, m := range []struct {
		name string
		req  proto.Message
		into proto.Message
	}{{"ListEndpoints", &webhooksv1.ListEndpointsRequest{IncludeArchived: true}, &webhooksv1.ListEndpointsResponse{}},
		{"ExportEndpoints", &webhooksv1.ExportEndpointsRequest{}, &webhooksv1.ExportEndpointsResponse{}}} {
		require.NoError(t, a.conn.Invoke(a.as(orgB), "/sametick.webhooks.v1.WebhookService/"+m.name, m.req, m.into))
		require.NotContains(t, m.into.(fmt.Stringer).String(), mark)
		require.NoError(t, a.conn.Invoke(a.as(orgA), "/sametick.webhooks.v1.WebhookService/"+m.name, m.req, m.into))
		require.Contains(t, m.into.(fmt.Stringer).String(), mark, "the control")
	}

	own := differences(a, a.as(orgA), ids)
	methods := webhooksv1.File_sametick_webhooks_v1_webhooks_proto.Services().ByName("WebhookService").Methods()
	for i := range methods.Len() {
		m := methods.Get(i)
		withID := false
		for name := range ids {
			withID = withID || m.Input().Fields().ByName(protoreflect.Name(name)) != nil
		}
		require.Equal(t, withID, own[string(m.Name())], "the control: %s of one's own", m.Name())
	}
}

// Row-level security keeps every table by itself, whatever a statement forgets; the control takes one policy away after
// the other, and each is missed.
func TestRowLevelSecurity(t *testing.T) {
	a := start(t)
	plant(a)
	// As the service's role for organisation B, by statements that forget the organisation.
	seen := func(table, org string) (n int) {
		require.NoError(t, pgx.BeginFunc(t.Context(), a.admin, func(tx pgx.Tx) error {
			if _, err := tx.Exec(t.Context(), `SET LOCAL ROLE sametick_webhook`); err != nil {
				return err
			}
			if _, err := tx.Exec(t.Context(), `SELECT set_config('sametick.org_id', $1, true)`, org); err != nil {
				return err
			}
			return tx.QueryRow(t.Context(), `SELECT count(*) FROM sametick.`+table).Scan(&n)
		}))
		return n
	}
	changes := map[string]string{"webhook_endpoints": "description = 'stolen'", "webhook_secrets": "public_key = 'stolen'", "webhook_queue": "due_at = now()",
		"webhook_replays": "status = 'cancelled'", "idempotency_keys": "answer = NULL"}
	for _, table := range tables {
		require.Positive(t, seen(table, "1"), table)
		require.Zero(t, seen(table, "2"), table)
		require.Zero(t, seen(table, ""), "%s: who acts for nobody sees nothing", table)
		if set, ok := changes[table]; ok {
			require.NoError(t, pgx.BeginFunc(t.Context(), a.admin, func(tx pgx.Tx) error {
				if _, err := tx.Exec(t.Context(), `SET LOCAL ROLE sametick_webhook; SELECT set_config('sametick.org_id', '2', true)`); err != nil {
					return err
				}
				tag, err := tx.Exec(t.Context(), `UPDATE sametick.`+table+` SET `+set)
				require.Zero(t, tag.RowsAffected(), table)
				return err
			}))
		}
	}
	for _, table := range tables {
		var policy, roles string
		require.NoError(t, a.admin.QueryRow(t.Context(), `SELECT polname, array_to_string(ARRAY(SELECT rolname FROM pg_roles WHERE oid = ANY(polroles)), ',') FROM pg_policy
			WHERE polrelid = ('sametick.' || $1)::regclass AND 'sametick_webhook'::regrole = ANY(polroles)`, table).Scan(&policy, &roles))
		tx, err := a.admin.Begin(t.Context())
		require.NoError(t, err)
		_, err = tx.Exec(t.Context(), fmt.Sprintf(`ALTER POLICY %s ON sametick.%s USING (true)`, policy, table))
		require.NoError(t, err)
		_, err = tx.Exec(t.Context(), `SET LOCAL ROLE sametick_webhook; SELECT set_config('sametick.org_id', '2', true)`)
		require.NoError(t, err)
		var n int
		require.NoError(t, tx.QueryRow(t.Context(), `SELECT count(*) FROM sametick.`+table).Scan(&n))
		require.Positive(t, n, "the control: %s without its policy", table)
		require.NoError(t, tx.Rollback(context.WithoutCancel(t.Context())))
	}
	// A table that is not walked above fails here.
	rows, err := a.admin.Query(t.Context(), `SELECT c.relname FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'org_id'
		WHERE c.relnamespace = 'sametick'::regnamespace AND c.relkind IN ('r', 'p') AND NOT c.relispartition
		AND has_table_privilege('sametick_webhook', c.oid, 'SELECT')`)
	require.NoError(t, err)
	all, err := pgx.CollectRows(rows, pgx.RowTo[string])
	require.NoError(t, err)
	require.ElementsMatch(t, tables, all)
}
