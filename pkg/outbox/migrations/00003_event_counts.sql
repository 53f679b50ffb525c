-- +goose Up
SET LOCAL ROLE sametick_owner;

-- Exact totals at any size. Ids are cut into blocks of 50,000; once nothing can be added to a block, its
-- events are counted, once and for all. A total is the sum over blocks and a count of the few events that
-- are in none yet, in one snapshot. Writers have nothing to do with it: no hot row.

-- Who did it, for filters: row-level security lets an index serve only what cannot leak, and jsonb's `->>` may.
ALTER TABLE sametick.events ADD COLUMN actor_id bigint GENERATED ALWAYS AS ((payload->>'actor_id')::bigint) STORED;

-- For the API: one kind of event, one actor, newest first.
CREATE INDEX events_kind_idx ON sametick.events (org_id, aggregate_type, event_type, id);
CREATE INDEX events_actor_idx ON sametick.events (org_id, actor_id, id) INCLUDE (aggregate_type, event_type) WHERE actor_id IS NOT NULL;

CREATE TABLE sametick.event_counts (
  org_id         bigint NOT NULL,
  -- Block b has the ids from 50000 b + 1 to 50000 (b + 1).
  block          bigint NOT NULL,
  aggregate_type text NOT NULL,
  event_type     text NOT NULL,
  count          bigint NOT NULL,
  PRIMARY KEY (org_id, block, aggregate_type, event_type)
);

-- The same by actor, of those alone who have a thousand events or more of a block: the others' are counted
-- when asked, and for all actors the rows would be nearly as many as events.
CREATE TABLE sametick.event_actor_counts (
  org_id         bigint NOT NULL,
  actor_id       bigint NOT NULL,
  block          bigint NOT NULL,
  aggregate_type text NOT NULL,
  event_type     text NOT NULL,
  count          bigint NOT NULL,
  PRIMARY KEY (org_id, actor_id, block, aggregate_type, event_type)
);

-- When the events of each tenth of a counted block happened, over all organisations; NULL when it has none.
-- Ids and times have nearly the same order, so a time is looked for in few parts.
CREATE TABLE sametick.event_times (
  part   bigint PRIMARY KEY,
  min_at timestamptz,
  max_at timestamptz
);

-- As in 00001, with generated columns and vacuum for index-only scans.
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION sametick.ensure_partitions(parent text, rows_each bigint DEFAULT 10000000, ahead bigint DEFAULT 50000000)
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
    EXECUTE format('CREATE TABLE sametick.%I (LIKE sametick.%I INCLUDING DEFAULTS INCLUDING CONSTRAINTS INCLUDING GENERATED)', part, parent);
    EXECUTE format('ALTER TABLE sametick.%I ADD CONSTRAINT bounds CHECK (id >= %s AND id < %s)', part, upper_bound, upper_bound + rows_each);
    EXECUTE format('ALTER TABLE sametick.%I OWNER TO sametick_owner', part);
    EXECUTE format('ALTER TABLE sametick.%I ENABLE ROW LEVEL SECURITY', part);
    -- Rows are only added, and what vacuum marks as visible to all is read from indexes alone: by Postgres'
    -- default it would come after two million rows.
    EXECUTE format('ALTER TABLE sametick.%I SET (autovacuum_vacuum_insert_scale_factor = 0, autovacuum_vacuum_insert_threshold = 200000)', part);
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

