-- +goose Up

SET LOCAL ROLE sametick_owner;
-- No function is anybody's unless a GRANT below says so.
ALTER DEFAULT PRIVILEGES FOR ROLE sametick_owner REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC;

-- Ids of records, over all organisations and types. Replicas draw them in blocks, so a create knows
-- its id before it asks the database; gaps are normal and a larger id need not be newer.
CREATE SEQUENCE sametick.record_ids AS bigint;

CREATE TABLE sametick.records (
  org_id      bigint NOT NULL,
  type        text NOT NULL,
  id          bigint NOT NULL,
  name        text NOT NULL,
  attributes  jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(attributes) = 'object'),
  -- A column of its own, because row-level security lets an index serve only what cannot leak: text's
  -- `=` may run before the policy, jsonb's `->>` may not.
  external_id text GENERATED ALWAYS AS (
    CASE WHEN jsonb_typeof(attributes->'external_id') = 'string' THEN attributes->>'external_id' END) STORED,
  version     bigint NOT NULL DEFAULT 1,
  workflow_id bigint,
  step_id     bigint,
  created_at  timestamptz NOT NULL DEFAULT date_trunc('milliseconds', now()),
  updated_at  timestamptz NOT NULL DEFAULT date_trunc('milliseconds', now()),
  archived_at timestamptz,
  PRIMARY KEY (org_id, type, id)
);
CREATE UNIQUE INDEX records_external_id_key ON sametick.records (org_id, type, external_id) WHERE external_id IS NOT NULL;
CREATE INDEX records_newest_idx ON sametick.records (org_id, type, created_at DESC, id DESC);
CREATE INDEX records_workflow_idx ON sametick.records (org_id, type, workflow_id, created_at DESC, id DESC) WHERE workflow_id IS NOT NULL;

-- Users, organisations and API keys are records; what must stay secret of them is below. A user or key
-- is valid as long as its record is not archived.

CREATE TABLE sametick.credentials (
  org_id        bigint NOT NULL,
  user_id       bigint PRIMARY KEY,
  email         text NOT NULL,
  password_hash text NOT NULL,
  scopes        text[] NOT NULL
);
CREATE UNIQUE INDEX credentials_email_key ON sametick.credentials (lower(email));

CREATE TABLE sametick.api_keys (
  org_id       bigint NOT NULL,
  id           bigint PRIMARY KEY,
  hash         bytea NOT NULL UNIQUE,
  prefix       text NOT NULL,
  scopes       text[] NOT NULL,
  -- The user who made the key and in whose name it acts.
  user_id      bigint,
  created_at   timestamptz NOT NULL DEFAULT date_trunc('milliseconds', now()),
  expires_at   timestamptz,
  -- To the minute.
  last_used_at timestamptz
);
CREATE INDEX api_keys_org_idx ON sametick.api_keys (org_id, id);

CREATE TABLE sametick.refresh_tokens (
  org_id     bigint NOT NULL,
  hash       bytea PRIMARY KEY,
  user_id    bigint NOT NULL,
  -- All tokens that stem from one login.
  family     uuid NOT NULL,
  expires_at timestamptz NOT NULL,
  used_at    timestamptz,
  revoked_at timestamptz
);
CREATE INDEX refresh_tokens_family_idx ON sametick.refresh_tokens (family);
CREATE INDEX refresh_tokens_expiry_idx ON sametick.refresh_tokens (expires_at);

-- The four functions below answer before the organisation is known, each to one secret only, hence
-- SECURITY DEFINER.

-- The user who signs in with an email address.
-- +goose StatementBegin
CREATE FUNCTION sametick.find_credentials(address text)
RETURNS TABLE (org_id bigint, user_id bigint, user_name text, password_hash text, scopes text[])
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
  SELECT c.org_id, c.user_id, r.name, c.password_hash, c.scopes
    FROM sametick.credentials c
    JOIN sametick.records r ON r.org_id = c.org_id AND r.type = 'user' AND r.id = c.user_id AND r.archived_at IS NULL
   WHERE lower(c.email) = lower(address);
END;
-- +goose StatementEnd

-- The key with a hash, if neither it nor its user is archived.
-- +goose StatementBegin
CREATE FUNCTION sametick.find_api_key(key_hash bytea)
RETURNS TABLE (org_id bigint, id bigint, user_id bigint, scopes text[], expires_at timestamptz)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
  RETURN QUERY
    SELECT k.org_id, k.id, k.user_id, k.scopes, k.expires_at
      FROM sametick.api_keys k
      JOIN sametick.records r ON r.org_id = k.org_id AND r.type = 'api_key' AND r.id = k.id AND r.archived_at IS NULL
      LEFT JOIN sametick.records u ON u.org_id = k.org_id AND u.type = 'user' AND u.id = k.user_id
     WHERE k.hash = key_hash AND u.archived_at IS NULL;
  -- A row that another call is stamping is skipped: use never waits for use.
  UPDATE sametick.api_keys k SET last_used_at = date_trunc('minute', now())
   WHERE k.id = (SELECT q.id FROM sametick.api_keys q
                  WHERE q.hash = key_hash AND q.last_used_at IS DISTINCT FROM date_trunc('minute', now())
                    FOR UPDATE SKIP LOCKED);
