-- +goose Up
SET LOCAL ROLE sametick_owner;

-- Exact totals of the audit log, as 00003 has them of events: blocks of 50,000 ids, counted once nothing can be
-- added to them. What says so here are the sealer's heads (00004): where nothing is sealed nothing is counted, and
-- totals are as exact, but slow.

-- For the API: one actor's, one entity's, one request's. Making them reads the table, while writers wait.
CREATE INDEX audit_entries_actor_idx ON sametick.audit_entries (org_id, actor_id, id) INCLUDE (aggregate_type, action, outcome) WHERE actor_id IS NOT NULL;
CREATE INDEX audit_entries_entity_idx ON sametick.audit_entries (org_id, aggregate_id, id);
CREATE INDEX audit_entries_request_idx ON sametick.audit_entries (org_id, request_id, id) WHERE request_id IS NOT NULL;

CREATE TABLE sametick.entry_counts (
  org_id         bigint NOT NULL,
  -- Block b has the ids from 50000 b + 1 to 50000 (b + 1).
  block          bigint NOT NULL,
  aggregate_type text NOT NULL,
  action         text NOT NULL,
  outcome        text NOT NULL,
  count          bigint NOT NULL,
  PRIMARY KEY (org_id, block, aggregate_type, action, outcome)
);

-- Of those actors alone who have a thousand entries or more of a block.
CREATE TABLE sametick.entry_actor_counts (
  org_id         bigint NOT NULL,
  actor_id       bigint NOT NULL,
  block          bigint NOT NULL,
  aggregate_type text NOT NULL,
  action         text NOT NULL,
  outcome        text NOT NULL,
  count          bigint NOT NULL,
  PRIMARY KEY (org_id, actor_id, block, aggregate_type, action, outcome)
);

-- When the entries of each tenth of a counted block happened, over all organisations; NULL when it has none.
CREATE TABLE sametick.entry_times (
  part   bigint PRIMARY KEY,
  min_at timestamptz,
  max_at timestamptz
);

-- Counts one block. Its entries must be settled, and it must not have been counted.
-- +goose StatementBegin
CREATE FUNCTION sametick.count_entry_block(number bigint) RETURNS void
LANGUAGE sql SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
  INSERT INTO sametick.entry_times (part, min_at, max_at)
  SELECT number * 10 + p, min(e.occurred_at), max(e.occurred_at)
    FROM generate_series(0, 9) p
    LEFT JOIN sametick.audit_entries e ON e.id > (number * 10 + p) * 5000 AND e.id <= (number * 10 + p + 1) * 5000
   GROUP BY p;
  INSERT INTO sametick.entry_counts (org_id, block, aggregate_type, action, outcome, count)
  SELECT e.org_id, number, e.aggregate_type, e.action, e.outcome, count(*) FROM sametick.audit_entries e
   WHERE e.id > number * 50000 AND e.id <= (number + 1) * 50000 GROUP BY 1, 3, 4, 5;
  INSERT INTO sametick.entry_actor_counts (org_id, actor_id, block, aggregate_type, action, outcome, count)
  SELECT n.org_id, n.actor_id, number, n.aggregate_type, n.action, n.outcome, n.count FROM (
    SELECT e.org_id, e.actor_id, e.aggregate_type, e.action, e.outcome, count(*) AS count,
           sum(count(*)) OVER (PARTITION BY e.org_id, e.actor_id) AS own
      FROM sametick.audit_entries e WHERE e.id > number * 50000 AND e.id <= (number + 1) * 50000 AND e.actor_id IS NOT NULL
     GROUP BY 1, 2, 3, 4, 5) n
   WHERE n.own >= 1000;
END;
-- +goose StatementEnd

-- Counts the next block if nothing can be added to it any more; tells whether it did. It takes nobody's word: a
-- transaction that still runs has an xid from xmin on, and one from a head's claim_xid on draws ids beyond that
-- head's max_id. Two calls at once: the second finds the work done.
-- +goose StatementBegin
CREATE FUNCTION sametick.count_next_entry_block() RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  next    bigint;
  settled bigint;
BEGIN
  PERFORM pg_advisory_xact_lock(hashtext('sametick.entry_counts'), 0);
  SELECT coalesce(max(part) / 10 + 1, (SELECT coalesce(min(id) - 1, 0) / 50000 FROM sametick.audit_entries)) INTO next FROM sametick.entry_times;
  SELECT h.max_id INTO settled FROM sametick.audit_heads h
   WHERE h.claim_xid <= pg_snapshot_xmin(pg_current_snapshot()) ORDER BY h.seal DESC LIMIT 1;
  IF settled IS NULL OR (next + 1) * 50000 > settled THEN
    RETURN false;
  END IF;
  PERFORM sametick.count_entry_block(next);
  RETURN true;
END $$;
-- +goose StatementEnd

GRANT EXECUTE ON FUNCTION sametick.count_next_entry_block() TO sametick_relay;
GRANT SELECT ON sametick.entry_counts, sametick.entry_actor_counts, sametick.entry_times TO sametick_api;
ALTER TABLE sametick.entry_counts ENABLE ROW LEVEL SECURITY;
ALTER TABLE sametick.entry_actor_counts ENABLE ROW LEVEL SECURITY;
CREATE POLICY org ON sametick.entry_counts FOR SELECT TO sametick_api USING (org_id = sametick.current_org());
CREATE POLICY org ON sametick.entry_actor_counts FOR SELECT TO sametick_api USING (org_id = sametick.current_org());
RESET ROLE;
