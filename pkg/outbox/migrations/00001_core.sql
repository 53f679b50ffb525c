-- +goose Up

-- Roles are the cluster's, not the database's: another database of this cluster may be making the
-- same ones at this moment, hence the two exceptions.
-- +goose StatementBegin
DO $$
DECLARE
  r text;
BEGIN
  FOREACH r IN ARRAY ARRAY['sametick_owner NOLOGIN', 'sametick_producer NOLOGIN', 'sametick_api LOGIN',
    'sametick_relay LOGIN', 'sametick_webhook LOGIN', 'sametick_prompt LOGIN'] LOOP
    BEGIN
      IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = split_part(r, ' ', 1)) THEN
        EXECUTE 'CREATE ROLE ' || r;
      END IF;
    EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL;
    END;
  END LOOP;
END $$;
-- +goose StatementEnd

-- Services look whether the schema is as new as they need.
GRANT SELECT ON sametick.schema_core TO sametick_api, sametick_relay, sametick_webhook, sametick_prompt;
ALTER SCHEMA sametick OWNER TO sametick_owner;
GRANT USAGE ON SCHEMA sametick TO sametick_producer, sametick_api, sametick_relay, sametick_webhook, sametick_prompt;
GRANT sametick_producer TO sametick_api, sametick_relay, sametick_webhook, sametick_prompt;
-- Objects belong to a role that nobody logs in as: the services cannot lift their own limits.
SET LOCAL ROLE sametick_owner;
-- No function is anybody's unless a GRANT below says so.
ALTER DEFAULT PRIVILEGES FOR ROLE sametick_owner REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC;

-- The organisation that this transaction acts for; NULL when none is set.
CREATE FUNCTION sametick.current_org() RETURNS bigint
LANGUAGE sql STABLE PARALLEL SAFE
RETURN nullif(current_setting('sametick.org_id', true), '')::bigint;
GRANT EXECUTE ON FUNCTION sametick.current_org() TO PUBLIC;