END $$;
-- +goose StatementEnd

-- Takes a refresh token once and puts the next in its place. A second use, of which the thief or the
-- robbed may be the author, revokes the family (RFC 9700, 4.14.2). `outcome` is rotated, unknown,
-- expired, revoked or reused; it is an answer and no exception, so that the revocation stays.
-- +goose StatementBegin
CREATE FUNCTION sametick.rotate_refresh_token(old_hash bytea, new_hash bytea, new_expiry timestamptz)
RETURNS TABLE (outcome text, org_id bigint, user_id bigint, scopes text[])
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
  t sametick.refresh_tokens;
  c sametick.credentials;
BEGIN
  -- One change of a family at a time: else a revocation could miss the token that is being put in place.
  PERFORM pg_advisory_xact_lock(hashtextextended(q.family::text, 0)) FROM sametick.refresh_tokens q WHERE q.hash = old_hash;
  SELECT * INTO t FROM sametick.refresh_tokens q WHERE q.hash = old_hash;
  IF NOT FOUND THEN
    RETURN QUERY SELECT 'unknown', NULL::bigint, NULL::bigint, NULL::text[];
    RETURN;
  END IF;
  SELECT q.* INTO c FROM sametick.credentials q
    JOIN sametick.records r ON r.org_id = q.org_id AND r.type = 'user' AND r.id = q.user_id AND r.archived_at IS NULL
   WHERE q.user_id = t.user_id;
  IF t.revoked_at IS NOT NULL OR c.user_id IS NULL THEN
    RETURN QUERY SELECT 'revoked', NULL::bigint, NULL::bigint, NULL::text[];
  ELSIF t.used_at IS NOT NULL THEN
    UPDATE sametick.refresh_tokens q SET revoked_at = now() WHERE q.family = t.family AND q.revoked_at IS NULL;
    RETURN QUERY SELECT 'reused', NULL::bigint, NULL::bigint, NULL::text[];
  ELSIF t.expires_at <= now() THEN
    RETURN QUERY SELECT 'expired', NULL::bigint, NULL::bigint, NULL::text[];
  ELSE
    UPDATE sametick.refresh_tokens q SET used_at = now() WHERE q.hash = old_hash;
    INSERT INTO sametick.refresh_tokens (org_id, hash, user_id, family, expires_at)
    VALUES (t.org_id, new_hash, t.user_id, t.family, new_expiry);
    RETURN QUERY SELECT 'rotated', t.org_id, t.user_id, c.scopes;
  END IF;
END $$;
-- +goose StatementEnd

-- Ends the session that a refresh token belongs to; no row when it was none or had ended.
-- +goose StatementBegin
CREATE FUNCTION sametick.end_session(token_hash bytea)
RETURNS TABLE (org_id bigint, user_id bigint, user_name text)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
  t sametick.refresh_tokens;
BEGIN
  PERFORM pg_advisory_xact_lock(hashtextextended(q.family::text, 0)) FROM sametick.refresh_tokens q WHERE q.hash = token_hash;
  SELECT * INTO t FROM sametick.refresh_tokens q WHERE q.hash = token_hash;
  UPDATE sametick.refresh_tokens q SET revoked_at = now() WHERE q.family = t.family AND q.revoked_at IS NULL;
  IF FOUND THEN
    RETURN QUERY SELECT r.org_id, r.id, r.name FROM sametick.records r
      WHERE r.org_id = t.org_id AND r.type = 'user' AND r.id = t.user_id;
  END IF;
END $$;
-- +goose StatementEnd

GRANT USAGE ON SEQUENCE sametick.record_ids TO sametick_api;
GRANT SELECT, INSERT, UPDATE ON sametick.records TO sametick_api;
GRANT SELECT, INSERT ON sametick.credentials, sametick.api_keys TO sametick_api;
GRANT INSERT ON sametick.refresh_tokens TO sametick_api;
GRANT EXECUTE ON FUNCTION sametick.find_credentials(text), sametick.find_api_key(bytea),
  sametick.rotate_refresh_token(bytea, bytea, timestamptz), sametick.end_session(bytea) TO sametick_api;

ALTER TABLE sametick.records ENABLE ROW LEVEL SECURITY;
ALTER TABLE sametick.credentials ENABLE ROW LEVEL SECURITY;
ALTER TABLE sametick.api_keys ENABLE ROW LEVEL SECURITY;
ALTER TABLE sametick.refresh_tokens ENABLE ROW LEVEL SECURITY;
CREATE POLICY org ON sametick.records TO sametick_api USING (org_id = sametick.current_org());
CREATE POLICY org ON sametick.credentials TO sametick_api USING (org_id = sametick.current_org());
CREATE POLICY org ON sametick.api_keys TO sametick_api USING (org_id = sametick.current_org());
CREATE POLICY org ON sametick.refresh_tokens TO sametick_api USING (org_id = sametick.current_org());
RESET ROLE;
-- So that a service finds out what it can work with; made by whoever migrates.
GRANT SELECT ON sametick.schema_core, sametick.schema_api TO sametick_api;
