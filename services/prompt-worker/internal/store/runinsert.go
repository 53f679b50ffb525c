package store

import (
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sametick/sametick/services/prompt-worker/internal/runs"
)

// insertRuns takes a column an array: a statement for each run was a third of what Postgres did for it. Rule ids come as a
// JSON array each, since arrays of arrays cannot differ in length.
const insertRuns = `
INSERT INTO sametick.prompt_runs (id, org_id, hook_id, mode, trigger, status, event_id, event_type, aggregate_type, aggregate_id, template_version,
  provider_id, model, input, output, tool_calls, input_tokens, cached_tokens, output_tokens, cost, latency_us, verdict, reason, rule_ids,
  injection_suspected, cached, cause, error, attempts, unknown, created_at, finished_at)
SELECT u.id, u.org, u.hook, u.mode, u.trigger, u.status, nullif(u.event, 0), u.event_type, u.type, u.aggregate, u.version,
  u.provider, u.model, u.input::json, u.output::json, u.calls::json, u.input_tokens, u.cached_tokens, u.output_tokens, u.cost, u.latency, u.verdict, u.reason,
  CASE WHEN u.rules = '' THEN '{}' ELSE ARRAY(SELECT json_array_elements_text(u.rules::json)) END,
  u.suspected, u.cached, u.cause, u.error, u.attempts, u.unknown, u.created, u.finished
  FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::text[], $5::text[], $6::text[], $7::bigint[], $8::text[], $9::text[], $10::bigint[], $11::integer[],
    $12::bigint[], $13::text[], $14::text[], $15::text[], $16::text[], $17::bigint[], $18::bigint[], $19::bigint[], $20::bigint[], $21::bigint[], $22::text[], $23::text[],
    $24::text[], $25::boolean[], $26::boolean[], $27::text[], $28::text[], $29::smallint[], $30::smallint[], $31::timestamptz[], $32::timestamptz[])
    AS u(id, org, hook, mode, trigger, status, event, event_type, type, aggregate, version, provider, model, input, output, calls, input_tokens, cached_tokens,
      output_tokens, cost, latency, verdict, reason, rules, suspected, cached, cause, error, attempts, unknown, created, finished)
ON CONFLICT (finished_at, id) DO NOTHING`

// each makes a column.
func each[T any](list []*runs.Run, of func(*runs.Run) T) []T {
	out := make([]T, len(list))
	for i, r := range list {
		out[i] = of(r)
	}
	return out
}

// queueRuns queues the keeping of finished runs.
func queueRuns(b *pgx.Batch, list []*runs.Run) {
	if len(list) == 0 {
		return
	}
	type run = *runs.Run
	b.Queue(insertRuns,
		each(list, func(r run) int64 { return r.ID }), each(list, func(r run) int64 { return r.OrgID }), each(list, func(r run) int64 { return r.HookID }),
		each(list, func(r run) string { return r.Mode }), each(list, func(r run) string { return r.Trigger }), each(list, func(r run) string { return r.Status }),
		each(list, func(r run) int64 { return r.EventID }), each(list, func(r run) string { return r.EventType }),
		each(list, func(r run) string { return r.AggregateType }), each(list, func(r run) int64 { return r.AggregateID }),
		each(list, func(r run) int { return r.TemplateVersion }), each(list, func(r run) int64 { return r.ProviderID }), each(list, func(r run) string { return r.Model }),
		each(list, func(r run) *string { return asJSON(r.Input) }), each(list, func(r run) *string { return asJSON(r.Output) }),
		each(list, func(r run) *string { return asJSON(r.ToolCalls) }),
		each(list, func(r run) int64 { return r.Usage.Input }), each(list, func(r run) int64 { return r.Usage.Cached }), each(list, func(r run) int64 { return r.Usage.Output }),
		each(list, func(r run) int64 { return r.Cost }), each(list, func(r run) int64 { return r.Latency.Microseconds() }),
		each(list, func(r run) string { return r.Verdict }), each(list, func(r run) string { return r.Reason }), each(list, ruleIDs),
		each(list, func(r run) bool { return r.Suspected }), each(list, func(r run) bool { return r.Cached }),
		each(list, func(r run) string { return r.Cause }), each(list, func(r run) string { return r.Error }),
		each(list, func(r run) int { return r.Attempts }), each(list, func(r run) int { return r.Unknown }),
		each(list, func(r run) time.Time { return r.CreatedAt }), each(list, func(r run) time.Time { return r.FinishedAt }))
}

func ruleIDs(r *runs.Run) string {
	text := asJSON(r.RuleIDs)
	if text == nil {
		return ""
	}
	return *text
}
