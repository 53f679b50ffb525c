-- +goose Up
SET LOCAL ROLE sametick_owner;

-- The answers of calls that carried an Idempotency-Key, for 24 hours: each in the transaction of the service that
-- did the call. Only the key's hash is here, and the answer is encrypted under the key itself: who has the database
-- alone learns nothing of either.
CREATE TABLE sametick.idempotency_keys (
  org_id       bigint NOT NULL,
  caller       text NOT NULL,
  key_hash     bytea NOT NULL,
  request_hash bytea NOT NULL,
  answer       bytea,
  created_at   timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (org_id, caller, key_hash)
);
CREATE INDEX idempotency_keys_created_idx ON sametick.idempotency_keys (created_at);

-- Ends up to n of all organisations' keys that are too old to be asked for.
-- +goose StatementBegin
CREATE FUNCTION sametick.forget_idempotency_keys(n integer) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
  DELETE FROM sametick.idempotency_keys k USING (
    SELECT q.org_id, q.caller, q.key_hash FROM sametick.idempotency_keys q
     WHERE q.created_at < now() - interval '25 hours' LIMIT least(n, 1000) FOR UPDATE SKIP LOCKED) old
   WHERE k.org_id = old.org_id AND k.caller = old.caller AND k.key_hash = old.key_hash;
END;
-- +goose StatementEnd

GRANT SELECT, INSERT, UPDATE ON sametick.idempotency_keys TO sametick_api, sametick_webhook, sametick_prompt;
GRANT EXECUTE ON FUNCTION sametick.forget_idempotency_keys(integer) TO sametick_api, sametick_webhook, sametick_prompt;
ALTER TABLE sametick.idempotency_keys ENABLE ROW LEVEL SECURITY;
CREATE POLICY org ON sametick.idempotency_keys TO sametick_api, sametick_webhook, sametick_prompt USING (org_id = sametick.current_org());
RESET ROLE;
