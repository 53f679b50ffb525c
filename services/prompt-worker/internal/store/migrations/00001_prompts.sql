-- +goose Up
SET LOCAL ROLE sametick_owner;
-- No function is anybody's unless a GRANT below says so.
ALTER DEFAULT PRIVILEGES FOR ROLE sametick_owner REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC;

-- Ids of templates, providers, MCP servers, hooks and backtests, over all organisations.
CREATE SEQUENCE sametick.prompt_ids AS bigint;
-- Ids of runs, of the queue and of reviews alike.
CREATE SEQUENCE sametick.prompt_run_ids AS bigint CACHE 1;
GRANT USAGE ON SEQUENCE sametick.prompt_ids, sametick.prompt_run_ids TO sametick_prompt;

CREATE TABLE sametick.prompt_templates (
  org_id      bigint NOT NULL,
  id          bigint NOT NULL,
  name        text NOT NULL,
  description text NOT NULL DEFAULT '',
  -- The newest version, and where labels point: {"production": {"version": 3, "protected": true}}.
  latest      integer NOT NULL DEFAULT 1,
  labels      jsonb NOT NULL DEFAULT '{}',
  created_at  timestamptz NOT NULL DEFAULT date_trunc('milliseconds', now()),
  updated_at  timestamptz NOT NULL DEFAULT date_trunc('milliseconds', now()),
  archived_at timestamptz,
  PRIMARY KEY (org_id, id)
);

-- Append-only: what a run was made from stays readable.
CREATE TABLE sametick.prompt_template_versions (
  org_id      bigint NOT NULL,
  template_id bigint NOT NULL,
  version     integer NOT NULL,
  messages    jsonb NOT NULL,
  variables   jsonb NOT NULL,
  note        text NOT NULL DEFAULT '',
  created_at  timestamptz NOT NULL DEFAULT date_trunc('milliseconds', now()),
  PRIMARY KEY (org_id, template_id, version)
);
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON sametick.prompt_template_versions
  FOR EACH ROW EXECUTE FUNCTION sametick.refuse_change();
CREATE TRIGGER append_only_truncate BEFORE TRUNCATE ON sametick.prompt_template_versions
  FOR EACH STATEMENT EXECUTE FUNCTION sametick.refuse_change();

CREATE TABLE sametick.prompt_providers (
  org_id        bigint NOT NULL,
  id            bigint NOT NULL,
  name          text NOT NULL,
  kind          text NOT NULL CHECK (kind IN ('rules', 'openai', 'anthropic')),
  base_url      text NOT NULL DEFAULT '',
  default_model text NOT NULL DEFAULT '',
  -- Sealed under the key ring (pkg/keyring); NULL without a key.
  key_sealed    bytea,
  key_hint      text NOT NULL DEFAULT '',
  concurrency   integer NOT NULL DEFAULT 0 CHECK (concurrency >= 0),
  version       bigint NOT NULL DEFAULT 1,
  created_at    timestamptz NOT NULL DEFAULT date_trunc('milliseconds', now()),
  updated_at    timestamptz NOT NULL DEFAULT date_trunc('milliseconds', now()),
  archived_at   timestamptz,
  PRIMARY KEY (org_id, id)
);

CREATE TABLE sametick.mcp_servers (
  org_id         bigint NOT NULL,
  id             bigint NOT NULL,
  name           text NOT NULL,
  transport      text NOT NULL CHECK (transport IN ('http', 'stdio')),
  url            text NOT NULL DEFAULT '',
  command        text[] NOT NULL DEFAULT '{}',
  headers_sealed bytea,
  created_at     timestamptz NOT NULL DEFAULT date_trunc('milliseconds', now()),
  archived_at    timestamptz,
  PRIMARY KEY (org_id, id)
);

CREATE TABLE sametick.prompt_hooks (
  org_id        bigint NOT NULL,
  id            bigint NOT NULL,
  -- What its owner sets, as package hooks writes it. What follows is there to be found by.
  settings      jsonb NOT NULL,
  mode          text NOT NULL GENERATED ALWAYS AS (settings->>'mode') STORED CHECK (mode IN ('review', 'async')),
  enabled       boolean NOT NULL GENERATED ALWAYS AS ((settings->>'enabled')::boolean) STORED,
  template_id   bigint NOT NULL GENERATED ALWAYS AS ((settings->>'template_id')::bigint) STORED,
  -- The position of its post_create event, once the scheduler has passed it: it gets what comes after.
  from_position bigint,
  version       bigint NOT NULL DEFAULT 1,
  created_at    timestamptz NOT NULL DEFAULT date_trunc('milliseconds', now()),
  updated_at    timestamptz NOT NULL DEFAULT date_trunc('milliseconds', now()),
  archived_at   timestamptz,
  PRIMARY KEY (org_id, id)
);

