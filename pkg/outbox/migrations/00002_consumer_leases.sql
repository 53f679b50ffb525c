-- +goose Up
SET LOCAL ROLE sametick_owner;

-- The replicas of each durable consumer that live, so that each takes its share of the shards.
CREATE TABLE sametick.consumer_members (
  consumer   text NOT NULL,
  holder     text NOT NULL,
  expires_at timestamptz NOT NULL,
  PRIMARY KEY (consumer, holder)
) WITH (fillfactor = 50);

-- Which replica works at which shard. Economy only: exactness rests on the condition under which
-- consumer_cursors moves. Times are the database's.
CREATE TABLE sametick.consumer_leases (
  consumer   text NOT NULL,
  shard      smallint NOT NULL,
  holder     text NOT NULL,
  expires_at timestamptz NOT NULL,
  PRIMARY KEY (consumer, shard)
) WITH (fillfactor = 50);

GRANT SELECT, INSERT, UPDATE, DELETE ON sametick.consumer_members, sametick.consumer_leases
  TO sametick_webhook, sametick_prompt;
RESET ROLE;