-- One organisation is one shard. event.ShardOf in Go is the same function.
CREATE FUNCTION sametick.shard_of(org_id bigint) RETURNS smallint
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
RETURN (((((org_id # (org_id >> 31)) & 2147483647) * 2654435761) >> 28) & 15)::smallint;
GRANT EXECUTE ON FUNCTION sametick.shard_of(bigint) TO PUBLIC;

-- The outbox and the history: one table. `id` is drawn while the aggregates' locks are held (CACHE 1,
-- so in the order of drawing), and after the transaction has its xid: the relay rests on both.
CREATE TABLE sametick.events (
  id             bigint GENERATED ALWAYS AS IDENTITY (CACHE 1),
  txid           xid8 NOT NULL DEFAULT pg_current_xact_id(),
  org_id         bigint NOT NULL,
  shard          smallint NOT NULL,
  aggregate_type text NOT NULL,
  aggregate_id   bigint NOT NULL,
  sequence       bigint NOT NULL,
  event_type     text NOT NULL,
  payload        jsonb NOT NULL,
  trace_context  text NOT NULL DEFAULT '',
  occurred_at    timestamptz NOT NULL,
  PRIMARY KEY (id)
) PARTITION BY RANGE (id);
-- For the relay: a snapshot's difference by txid, one transaction's rows in the order of ids.
CREATE INDEX events_txid_idx ON sametick.events (txid, id);
-- For the API: an organisation's events, newest first; one entity's history.
CREATE INDEX events_org_idx ON sametick.events (org_id, id);
CREATE INDEX events_aggregate_idx ON sametick.events (org_id, aggregate_type, aggregate_id, sequence);

-- The last sequence of each aggregate. Its row lock, held until commit, orders an entity's events.
CREATE TABLE sametick.aggregates (
  org_id   bigint NOT NULL,
  type     text NOT NULL,
  id       bigint NOT NULL,
  sequence bigint NOT NULL,
  PRIMARY KEY (org_id, type, id)
) WITH (fillfactor = 70);

CREATE TABLE sametick.audit_entries (
  id             bigint GENERATED ALWAYS AS IDENTITY (CACHE 1),
  org_id         bigint NOT NULL,
  actor_id       bigint,
  action         text NOT NULL,
  outcome        text NOT NULL CHECK (outcome IN ('applied', 'rejected', 'failed')),
  aggregate_type text NOT NULL,
  aggregate_id   bigint NOT NULL,
  event_ids      bigint[] NOT NULL,
  changes        jsonb,
  request_id     text,
  ip             inet,
  user_agent     text,
  occurred_at    timestamptz NOT NULL,
  PRIMARY KEY (id)
) PARTITION BY RANGE (id);
CREATE INDEX audit_entries_org_idx ON sametick.audit_entries (org_id, id);

-- +goose StatementBegin
CREATE FUNCTION sametick.refuse_change() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION '% on %.% refused: history is append-only', TG_OP, TG_TABLE_SCHEMA, TG_TABLE_NAME
    USING ERRCODE = 'insufficient_privilege', HINT = 'record a new event instead';
END $$;
-- +goose StatementEnd

CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON sametick.events
  FOR EACH ROW EXECUTE FUNCTION sametick.refuse_change();
CREATE TRIGGER append_only_truncate BEFORE TRUNCATE ON sametick.events
  FOR EACH STATEMENT EXECUTE FUNCTION sametick.refuse_change();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON sametick.audit_entries
  FOR EACH ROW EXECUTE FUNCTION sametick.refuse_change();
CREATE TRIGGER append_only_truncate BEFORE TRUNCATE ON sametick.audit_entries
  FOR EACH STATEMENT EXECUTE FUNCTION sametick.refuse_change();

-- The relay's ledger: one row a batch, its newest row is the cursor. See
-- services/outbox-relay/internal/sequence for what the columns mean together.
CREATE TABLE sametick.relay_batches (
  batch             bigint PRIMARY KEY,
  -- All rows visible in it have positions.
  snapshot          pg_snapshot NOT NULL,
  -- While a backlog is paged: the snapshot it is paged in, and the last id taken.
  paging            pg_snapshot,
  page_after        bigint,
  -- The greatest event id visible in `snapshot`.
  max_id            bigint NOT NULL,
  -- Drawn after `snapshot`: a transaction from here on draws event ids beyond max_id.
  claim_xid         xid8 NOT NULL DEFAULT pg_current_xact_id(),
  -- Rows up to this id are settled whatever their txid says (see rebase).
  base_id           bigint NOT NULL DEFAULT 0,
  -- The newest position of each shard after this batch, by shard + 1.
  positions         bigint[] NOT NULL,
  system_identifier bigint NOT NULL,
  timeline          integer NOT NULL,
  claimed_at        timestamptz NOT NULL DEFAULT clock_timestamp(),
  -- A snapshot from before a crash may name ids that are given out again: then it is no cursor.
  CONSTRAINT snapshot_is_past CHECK (claim_xid >= pg_snapshot_xmax(coalesce(paging, snapshot)) AND claim_xid >= pg_snapshot_xmax(snapshot)),
  CONSTRAINT positions_of_all_shards CHECK (cardinality(positions) = 16)
);
CREATE INDEX relay_batches_claimed_at_idx ON sametick.relay_batches USING brin (claimed_at);

CREATE TABLE sametick.positions (
  shard    smallint NOT NULL,
  position bigint NOT NULL,
  event_id bigint NOT NULL,
  PRIMARY KEY (shard, position)
);

-- How far each durable consumer has come; moved in the transaction that commits what it derived.
CREATE TABLE sametick.consumer_cursors (
  consumer text NOT NULL,
  shard    smallint NOT NULL,
  position bigint NOT NULL,
  PRIMARY KEY (consumer, shard)
) WITH (fillfactor = 50);

-- Makes the partitions that ids up to `ahead` beyond the sequence need; answers how many it made.
-- A partition is built alone and then attached, which lets writers go on (ATTACH takes SHARE UPDATE
-- EXCLUSIVE; CREATE … PARTITION OF would take ACCESS EXCLUSIVE).
-- +goose StatementBegin
CREATE FUNCTION sametick.ensure_partitions(parent text, rows_each bigint DEFAULT 10000000, ahead bigint DEFAULT 50000000)
RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  upper_bound bigint;
  drawn       bigint;
  part        text;
  made        integer := 0;
BEGIN
  IF parent NOT IN ('events', 'audit_entries') THEN
    RAISE EXCEPTION 'no partitions are kept for %', parent USING ERRCODE = 'invalid_parameter_value';
  END IF;
  IF rows_each < 1 OR ahead < 1 THEN
    RAISE EXCEPTION 'rows_each and ahead must be at least 1' USING ERRCODE = 'invalid_parameter_value';
  END IF;
  PERFORM pg_advisory_xact_lock(hashtext('sametick.partitions'), hashtext(parent));
  SELECT coalesce(max((regexp_match(pg_get_expr(c.relpartbound, c.oid), 'TO \(''?(\d+)'))[1]::bigint), 1)
    INTO upper_bound
    FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
   WHERE i.inhparent = ('sametick.' || parent)::regclass;
  drawn := coalesce(pg_sequence_last_value(pg_get_serial_sequence('sametick.' || parent, 'id')::regclass), 0);
  WHILE upper_bound <= drawn + ahead LOOP
    part := format('%s_%s', parent, upper_bound);
    EXECUTE format('CREATE TABLE sametick.%I (LIKE sametick.%I INCLUDING DEFAULTS INCLUDING CONSTRAINTS)', part, parent);
    EXECUTE format('ALTER TABLE sametick.%I ADD CONSTRAINT bounds CHECK (id >= %s AND id < %s)', part, upper_bound, upper_bound + rows_each);
    EXECUTE format('ALTER TABLE sametick.%I OWNER TO sametick_owner', part);
    EXECUTE format('ALTER TABLE sametick.%I ENABLE ROW LEVEL SECURITY', part);
    -- A statement trigger of the parent does not reach its partitions.
    EXECUTE format('CREATE TRIGGER append_only_truncate BEFORE TRUNCATE ON sametick.%I FOR EACH STATEMENT EXECUTE FUNCTION sametick.refuse_change()', part);
    EXECUTE format('ALTER TABLE sametick.%I ATTACH PARTITION sametick.%I FOR VALUES FROM (%s) TO (%s)', parent, part, upper_bound, upper_bound + rows_each);
    EXECUTE format('ALTER TABLE sametick.%I DROP CONSTRAINT bounds', part);
    upper_bound := upper_bound + rows_each;
    made := made + 1;
  END LOOP;
  RETURN made;
END $$;
-- +goose StatementEnd

-- Drops the oldest partition of events when all of it is before `keep_from` and up to `settled`; answers
-- how many it dropped, 0 or 1. It does not take the caller's word alone: a partition stays that is the newest with rows,
-- that has an event without a position, or one that some consumer has not passed.
--
-- The positions go with it, of each shard all up to the greatest dropped: positions and ids have not the
-- same order, and what is missing between two that are kept would be a silent hole. DETACH locks out all
-- writers, and queues them behind any open transaction, so it comes last and gives up soon: the next
-- call tries again.
-- +goose StatementBegin
CREATE FUNCTION sametick.drop_partitions(keep_from timestamptz, settled bigint)
RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  p      record;
  b      record;
  newest timestamptz;
  open   boolean;
  s      record;
BEGIN
  PERFORM pg_advisory_xact_lock(hashtext('sametick.partitions'), hashtext('events'));
  SELECT c.oid::regclass AS name, (regexp_match(pg_get_expr(c.relpartbound, c.oid), 'TO \(''?(\d+)'))[1]::bigint AS upper_bound
    INTO p FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
   WHERE i.inhparent = 'sametick.events'::regclass ORDER BY upper_bound LIMIT 1;
  SELECT q.snapshot, q.base_id INTO b FROM sametick.relay_batches q ORDER BY q.batch DESC LIMIT 1;
  IF p.upper_bound - 1 > settled OR b.snapshot IS NULL OR NOT EXISTS (SELECT FROM sametick.events e WHERE e.id >= p.upper_bound) THEN
    RETURN 0;
  END IF;
  EXECUTE format('SELECT occurred_at FROM %s ORDER BY id DESC LIMIT 1', p.name) INTO newest;
  EXECUTE format('SELECT EXISTS (SELECT FROM %s WHERE txid >= pg_snapshot_xmin($1) AND NOT pg_visible_in_snapshot(txid, $1) AND id > $2)', p.name)
    INTO open USING b.snapshot, b.base_id;
  IF open OR newest >= keep_from THEN
    RETURN 0;
  END IF;

  PERFORM set_config('lock_timeout', '200ms', true);
  BEGIN -- is there a chance? Then let go again.
    LOCK TABLE sametick.events IN ACCESS EXCLUSIVE MODE;
    RAISE EXCEPTION 'free' USING ERRCODE = 'STFRE';
  EXCEPTION WHEN SQLSTATE 'STFRE' THEN NULL;
  END;
  FOR s IN SELECT q.shard, max(q.position) AS through FROM sametick.positions q WHERE q.event_id < p.upper_bound GROUP BY q.shard LOOP
    IF EXISTS (SELECT FROM (SELECT DISTINCT consumer FROM sametick.consumer_cursors) n
                 LEFT JOIN sametick.consumer_cursors c ON c.consumer = n.consumer AND c.shard = s.shard
                WHERE coalesce(c.position, 0) < s.through) THEN
      RAISE EXCEPTION 'a consumer has not passed position % of shard %', s.through, s.shard USING ERRCODE = 'object_in_use';
    END IF;
    DELETE FROM sametick.positions q WHERE q.shard = s.shard AND q.position <= s.through;
  END LOOP;
  EXECUTE format('ALTER TABLE sametick.events DETACH PARTITION %s', p.name);
  EXECUTE format('DROP TABLE %s', p.name);
  RETURN 1;
END $$;
-- +goose StatementEnd

-- Records events, and one audit entry for each aggregate that they are about, in the caller's
-- transaction. `events` is an array of objects:
--   org_id, aggregate_type, aggregate_id, action        required
--   event_type      default aggregate_type.action
--   record_name, workflow_id, workflow_name, step_id, step_name, changes
--   extra           an object whose keys join the payload beside the EventContext
-- An event is at most 2 MiB, printed: each reader has to hold one.
-- `context` holds what all of them share: actor_id, request_id, ip, user_agent, traceparent,
-- outcome (applied, rejected, failed; default applied).
-- Answers one row an event, in their order. Every producer comes through here, in any language.
-- +goose StatementBegin
CREATE FUNCTION sametick.record_events(events jsonb, context jsonb DEFAULT '{}')
RETURNS TABLE (ord integer, id bigint, sequence bigint)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
-- Plain single-row statements in loops, because one statement with CTEs took 1.1 times as long for a
-- create's two events and 6 times as long for 2,000 (its joins are on windows, without an index).
DECLARE
  at      timestamptz := date_trunc('milliseconds', clock_timestamp());
  stamp   text := to_char(at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"');
  org     bigint := sametick.current_org();
  actor   jsonb := coalesce(context->'actor_id', 'null');
  trace   text := left(coalesce(context->>'traceparent', ''), 200);
  name    CONSTANT text := '^[a-z][a-z0-9_]{0,62}$';
  g       record;               -- one aggregate and the ordinals of its events
  e       jsonb;
  last    bigint;               -- an aggregate's sequence after this call
  n       integer;
  prev    integer[] := '{}';    -- the event before it of the same aggregate, 0 for its first
  newest  boolean[] := '{}';    -- whether it is the last of its aggregate
  seqs    bigint[] := '{}';
  ids     bigint[] := '{}';
  own     bigint[];
  changes jsonb;
BEGIN
  IF jsonb_typeof(events) IS DISTINCT FROM 'array' OR jsonb_typeof(context) IS DISTINCT FROM 'object'
     OR jsonb_typeof(actor) NOT IN ('number', 'null') THEN
    RAISE EXCEPTION 'events must be a JSON array and context a JSON object, its actor_id a number' USING ERRCODE = 'invalid_parameter_value';
  END IF;

  -- Lock in key order (no deadlock between calls) before any event id is drawn (ids in the order of
  -- commits); the first of these statements also gives the transaction its xid.
  FOR g IN
    SELECT (t.e->>'org_id')::bigint AS org_id, t.e->>'aggregate_type' AS type, (t.e->>'aggregate_id')::bigint AS id,
           array_agg(t.o::integer ORDER BY t.o) AS ords
      FROM jsonb_array_elements(events) WITH ORDINALITY AS t(e, o)
     GROUP BY 1, 2, 3 ORDER BY 1, 2, 3
  LOOP
    IF (g.org_id > 0 AND g.id > 0 AND g.type ~ name) IS NOT TRUE THEN
      RAISE EXCEPTION 'not an event: org_id %, aggregate_type %, aggregate_id %', g.org_id, quote_nullable(left(g.type, 100)), g.id
        USING ERRCODE = 'invalid_parameter_value',
          HINT = 'org_id and aggregate_id are positive numbers, aggregate_type matches [a-z][a-z0-9_]*, at most 63 characters';
    END IF;
    -- A transaction that acts for one organisation cannot write another's history.
    IF org <> g.org_id THEN
      RAISE EXCEPTION 'an event of organisation % in a transaction of sametick.org_id = %', g.org_id, org
        USING ERRCODE = 'insufficient_privilege';
    END IF;
    n := cardinality(g.ords);
    INSERT INTO sametick.aggregates AS a (org_id, type, id, sequence) VALUES (g.org_id, g.type, g.id, n)
    ON CONFLICT ON CONSTRAINT aggregates_pkey DO UPDATE SET sequence = a.sequence + excluded.sequence
    RETURNING a.sequence INTO last;
    FOR k IN 1..n LOOP
      prev[g.ords[k]] := CASE WHEN k = 1 THEN 0 ELSE g.ords[k - 1] END;
      newest[g.ords[k]] := k = n;
      seqs[g.ords[k]] := last - n + k;
    END LOOP;
  END LOOP;

  FOR o IN 1..jsonb_array_length(events) LOOP
    e := events->(o - 1);
    -- The stored size first, then numbers, of which a few bytes can print as 131,072 digits; only then is
    -- printing safe. A single event that cannot be printed would stop the relay for everybody.
    IF pg_column_size(e) > 2097152
       OR (e ? 'changes' OR e ? 'extra') AND jsonb_path_exists(e, '$.**?(@.type() == "number" && (@ > 1e308 || @ < -1e308 || (@ != 0 && @ < 1e-308 && @ > -1e-308)))')
       OR octet_length(e::text) > 2097152 THEN
      RAISE EXCEPTION 'event of % % is too large', e->>'aggregate_type', e->>'aggregate_id' USING ERRCODE = 'program_limit_exceeded',
        HINT = 'an event is at most 2 MiB as text, and its numbers are between 1e-308 and 1e308';
    END IF;
    IF (jsonb_typeof(e->'org_id') = 'number' AND jsonb_typeof(e->'aggregate_id') = 'number'
        AND coalesce(jsonb_typeof(e->'record_name'), 'null') IN ('string', 'null')
        AND coalesce(jsonb_typeof(e->'workflow_name'), 'null') IN ('string', 'null')
        AND coalesce(jsonb_typeof(e->'step_name'), 'null') IN ('string', 'null')
        AND coalesce(jsonb_typeof(e->'workflow_id'), 'null') IN ('number', 'null')
        AND coalesce(jsonb_typeof(e->'step_id'), 'null') IN ('number', 'null')
        AND e->>'action' ~ name AND coalesce(e->>'event_type', 'a.b') ~ '^[a-z][a-z0-9_]{0,62}\.[a-z][a-z0-9_]{0,62}$'
        AND coalesce(jsonb_typeof(e->'changes'), 'null') IN ('object', 'null')
        AND coalesce(jsonb_typeof(e->'extra'), 'null') IN ('object', 'null')) IS NOT TRUE THEN
      RAISE EXCEPTION 'not an event: %', left(e::text, 200) USING ERRCODE = 'invalid_parameter_value',
        HINT = 'action matches [a-z][a-z0-9_]*, event_type is two such words with a dot, changes and extra are objects, ids numbers, names strings';
    END IF;
    INSERT INTO sametick.events (org_id, shard, aggregate_type, aggregate_id, sequence, event_type, payload, trace_context, occurred_at)
    VALUES ((e->>'org_id')::bigint, sametick.shard_of((e->>'org_id')::bigint), e->>'aggregate_type', (e->>'aggregate_id')::bigint, seqs[o],
      coalesce(e->>'event_type', (e->>'aggregate_type') || '.' || (e->>'action')),
      coalesce(nullif(e->'extra', 'null'), '{}') - ARRAY['org_id', 'actor_id', 'workflow_id', 'workflow_name', 'step_id', 'step_name',
          'record_id', 'record_type', 'record_name', 'action', 'timestamp', 'changes']
        || jsonb_strip_nulls(jsonb_build_object(
             'workflow_id', e->'workflow_id', 'workflow_name', e->'workflow_name', 'step_id', e->'step_id',
             'step_name', e->'step_name', 'record_name', e->'record_name'))
        || CASE WHEN jsonb_typeof(e->'changes') = 'object' THEN jsonb_build_object('changes', e->'changes') ELSE '{}' END
        || jsonb_build_object('org_id', e->'org_id', 'actor_id', actor, 'record_id', e->'aggregate_id',
             'record_type', e->'aggregate_type', 'action', e->'action', 'timestamp', stamp),
      trace, at)
    RETURNING events.id INTO last;
    ids[o] := last;
  END LOOP;

  FOR o IN 1..cardinality(ids) LOOP
    CONTINUE WHEN NOT newest[o];
    n := o;
    own := '{}';
    changes := NULL;
    WHILE n > 0 LOOP
      own := ids[n] || own;
      changes := coalesce(changes, nullif(events->(n - 1)->'changes', 'null'));
      n := prev[n];
    END LOOP;
    e := events->(o - 1);
    INSERT INTO sametick.audit_entries (org_id, actor_id, action, outcome, aggregate_type, aggregate_id,
      event_ids, changes, request_id, ip, user_agent, occurred_at)
    VALUES ((e->>'org_id')::bigint, (context->>'actor_id')::bigint, regexp_replace(e->>'action', '^(pre|post)_', ''),
      coalesce(context->>'outcome', 'applied'), e->>'aggregate_type', (e->>'aggregate_id')::bigint, own, changes,
      left(context->>'request_id', 200), (context->>'ip')::inet, left(context->>'user_agent', 1000), at);
  END LOOP;

  RETURN QUERY SELECT t.o::integer, t.i, seqs[t.o] FROM unnest(ids) WITH ORDINALITY AS t(i, o) ORDER BY t.o;
END $$;
-- +goose StatementEnd

-- One event, for psql and for languages without a client: answers its id.
-- +goose StatementBegin
CREATE FUNCTION sametick.record_event(
  org_id bigint, aggregate_type text, aggregate_id bigint, action text,
  actor_id bigint DEFAULT NULL, record_name text DEFAULT NULL, changes jsonb DEFAULT NULL,
  extra jsonb DEFAULT NULL, context jsonb DEFAULT '{}')
RETURNS bigint
LANGUAGE sql
BEGIN ATOMIC
  SELECT r.id FROM sametick.record_events(
    jsonb_build_array(jsonb_strip_nulls(jsonb_build_object('org_id', org_id, 'aggregate_type', aggregate_type,
      'aggregate_id', aggregate_id, 'action', action, 'record_name', record_name))
      || CASE WHEN changes IS NULL THEN '{}' ELSE jsonb_build_object('changes', changes) END
      || CASE WHEN extra IS NULL THEN '{}' ELSE jsonb_build_object('extra', extra) END),
    context || CASE WHEN actor_id IS NULL THEN '{}' ELSE jsonb_build_object('actor_id', actor_id) END) r;
END;
-- +goose StatementEnd

GRANT EXECUTE ON FUNCTION sametick.record_events(jsonb, jsonb) TO sametick_producer;
GRANT EXECUTE ON FUNCTION sametick.record_event(bigint, text, bigint, text, bigint, text, jsonb, jsonb, jsonb) TO sametick_producer;
GRANT EXECUTE ON FUNCTION sametick.ensure_partitions(text, bigint, bigint), sametick.drop_partitions(timestamptz, bigint) TO sametick_relay;
GRANT SELECT ON sametick.events TO sametick_api, sametick_relay;
GRANT SELECT ON sametick.audit_entries TO sametick_api;
GRANT SELECT, INSERT ON sametick.relay_batches, sametick.positions TO sametick_relay;
-- Retention ends the ledger's and the log's old end.
GRANT DELETE ON sametick.relay_batches, sametick.positions TO sametick_relay;
GRANT SELECT, INSERT, UPDATE ON sametick.consumer_cursors TO sametick_webhook, sametick_prompt;
GRANT SELECT ON sametick.consumer_cursors TO sametick_relay;

ALTER TABLE sametick.events ENABLE ROW LEVEL SECURITY;
ALTER TABLE sametick.aggregates ENABLE ROW LEVEL SECURITY;
ALTER TABLE sametick.audit_entries ENABLE ROW LEVEL SECURITY;
CREATE POLICY org ON sametick.events FOR SELECT TO sametick_api USING (org_id = sametick.current_org());
CREATE POLICY relay ON sametick.events FOR SELECT TO sametick_relay USING (true);
CREATE POLICY org ON sametick.audit_entries FOR SELECT TO sametick_api USING (org_id = sametick.current_org());

SELECT sametick.ensure_partitions('events'), sametick.ensure_partitions('audit_entries');
RESET ROLE;