-- What waits to be run, and nothing else: a row goes when its run ends. The event comes along, so that a run needs
-- neither Redis nor the log, however old it is.
CREATE TABLE sametick.prompt_queue (
  id             bigint PRIMARY KEY,
  org_id         bigint NOT NULL,
  shard          smallint NOT NULL,
  hook_id        bigint NOT NULL,
  event_id       bigint NOT NULL,
  event          bytea NOT NULL,
  event_type     text NOT NULL,
  aggregate_type text NOT NULL,
  aggregate_id   bigint NOT NULL,
  -- Begun so far: together with the id this names an attempt.
  attempts       smallint NOT NULL DEFAULT 0,
  -- Attempts whose outcome nobody knows: only after such a one may a provider be asked twice for the same.
  unknown        smallint NOT NULL DEFAULT 0,
  -- An attempt has begun and not ended. Until due_at it is its worker's.
  calling        boolean NOT NULL DEFAULT false,
  due_at         timestamptz NOT NULL,
  -- Why it could not be scheduled properly, or why the newest attempt failed.
  cause          text NOT NULL DEFAULT '',
  error          text NOT NULL DEFAULT '',
  trace_context  text NOT NULL DEFAULT '',
  created_at     timestamptz NOT NULL
) WITH (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_cost_delay = 0);
CREATE INDEX prompt_queue_due_idx ON sametick.prompt_queue (shard, hook_id, due_at, id);

-- One row a finished run, for ever or until its partition is dropped. Append-only.
CREATE TABLE sametick.prompt_runs (
  id                  bigint NOT NULL,
  org_id              bigint NOT NULL,
  hook_id             bigint NOT NULL,
  mode                text NOT NULL,
  trigger             text NOT NULL CHECK (trigger IN ('event', 'review', 'dry_run', 'backtest')),
  status              text NOT NULL CHECK (status IN ('completed', 'failed', 'superseded')),
  event_id            bigint,
  event_type          text NOT NULL,
  aggregate_type      text NOT NULL,
  aggregate_id        bigint NOT NULL,
  template_version    integer NOT NULL DEFAULT 0,
  provider_id         bigint NOT NULL DEFAULT 0,
  model               text NOT NULL DEFAULT '',
  -- json, which takes what models write, where jsonb refuses some of it.
  input               json,
  output              json,
  tool_calls          json,
  input_tokens        bigint NOT NULL DEFAULT 0,
  cached_tokens       bigint NOT NULL DEFAULT 0,
  output_tokens       bigint NOT NULL DEFAULT 0,
  cost                bigint NOT NULL DEFAULT 0,
  latency_us          bigint NOT NULL DEFAULT 0,
  verdict             text NOT NULL DEFAULT '',
  reason              text NOT NULL DEFAULT '',
  rule_ids            text[] NOT NULL DEFAULT '{}',
  injection_suspected boolean NOT NULL DEFAULT false,
  cached              boolean NOT NULL DEFAULT false,
  cause               text NOT NULL DEFAULT '',
  error               text NOT NULL DEFAULT '',
  attempts            smallint NOT NULL DEFAULT 0,
  unknown             smallint NOT NULL DEFAULT 0,
  created_at          timestamptz NOT NULL,
  finished_at         timestamptz NOT NULL DEFAULT clock_timestamp(),
  PRIMARY KEY (finished_at, id)
) PARTITION BY RANGE (finished_at);
CREATE INDEX prompt_runs_id_idx ON sametick.prompt_runs (org_id, id);
-- Newest first is by finished_at: ids of reviews are drawn ahead.
CREATE INDEX prompt_runs_org_idx ON sametick.prompt_runs (org_id, finished_at, id);
CREATE INDEX prompt_runs_hook_idx ON sametick.prompt_runs (org_id, hook_id, finished_at, id);
CREATE INDEX prompt_runs_event_idx ON sametick.prompt_runs (org_id, event_id, finished_at, id);
CREATE INDEX prompt_runs_aggregate_idx ON sametick.prompt_runs (org_id, aggregate_type, aggregate_id, finished_at, id);
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON sametick.prompt_runs
  FOR EACH ROW EXECUTE FUNCTION sametick.refuse_change();