-- Counts one block. Its events must be settled, and it must not have been counted.
-- +goose StatementBegin
CREATE FUNCTION sametick.count_block(number bigint) RETURNS void
LANGUAGE sql SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
  INSERT INTO sametick.event_times (part, min_at, max_at)
  SELECT number * 10 + p, min(e.occurred_at), max(e.occurred_at)
    FROM generate_series(0, 9) p
    LEFT JOIN sametick.events e ON e.id > (number * 10 + p) * 5000 AND e.id <= (number * 10 + p + 1) * 5000
   GROUP BY p;
  INSERT INTO sametick.event_counts (org_id, block, aggregate_type, event_type, count)
  SELECT e.org_id, number, e.aggregate_type, e.event_type, count(*) FROM sametick.events e
   WHERE e.id > number * 50000 AND e.id <= (number + 1) * 50000 GROUP BY 1, 3, 4;
  INSERT INTO sametick.event_actor_counts (org_id, actor_id, block, aggregate_type, event_type, count)
  SELECT n.org_id, n.actor_id, number, n.aggregate_type, n.event_type, n.count FROM (
    SELECT e.org_id, e.actor_id, e.aggregate_type, e.event_type, count(*) AS count,
           sum(count(*)) OVER (PARTITION BY e.org_id, e.actor_id) AS own
      FROM sametick.events e WHERE e.id > number * 50000 AND e.id <= (number + 1) * 50000 AND e.actor_id IS NOT NULL
     GROUP BY 1, 2, 3, 4) n
   WHERE n.own >= 1000;
END;
-- +goose StatementEnd

-- Counts the next block if nothing can be added to it any more; tells whether it did. It takes nobody's word:
-- a transaction that still runs has an xid from xmin on, and one from a batch's claim_xid on draws ids
-- beyond that batch's max_id (see relay_batches). Two calls at once: the second finds the work done.
-- +goose StatementBegin
CREATE FUNCTION sametick.count_next_block() RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  next    bigint;
  settled bigint;
BEGIN
  PERFORM pg_advisory_xact_lock(hashtext('sametick.event_counts'), 0);
  SELECT coalesce(max(part) / 10 + 1, (SELECT coalesce(min(id) - 1, 0) / 50000 FROM sametick.events)) INTO next FROM sametick.event_times;
  SELECT b.max_id INTO settled FROM sametick.relay_batches b
   WHERE b.claim_xid <= pg_snapshot_xmin(pg_current_snapshot()) ORDER BY b.batch DESC LIMIT 1;
  IF settled IS NULL OR (next + 1) * 50000 > settled THEN
    RETURN false;
  END IF;
  PERFORM sametick.count_block(next);
  RETURN true;
END $$;
-- +goose StatementEnd

-- As in 00001, and the counts of what is dropped go with it.
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION sametick.drop_partitions(keep_from timestamptz, settled bigint)
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
  -- The block that the bound cuts through is counted again, without what is gone.
  DELETE FROM sametick.event_counts q WHERE q.block <= (p.upper_bound - 2) / 50000;
  DELETE FROM sametick.event_actor_counts q WHERE q.block <= (p.upper_bound - 2) / 50000;
  DELETE FROM sametick.event_times q WHERE q.part < (p.upper_bound - 2) / 50000 * 10
    AND q.part < (SELECT max(t.part) / 10 * 10 FROM sametick.event_times t);
  IF EXISTS (SELECT FROM sametick.event_times q WHERE q.part = (p.upper_bound - 2) / 50000 * 10) THEN
    DELETE FROM sametick.event_times q WHERE q.part / 10 = (p.upper_bound - 2) / 50000;
    PERFORM sametick.count_block((p.upper_bound - 2) / 50000);
  END IF;
  RETURN 1;
END $$;
-- +goose StatementEnd

GRANT EXECUTE ON FUNCTION sametick.count_next_block() TO sametick_relay;
GRANT SELECT ON sametick.event_counts, sametick.event_actor_counts, sametick.event_times TO sametick_api;
ALTER TABLE sametick.event_counts ENABLE ROW LEVEL SECURITY;
ALTER TABLE sametick.event_actor_counts ENABLE ROW LEVEL SECURITY;
CREATE POLICY org ON sametick.event_counts FOR SELECT TO sametick_api USING (org_id = sametick.current_org());
CREATE POLICY org ON sametick.event_actor_counts FOR SELECT TO sametick_api USING (org_id = sametick.current_org());
RESET ROLE;
