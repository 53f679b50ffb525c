-- +goose Up
SET LOCAL ROLE sametick_owner;
-- No function is anybody's unless a GRANT below says so.
ALTER DEFAULT PRIVILEGES FOR ROLE sametick_owner REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC;

-- The worker schedules and sends for all organisations, its API acts for one: sametick.sees tells which rows either
-- may touch, and a transaction that says neither sees nothing.

-- Ids of endpoints, secrets and replays, over all organisations.
CREATE SEQUENCE sametick.webhook_ids AS bigint;
-- Ids of deliveries, drawn in the transaction that schedules (CACHE 1): within a shard their order is that of
-- scheduling, which ordered endpoints rest on.
CREATE SEQUENCE sametick.webhook_delivery_ids AS bigint CACHE 1;
GRANT USAGE ON SEQUENCE sametick.webhook_ids, sametick.webhook_delivery_ids TO sametick_webhook;
GRANT SELECT ON SEQUENCE sametick.webhook_delivery_ids TO sametick_webhook;

CREATE TABLE sametick.webhook_endpoints (
  org_id          bigint NOT NULL,
  id              bigint NOT NULL,
  url             text NOT NULL,
  description     text NOT NULL DEFAULT '',
  event_types     text[] NOT NULL DEFAULT '{}',
  aggregate_types text[] NOT NULL DEFAULT '{}',
  aggregate_ids   bigint[] NOT NULL DEFAULT '{}',
  filter          text NOT NULL DEFAULT '',
  transform       text NOT NULL DEFAULT '',
  format          text NOT NULL DEFAULT 'standard' CHECK (format IN ('standard', 'cloudevents')),
  headers         jsonb NOT NULL DEFAULT '{}',
  rate_limit      integer CHECK (rate_limit > 0),
  ordered         boolean NOT NULL DEFAULT false,
  ed25519         boolean NOT NULL DEFAULT false,
  auth_kind       text NOT NULL DEFAULT 'none' CHECK (auth_kind IN ('none', 'basic', 'bearer')),
  -- What must stay secret is sealed under the key ring (pkg/keyring).
  auth_sealed     bytea,
  client_certificate text NOT NULL DEFAULT '',
  client_key_sealed  bytea,
  enabled         boolean NOT NULL DEFAULT true,
  disabled_reason text NOT NULL DEFAULT '',
  disabled_at     timestamptz,
  -- Since when every attempt has failed; NULL when the newest has not.
  failing_since   timestamptz,
  -- The position of its post_create event, once the scheduler has passed it: it gets what comes after.
  from_position   bigint,
  version         bigint NOT NULL DEFAULT 1,
  created_at      timestamptz NOT NULL DEFAULT date_trunc('milliseconds', now()),
  updated_at      timestamptz NOT NULL DEFAULT date_trunc('milliseconds', now()),
  archived_at     timestamptz,
  PRIMARY KEY (org_id, id)
);

-- The secrets that sign: those that have not expired, newest first.
CREATE TABLE sametick.webhook_secrets (
  org_id      bigint NOT NULL,
  endpoint_id bigint NOT NULL,
  id          bigint NOT NULL,
  -- v1 (HMAC-SHA256) or v1a (Ed25519).
  kind        text NOT NULL CHECK (kind IN ('v1', 'v1a')),
  sealed      bytea NOT NULL,
  -- whpk_… of a v1a key.
  public_key  text NOT NULL DEFAULT '',
  created_at  timestamptz NOT NULL DEFAULT date_trunc('milliseconds', now()),
  expires_at  timestamptz,
  PRIMARY KEY (org_id, endpoint_id, id)
);

-- What waits to be sent, and nothing else: a row goes when its delivery ends. Small, so that history slows nothing here.
-- One replica, the holder of the shard, works at a row; position names the event in pkg/stream.
CREATE TABLE sametick.webhook_queue (
  id            bigint PRIMARY KEY,
  org_id        bigint NOT NULL,
  shard         smallint NOT NULL,
  endpoint_id   bigint NOT NULL,
  event_id      bigint NOT NULL,
  position      bigint NOT NULL,
  event_type    text NOT NULL,
  trigger       text NOT NULL DEFAULT 'event' CHECK (trigger IN ('event', 'test', 'recover', 'replay', 'redeliver')),
  -- Made so far.
  attempts      smallint NOT NULL DEFAULT 0,
  due_at        timestamptz NOT NULL,
  -- The cause of the newest attempt.
  cause         text NOT NULL DEFAULT '',
  trace_context text NOT NULL DEFAULT '',
  created_at    timestamptz NOT NULL
) WITH (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_cost_delay = 0);
CREATE INDEX webhook_queue_due_idx ON sametick.webhook_queue (shard, endpoint_id, due_at, id);