-- What calls of models have taken of a UTC day, and may still take: of a hook, and (hook_id 0) of the organisation.
CREATE TABLE sametick.prompt_budgets (
  org_id       bigint NOT NULL,
  hook_id      bigint NOT NULL,
  day          date NOT NULL,
  spent_runs   bigint NOT NULL DEFAULT 0,
  spent_tokens bigint NOT NULL DEFAULT 0,
  spent_cost   bigint NOT NULL DEFAULT 0,
  held_runs    bigint NOT NULL DEFAULT 0,
  held_tokens  bigint NOT NULL DEFAULT 0,
  held_cost    bigint NOT NULL DEFAULT 0,
  PRIMARY KEY (org_id, hook_id, day)
) WITH (fillfactor = 50);

-- What is held of them, by attempt: until it is settled, or at its worst case (guessed) when nobody has by expires_at.
CREATE TABLE sametick.prompt_reservations (
  run_id     bigint NOT NULL,
  attempt    smallint NOT NULL,
  org_id     bigint NOT NULL,
  hook_id    bigint NOT NULL,
  day        date NOT NULL,
  tokens     bigint NOT NULL,
  cost       bigint NOT NULL,
  expires_at timestamptz NOT NULL,
  guessed    boolean NOT NULL DEFAULT false,
  PRIMARY KEY (run_id, attempt)
);
CREATE INDEX prompt_reservations_expiry_idx ON sametick.prompt_reservations (expires_at);

CREATE TABLE sametick.prompt_backtests (
  org_id           bigint NOT NULL,
  id               bigint NOT NULL,
  hook_id          bigint NOT NULL,
  template_version integer NOT NULL,
  status           text NOT NULL DEFAULT 'running' CHECK (status IN ('running', 'done', 'failed')),
  -- What was asked for and what has been found, as package hooks writes it.
  report           jsonb NOT NULL,
  created_at       timestamptz NOT NULL DEFAULT date_trunc('milliseconds', now()),
  finished_at      timestamptz,
  PRIMARY KEY (org_id, id)
);

-- Holds so much of the organisation's day and of the hook's, all of it or nothing: '' or whose budget does not cover
-- it, 'organisation' or 'hook'. Limits are of runs, tokens, cost; NULL bounds nothing. The organisation's row is always
-- locked first.
-- +goose StatementBegin
CREATE FUNCTION sametick.hold_prompt_budget(org bigint, hook bigint, on_day date, runs bigint, tokens bigint, cost bigint,
  org_limits bigint[], hook_limits bigint[]) RETURNS text
LANGUAGE plpgsql AS $$
DECLARE
  whose  bigint;
  limits bigint[];
BEGIN
  FOREACH whose IN ARRAY ARRAY[0, hook] LOOP
    limits := CASE WHEN whose = 0 THEN org_limits ELSE hook_limits END;
    INSERT INTO sametick.prompt_budgets (org_id, hook_id, day) VALUES (org, whose, on_day) ON CONFLICT DO NOTHING;
    UPDATE sametick.prompt_budgets b
       SET held_runs = held_runs + runs, held_tokens = held_tokens + tokens, held_cost = held_cost + cost
     WHERE b.org_id = org AND b.hook_id = whose AND b.day = on_day
       AND coalesce(spent_runs + held_runs + runs <= limits[1], true)
       AND coalesce(spent_tokens + held_tokens + tokens <= limits[2], true)
       AND coalesce(spent_cost + held_cost + cost <= limits[3], true);
    CONTINUE WHEN FOUND;
    IF whose = 0 THEN
      RETURN 'organisation';
    END IF;
    UPDATE sametick.prompt_budgets b
       SET held_runs = held_runs - runs, held_tokens = held_tokens - tokens, held_cost = held_cost - cost
     WHERE b.org_id = org AND b.hook_id = 0 AND b.day = on_day;
    RETURN 'hook';
  END LOOP;
  RETURN '';
END $$;
-- +goose StatementEnd

-- Makes the daily partitions of runs from yesterday to `ahead` days on; answers how many. Built alone and then
-- attached, which lets writers go on.
-- +goose StatementBegin
CREATE FUNCTION sametick.ensure_prompt_run_partitions(ahead integer DEFAULT 7) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  d    date;
  part text;
  made integer := 0;
BEGIN
  PERFORM pg_advisory_xact_lock(hashtext('sametick.partitions'), hashtext('prompt_runs'));
  FOR n IN -1..least(ahead, 60) LOOP
    d := (now() AT TIME ZONE 'UTC')::date + n;
    part := 'prompt_runs_' || to_char(d, 'YYYYMMDD');
    CONTINUE WHEN to_regclass('sametick.' || part) IS NOT NULL;
    EXECUTE format('CREATE TABLE sametick.%I (LIKE sametick.prompt_runs INCLUDING DEFAULTS INCLUDING CONSTRAINTS)', part);
    EXECUTE format('ALTER TABLE sametick.%I ADD CONSTRAINT bounds CHECK (finished_at >= %L AND finished_at < %L)', part,
      d || ' 00:00:00+00', d + 1 || ' 00:00:00+00');
    EXECUTE format('ALTER TABLE sametick.%I OWNER TO sametick_owner', part);
    EXECUTE format('ALTER TABLE sametick.%I ENABLE ROW LEVEL SECURITY', part);
    EXECUTE format('ALTER TABLE sametick.prompt_runs ATTACH PARTITION sametick.%I FOR VALUES FROM (%L) TO (%L)', part,
      d || ' 00:00:00+00', d + 1 || ' 00:00:00+00');
    EXECUTE format('ALTER TABLE sametick.%I DROP CONSTRAINT bounds', part);
    made := made + 1;
  END LOOP;
  RETURN made;
END $$;
-- +goose StatementEnd

-- Drops the oldest partition of runs when all of it is before keep_from; answers 0 or 1.
-- +goose StatementBegin
CREATE FUNCTION sametick.drop_prompt_run_partition(keep_from timestamptz) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  part text;
BEGIN
  PERFORM pg_advisory_xact_lock(hashtext('sametick.partitions'), hashtext('prompt_runs'));
  SELECT c.relname INTO part FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
   WHERE i.inhparent = 'sametick.prompt_runs'::regclass ORDER BY c.relname LIMIT 1;
  IF part IS NULL OR (to_date(right(part, 8), 'YYYYMMDD') + 1)::timestamp AT TIME ZONE 'UTC' > least(keep_from, now() - interval '1 day') THEN
    RETURN 0;
  END IF;
  PERFORM set_config('lock_timeout', '200ms', true);
  EXECUTE format('ALTER TABLE sametick.prompt_runs DETACH PARTITION sametick.%I', part);
  EXECUTE format('DROP TABLE sametick.%I', part);
  RETURN 1;
END $$;
-- +goose StatementEnd

GRANT SELECT, INSERT, UPDATE ON sametick.prompt_templates, sametick.prompt_providers, sametick.mcp_servers, sametick.prompt_hooks,
  sametick.prompt_budgets, sametick.prompt_backtests TO sametick_prompt;
GRANT SELECT, INSERT ON sametick.prompt_template_versions, sametick.prompt_runs TO sametick_prompt;
GRANT SELECT, INSERT, UPDATE, DELETE ON sametick.prompt_queue, sametick.prompt_reservations TO sametick_prompt;
GRANT EXECUTE ON FUNCTION sametick.ensure_prompt_run_partitions(integer), sametick.drop_prompt_run_partition(timestamptz),
  sametick.hold_prompt_budget(bigint, bigint, date, bigint, bigint, bigint, bigint[], bigint[]) TO sametick_prompt;

-- +goose StatementBegin
DO $$
DECLARE
  t text;
BEGIN
  FOREACH t IN ARRAY ARRAY['prompt_templates', 'prompt_template_versions', 'prompt_providers', 'mcp_servers', 'prompt_hooks', 'prompt_queue',
    'prompt_runs', 'prompt_budgets', 'prompt_reservations', 'prompt_backtests'] LOOP
    EXECUTE format('ALTER TABLE sametick.%I ENABLE ROW LEVEL SECURITY', t);
    EXECUTE format('CREATE POLICY org ON sametick.%I TO sametick_prompt USING (sametick.sees(org_id))', t);
  END LOOP;
END $$;
-- +goose StatementEnd

SELECT sametick.ensure_prompt_run_partitions();
RESET ROLE;
GRANT SELECT ON sametick.schema_prompt TO sametick_prompt;