-- Every attempt, for ever or until its partition is dropped. Append-only. The last of a delivery has an outcome
-- that is not retrying.
CREATE TABLE sametick.webhook_attempts (
  id               bigint GENERATED ALWAYS AS IDENTITY (CACHE 1),
  org_id           bigint NOT NULL,
  endpoint_id      bigint NOT NULL,
  delivery_id      bigint NOT NULL,
  event_id         bigint NOT NULL,
  position         bigint NOT NULL,
  event_type       text NOT NULL,
  trigger          text NOT NULL,
  -- 1 for the first; 0 when no request was made.
  attempt          smallint NOT NULL,
  outcome          text NOT NULL CHECK (outcome IN ('delivered', 'retrying', 'failed', 'cancelled')),
  cause            text NOT NULL DEFAULT '',
  error            text NOT NULL DEFAULT '',
  status           smallint,
  latency_us       bigint NOT NULL DEFAULT 0,
  request_headers  jsonb,
  response_headers jsonb,
  response_body    bytea,
  truncated        boolean NOT NULL DEFAULT false,
  next_at          timestamptz,
  -- When the delivery was scheduled, and when the attempt began.
  scheduled_at     timestamptz NOT NULL,
  created_at       timestamptz NOT NULL,
  PRIMARY KEY (id, created_at),
  -- What is saved again, because nobody knows whether it was, is there once.
  UNIQUE (delivery_id, attempt, created_at)
) PARTITION BY RANGE (created_at);
CREATE INDEX webhook_attempts_endpoint_idx ON sametick.webhook_attempts (org_id, endpoint_id, id);
CREATE INDEX webhook_attempts_event_idx ON sametick.webhook_attempts (org_id, event_id, id);
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON sametick.webhook_attempts
  FOR EACH ROW EXECUTE FUNCTION sametick.refuse_change();

-- Sending again on purpose: worked off by the holder of the shard, a batch a transaction.
CREATE TABLE sametick.webhook_replays (
  org_id      bigint NOT NULL,
  id          bigint NOT NULL,
  shard       smallint NOT NULL,
  endpoint_id bigint NOT NULL,
  kind        text NOT NULL CHECK (kind IN ('recover', 'replay')),
  status      text NOT NULL DEFAULT 'running' CHECK (status IN ('running', 'done', 'cancelled')),
  -- Only what happened, or was attempted, from then on; NULL for all.
  since       timestamptz,
  -- How far it has come and where it ends: positions of a replay, ids of attempts of a recovery.
  after       bigint NOT NULL DEFAULT 0,
  through     bigint NOT NULL,
  scheduled   bigint NOT NULL DEFAULT 0,
  created_at  timestamptz NOT NULL DEFAULT date_trunc('milliseconds', now()),
  finished_at timestamptz,
  PRIMARY KEY (org_id, id)
);
CREATE INDEX webhook_replays_running_idx ON sametick.webhook_replays (shard, id) WHERE status = 'running';
CREATE INDEX webhook_replays_endpoint_idx ON sametick.webhook_replays (org_id, endpoint_id, id);

-- Makes the daily partitions of attempts from yesterday to `ahead` days on; answers how many. Built alone and then
-- attached, which lets writers go on.
-- +goose StatementBegin
CREATE FUNCTION sametick.ensure_attempt_partitions(ahead integer DEFAULT 7) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  d    date;
  part text;
  made integer := 0;
BEGIN
  PERFORM pg_advisory_xact_lock(hashtext('sametick.partitions'), hashtext('webhook_attempts'));
  FOR n IN -1..least(ahead, 60) LOOP
    d := (now() AT TIME ZONE 'UTC')::date + n;
    part := 'webhook_attempts_' || to_char(d, 'YYYYMMDD');
    CONTINUE WHEN to_regclass('sametick.' || part) IS NOT NULL;
    EXECUTE format('CREATE TABLE sametick.%I (LIKE sametick.webhook_attempts INCLUDING DEFAULTS INCLUDING CONSTRAINTS)', part);
    EXECUTE format('ALTER TABLE sametick.%I ADD CONSTRAINT bounds CHECK (created_at >= %L AND created_at < %L)', part,
      d || ' 00:00:00+00', d + 1 || ' 00:00:00+00');
    EXECUTE format('ALTER TABLE sametick.%I OWNER TO sametick_owner', part);
    EXECUTE format('ALTER TABLE sametick.%I ENABLE ROW LEVEL SECURITY', part);
    EXECUTE format('ALTER TABLE sametick.webhook_attempts ATTACH PARTITION sametick.%I FOR VALUES FROM (%L) TO (%L)', part,
      d || ' 00:00:00+00', d + 1 || ' 00:00:00+00');
    EXECUTE format('ALTER TABLE sametick.%I DROP CONSTRAINT bounds', part);
    made := made + 1;
  END LOOP;
  RETURN made;
END $$;
-- +goose StatementEnd

-- Drops the oldest partition of attempts when all of it is before keep_from; answers 0 or 1.
-- +goose StatementBegin
CREATE FUNCTION sametick.drop_attempt_partition(keep_from timestamptz) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  part text;
BEGIN
  PERFORM pg_advisory_xact_lock(hashtext('sametick.partitions'), hashtext('webhook_attempts'));
  SELECT c.relname INTO part FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
   WHERE i.inhparent = 'sametick.webhook_attempts'::regclass ORDER BY c.relname LIMIT 1;
  IF part IS NULL OR (to_date(right(part, 8), 'YYYYMMDD') + 1)::timestamp AT TIME ZONE 'UTC' > least(keep_from, now() - interval '1 day') THEN
    RETURN 0;
  END IF;
  PERFORM set_config('lock_timeout', '200ms', true);
  EXECUTE format('ALTER TABLE sametick.webhook_attempts DETACH PARTITION sametick.%I', part);
  EXECUTE format('DROP TABLE sametick.%I', part);
  RETURN 1;
END $$;
-- +goose StatementEnd

GRANT SELECT, INSERT, UPDATE ON sametick.webhook_endpoints, sametick.webhook_secrets, sametick.webhook_replays TO sametick_webhook;
GRANT DELETE ON sametick.webhook_secrets TO sametick_webhook;
GRANT SELECT, INSERT, UPDATE, DELETE ON sametick.webhook_queue TO sametick_webhook;
GRANT SELECT, INSERT ON sametick.webhook_attempts TO sametick_webhook;
GRANT EXECUTE ON FUNCTION sametick.ensure_attempt_partitions(integer), sametick.drop_attempt_partition(timestamptz) TO sametick_webhook;

ALTER TABLE sametick.webhook_endpoints ENABLE ROW LEVEL SECURITY;
ALTER TABLE sametick.webhook_secrets ENABLE ROW LEVEL SECURITY;
ALTER TABLE sametick.webhook_queue ENABLE ROW LEVEL SECURITY;
ALTER TABLE sametick.webhook_attempts ENABLE ROW LEVEL SECURITY;
ALTER TABLE sametick.webhook_replays ENABLE ROW LEVEL SECURITY;
CREATE POLICY org ON sametick.webhook_endpoints TO sametick_webhook USING (sametick.sees(org_id));
CREATE POLICY org ON sametick.webhook_secrets TO sametick_webhook USING (sametick.sees(org_id));
CREATE POLICY org ON sametick.webhook_queue TO sametick_webhook USING (sametick.sees(org_id));
CREATE POLICY org ON sametick.webhook_attempts TO sametick_webhook USING (sametick.sees(org_id));
CREATE POLICY org ON sametick.webhook_replays TO sametick_webhook USING (sametick.sees(org_id));
-- TryEndpoint shows what becomes of a past event: of the one organisation that asks.
GRANT SELECT ON sametick.events TO sametick_webhook;
CREATE POLICY webhook ON sametick.events FOR SELECT TO sametick_webhook USING (org_id = sametick.current_org());

SELECT sametick.ensure_attempt_partitions();
RESET ROLE;
GRANT SELECT ON sametick.schema_webhook TO sametick_webhook;
