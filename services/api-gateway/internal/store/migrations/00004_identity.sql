-- +goose Up

SET LOCAL ROLE sametick_owner;

-- Roles are records too: name and archival are the record's. A user's scopes are the union of their roles'.
CREATE TABLE sametick.roles (
  org_id        bigint NOT NULL,
  id            bigint PRIMARY KEY,
  scopes        text[] NOT NULL,
  -- The built-in role with every scope.
  administrator boolean NOT NULL DEFAULT false
);
CREATE INDEX roles_org_idx ON sametick.roles (org_id, id);
CREATE UNIQUE INDEX roles_administrator_key ON sametick.roles (org_id) WHERE administrator;

CREATE TABLE sametick.user_roles (
  org_id  bigint NOT NULL,
  user_id bigint NOT NULL,
  role_id bigint NOT NULL,
  PRIMARY KEY (user_id, role_id)
);
CREATE INDEX user_roles_org_idx ON sametick.user_roles (org_id, role_id);

-- A session is a login and all refresh tokens that stem from it: its id is their family.
CREATE TABLE sametick.sessions (
  org_id       bigint NOT NULL,
  id           uuid PRIMARY KEY,
  user_id      bigint NOT NULL,
  created_at   timestamptz NOT NULL DEFAULT date_trunc('milliseconds', now()),
  last_used_at timestamptz NOT NULL DEFAULT date_trunc('milliseconds', now()),
  expires_at   timestamptz NOT NULL,
  user_agent   text NOT NULL DEFAULT '',
  ip           inet,
  revoked_at   timestamptz
);
CREATE INDEX sessions_user_idx ON sametick.sessions (org_id, user_id, last_used_at DESC);
CREATE INDEX sessions_expiry_idx ON sametick.sessions (expires_at);
CREATE INDEX refresh_tokens_user_idx ON sametick.refresh_tokens (user_id) WHERE revoked_at IS NULL;

-- One-time tokens by which users choose a password: hashes, like all secrets.
CREATE TABLE sametick.user_tokens (
  org_id     bigint NOT NULL,
  hash       bytea PRIMARY KEY,
  user_id    bigint NOT NULL,
  purpose    text NOT NULL CHECK (purpose IN ('invitation', 'password_reset')),
  created_at timestamptz NOT NULL DEFAULT now(),
  expires_at timestamptz NOT NULL,
  used_at    timestamptz
);
CREATE INDEX user_tokens_user_idx ON sametick.user_tokens (org_id, user_id);

-- Who a user is at an external issuer.
CREATE TABLE sametick.external_identities (
  org_id    bigint NOT NULL,
  issuer    text NOT NULL,
  subject   text NOT NULL,
  user_id   bigint NOT NULL,
  linked_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (org_id, issuer, subject)
);
CREATE UNIQUE INDEX external_identities_user_key ON sametick.external_identities (user_id, issuer);

-- A rotated key's old secret, as long as it works.
ALTER TABLE sametick.api_keys ADD COLUMN previous_hash bytea, ADD COLUMN previous_until timestamptz, ADD COLUMN rotated_at timestamptz;
CREATE UNIQUE INDEX api_keys_previous_key ON sametick.api_keys (previous_hash) WHERE previous_hash IS NOT NULL;

-- Failed logins, by the hash of an account, of an address and of both together: of no organisation,
-- because none is known before the login. Rows go some time after their last use.
CREATE TABLE sametick.login_attempts (
  key           bytea PRIMARY KEY,
  failures      integer NOT NULL DEFAULT 0,
  blocked_until timestamptz NOT NULL,
  seen_at       timestamptz NOT NULL,
  -- Of a pair of account and address: until when its last success makes it trusted.
  trusted_until timestamptz NOT NULL,
  expires_at    timestamptz NOT NULL
);
CREATE INDEX login_attempts_expiry_idx ON sametick.login_attempts (expires_at);

-- Direct scopes are a release's before roles; new users have none.
ALTER TABLE sametick.credentials ALTER COLUMN scopes SET DEFAULT '{}';

-- What a user may do; the caller must see the organisation or be a function below.
-- +goose StatementBegin
CREATE FUNCTION sametick.user_scopes(org bigint, who bigint) RETURNS text[]
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
  SELECT coalesce(array_agg(DISTINCT s.scope ORDER BY s.scope), '{}') FROM (
    SELECT unnest(r.scopes) AS scope FROM sametick.user_roles ur
      JOIN sametick.roles r ON r.id = ur.role_id AND r.org_id = ur.org_id
      JOIN sametick.records q ON q.org_id = r.org_id AND q.type = 'role' AND q.id = r.id AND q.archived_at IS NULL
     WHERE ur.user_id = who AND ur.org_id = org
    UNION ALL
    SELECT unnest(c.scopes) FROM sametick.credentials c WHERE c.user_id = who AND c.org_id = org) s;
END;
-- +goose StatementEnd

-- Whether an organisation's users and keys are locked out.
-- +goose StatementBegin
CREATE FUNCTION sametick.org_archived(org bigint) RETURNS boolean
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
  SELECT EXISTS (SELECT FROM sametick.records q
    WHERE q.org_id = org AND q.type = 'organization' AND q.id = org AND q.archived_at IS NOT NULL);
END;
-- +goose StatementEnd

-- Somebody must be able to undo a mistake: an organisation that had an administrator who can sign in keeps
-- one. The check is the database's, so that no route passes it by; the lock makes two administrators who
-- demote each other wait, and the second sees what the first did.
-- +goose StatementBegin
CREATE FUNCTION sametick.require_administrator(org bigint) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  PERFORM pg_advisory_xact_lock(hashtextextended('sametick.administrators', org));
  IF NOT EXISTS (
    SELECT FROM sametick.roles r
      JOIN sametick.records rr ON rr.org_id = org AND rr.type = 'role' AND rr.id = r.id AND rr.archived_at IS NULL
      JOIN sametick.user_roles ur ON ur.org_id = org AND ur.role_id = r.id
      JOIN sametick.records u ON u.org_id = org AND u.type = 'user' AND u.id = ur.user_id AND u.archived_at IS NULL
      JOIN sametick.credentials c ON c.user_id = ur.user_id
     WHERE r.org_id = org AND r.administrator
       AND (c.password_hash <> '' OR EXISTS (SELECT FROM sametick.external_identities i WHERE i.user_id = c.user_id))) THEN
    RAISE EXCEPTION 'organisation % would be left without an administrator', org
      USING ERRCODE = 'check_violation', CONSTRAINT = 'last_administrator';
  END IF;
END $$;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE FUNCTION sametick.after_role_taken() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF EXISTS (SELECT FROM sametick.roles r WHERE r.id = OLD.role_id AND r.administrator) THEN
    PERFORM sametick.require_administrator(OLD.org_id);
  END IF;
  RETURN NULL;
END $$;
-- +goose StatementEnd
CREATE TRIGGER keep_administrator AFTER DELETE ON sametick.user_roles
  FOR EACH ROW EXECUTE FUNCTION sametick.after_role_taken();

-- An archived user's sessions end for good: a restored user signs in anew.
-- +goose StatementBegin
CREATE FUNCTION sametick.after_member_archived() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF NEW.type = 'user' THEN
    UPDATE sametick.sessions s SET revoked_at = now() WHERE s.org_id = NEW.org_id AND s.user_id = NEW.id AND s.revoked_at IS NULL;
    UPDATE sametick.refresh_tokens t SET revoked_at = now() WHERE t.org_id = NEW.org_id AND t.user_id = NEW.id AND t.revoked_at IS NULL;
    UPDATE sametick.user_tokens t SET expires_at = now() WHERE t.org_id = NEW.org_id AND t.user_id = NEW.id AND t.used_at IS NULL;
  END IF;
  IF EXISTS (SELECT FROM sametick.roles r LEFT JOIN sametick.user_roles ur ON ur.role_id = r.id AND ur.user_id = NEW.id
      WHERE r.org_id = NEW.org_id AND r.administrator
        AND (NEW.type = 'user' AND ur.user_id IS NOT NULL OR NEW.type = 'role' AND r.id = NEW.id)) THEN
    PERFORM sametick.require_administrator(NEW.org_id);
  END IF;
  RETURN NULL;
END $$;
-- +goose StatementEnd
CREATE TRIGGER member_archived AFTER UPDATE OF archived_at ON sametick.records
  FOR EACH ROW WHEN (NEW.type IN ('user', 'role') AND OLD.archived_at IS NULL AND NEW.archived_at IS NOT NULL)
  EXECUTE FUNCTION sametick.after_member_archived();

-- +goose StatementBegin
CREATE OR REPLACE FUNCTION sametick.find_credentials(address text)
RETURNS TABLE (org_id bigint, user_id bigint, user_name text, password_hash text, scopes text[])
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
  SELECT c.org_id, c.user_id, r.name, c.password_hash, sametick.user_scopes(c.org_id, c.user_id)
    FROM sametick.credentials c
    JOIN sametick.records r ON r.org_id = c.org_id AND r.type = 'user' AND r.id = c.user_id AND r.archived_at IS NULL
   WHERE lower(c.email) = lower(address) AND NOT sametick.org_archived(c.org_id);
END;
-- +goose StatementEnd

-- The key with a hash, if neither it nor its user nor the organisation is archived. It may do what it was
-- given of what its user still may.
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION sametick.find_api_key(key_hash bytea)
RETURNS TABLE (org_id bigint, id bigint, user_id bigint, scopes text[], expires_at timestamptz)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
  k sametick.api_keys;
BEGIN
  SELECT * INTO k FROM sametick.api_keys q WHERE q.hash = key_hash;
  IF NOT FOUND THEN
    SELECT * INTO k FROM sametick.api_keys q WHERE q.previous_hash = key_hash AND q.previous_until > clock_timestamp();
  END IF;
  RETURN QUERY
    SELECT k.org_id, k.id, k.user_id,
           CASE WHEN c.user_id IS NULL THEN k.scopes
                ELSE ARRAY(SELECT unnest(k.scopes) INTERSECT SELECT unnest(sametick.user_scopes(k.org_id, k.user_id))) END,
           CASE WHEN k.hash = key_hash THEN k.expires_at ELSE least(k.expires_at, k.previous_until) END
      FROM sametick.records r
      LEFT JOIN sametick.records u ON u.org_id = k.org_id AND u.type = 'user' AND u.id = k.user_id
      LEFT JOIN sametick.credentials c ON c.user_id = k.user_id AND c.org_id = k.org_id
     WHERE r.org_id = k.org_id AND r.type = 'api_key' AND r.id = k.id AND r.archived_at IS NULL
       AND u.archived_at IS NULL AND NOT sametick.org_archived(k.org_id);
  -- A row that another call is stamping is skipped: use never waits for use.
  UPDATE sametick.api_keys q SET last_used_at = date_trunc('minute', now())
   WHERE q.id = (SELECT p.id FROM sametick.api_keys p
                  WHERE p.id = k.id AND p.last_used_at IS DISTINCT FROM date_trunc('minute', now())
                    FOR UPDATE SKIP LOCKED);
END $$;
-- +goose StatementEnd

-- Takes a refresh token once and puts the next in its place. A second use, of which the thief or the
-- robbed may be the author, ends the session (RFC 9700, 4.14.2). `outcome` is rotated, unknown, expired,
-- revoked or reused; it is an answer and no exception, so that the revocation stays.
-- +goose StatementBegin
CREATE FUNCTION sametick.renew_session(old_hash bytea, new_hash bytea, new_expiry timestamptz, agent text, address inet)
RETURNS TABLE (outcome text, org_id bigint, user_id bigint, user_name text, session_id uuid, scopes text[])
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
  t sametick.refresh_tokens;
  s sametick.sessions;
  name text;
BEGIN
  outcome := 'unknown';
  SELECT * INTO t FROM sametick.refresh_tokens q WHERE q.hash = old_hash;
  IF NOT FOUND THEN
    RETURN NEXT;
    RETURN;
  END IF;
  -- A release before sessions may have made this one.
  INSERT INTO sametick.sessions (org_id, id, user_id, expires_at, revoked_at)
  VALUES (t.org_id, t.family, t.user_id, t.expires_at, t.revoked_at) ON CONFLICT DO NOTHING;
  -- One change of a session at a time: else a revocation could miss the token that is being put in place.
  PERFORM pg_advisory_xact_lock(hashtextextended(t.family::text, 0));
  SELECT * INTO s FROM sametick.sessions q WHERE q.id = t.family FOR UPDATE;
  SELECT * INTO t FROM sametick.refresh_tokens q WHERE q.hash = old_hash;
  SELECT r.name INTO name FROM sametick.records r JOIN sametick.credentials c ON c.user_id = r.id AND c.org_id = r.org_id
   WHERE r.org_id = t.org_id AND r.type = 'user' AND r.id = t.user_id AND r.archived_at IS NULL;
  IF s.revoked_at IS NOT NULL OR t.revoked_at IS NOT NULL OR name IS NULL OR sametick.org_archived(t.org_id) THEN
    outcome := 'revoked';
  ELSIF t.used_at IS NOT NULL THEN
    UPDATE sametick.sessions q SET revoked_at = now() WHERE q.id = t.family;
    UPDATE sametick.refresh_tokens q SET revoked_at = now() WHERE q.family = t.family AND q.revoked_at IS NULL;
    outcome := 'reused';
  ELSIF t.expires_at <= now() THEN
    outcome := 'expired';
  ELSE
    UPDATE sametick.refresh_tokens q SET used_at = now() WHERE q.hash = old_hash;
    INSERT INTO sametick.refresh_tokens (org_id, hash, user_id, family, expires_at)
    VALUES (t.org_id, new_hash, t.user_id, t.family, new_expiry);
    UPDATE sametick.sessions q SET last_used_at = date_trunc('milliseconds', now()), expires_at = new_expiry,
      user_agent = coalesce(agent, q.user_agent), ip = coalesce(address, q.ip) WHERE q.id = t.family;
    outcome := 'rotated';
    scopes := sametick.user_scopes(t.org_id, t.user_id);
  END IF;
  org_id := t.org_id;
  user_id := t.user_id;
  user_name := name;
  session_id := t.family;
  RETURN NEXT;
  -- What ended long ago goes, a little at each renewal.
  DELETE FROM sametick.refresh_tokens q WHERE q.hash IN (SELECT p.hash FROM sametick.refresh_tokens p
    WHERE p.expires_at < now() - interval '7 days' ORDER BY p.expires_at LIMIT 10 FOR UPDATE SKIP LOCKED);
  DELETE FROM sametick.sessions q WHERE q.id IN (SELECT p.id FROM sametick.sessions p
    WHERE p.expires_at < now() - interval '7 days' ORDER BY p.expires_at LIMIT 10 FOR UPDATE SKIP LOCKED);
END $$;
-- +goose StatementEnd

-- Ends the session that a refresh token belongs to, or all of its user's; no row when it was none or had
-- ended.
-- +goose StatementBegin
CREATE FUNCTION sametick.finish_session(token_hash bytea, everywhere boolean)
RETURNS TABLE (org_id bigint, user_id bigint, user_name text, session_id uuid)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
  t sametick.refresh_tokens;
BEGIN
  PERFORM pg_advisory_xact_lock(hashtextextended(q.family::text, 0)) FROM sametick.refresh_tokens q WHERE q.hash = token_hash;
  SELECT * INTO t FROM sametick.refresh_tokens q WHERE q.hash = token_hash;
  -- What has ended, or was stolen and replaced, is no credential.
  IF NOT FOUND OR t.revoked_at IS NOT NULL OR EXISTS (SELECT FROM sametick.sessions s WHERE s.id = t.family AND s.revoked_at IS NOT NULL) THEN
    RETURN;
  END IF;
  UPDATE sametick.sessions s SET revoked_at = now()
   WHERE s.org_id = t.org_id AND s.user_id = t.user_id AND (everywhere OR s.id = t.family) AND s.revoked_at IS NULL;
  UPDATE sametick.refresh_tokens q SET revoked_at = now()
   WHERE q.user_id = t.user_id AND (everywhere OR q.family = t.family) AND q.revoked_at IS NULL;
  RETURN QUERY SELECT r.org_id, r.id, r.name, t.family FROM sametick.records r
    WHERE r.org_id = t.org_id AND r.type = 'user' AND r.id = t.user_id;
END $$;
-- +goose StatementEnd

-- The two as the release before this one calls them.
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION sametick.rotate_refresh_token(old_hash bytea, new_hash bytea, new_expiry timestamptz)
RETURNS TABLE (outcome text, org_id bigint, user_id bigint, scopes text[])
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
  SELECT r.outcome, r.org_id, r.user_id, r.scopes FROM sametick.renew_session(old_hash, new_hash, new_expiry, NULL, NULL) r;
END;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION sametick.end_session(token_hash bytea)
RETURNS TABLE (org_id bigint, user_id bigint, user_name text)
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
  SELECT f.org_id, f.user_id, f.user_name FROM sametick.finish_session(token_hash, false) f;
END;
-- +goose StatementEnd

-- Whose a one-time token is, while it works.
-- +goose StatementBegin
CREATE FUNCTION sametick.find_user_token(token_hash bytea, wanted text)
RETURNS TABLE (org_id bigint, user_id bigint, user_name text, email text, used boolean, expired boolean, scopes text[])
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
  SELECT t.org_id, t.user_id, r.name, c.email, t.used_at IS NOT NULL, t.expires_at <= now(), sametick.user_scopes(t.org_id, t.user_id)
    FROM sametick.user_tokens t
    JOIN sametick.credentials c ON c.user_id = t.user_id AND c.org_id = t.org_id
    JOIN sametick.records r ON r.org_id = t.org_id AND r.type = 'user' AND r.id = t.user_id AND r.archived_at IS NULL
   WHERE t.hash = token_hash AND t.purpose = wanted AND NOT sametick.org_archived(t.org_id);
END;
-- +goose StatementEnd

-- Whether a login may be tried: seconds to wait, 0 to go on. It counts as failed until end_login says
-- otherwise, so that guesses sent all at once are counted too.
--   pair     account and address together: 5 failures are free, then 1 s, 2 s, 4 s … 15 min
--   account  from anywhere: 50 are free, then up to 30 s, so that nobody is locked out for long; not asked of
--            a pair that has signed in during the last 30 days
--   address  of any account: 100 are free, then up to 15 min
-- An hour without an attempt forgives. Each call also removes a few rows that are over.
-- +goose StatementBegin
CREATE FUNCTION sametick.begin_login(pair bytea, account bytea, address bytea) RETURNS double precision
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  at    timestamptz;
  wait  interval;
BEGIN
  INSERT INTO sametick.login_attempts AS a (key, blocked_until, seen_at, trusted_until, expires_at)
  SELECT k, 'epoch', 'epoch', 'epoch', now() + interval '1 day' FROM unnest(ARRAY[pair, account, address]) k ORDER BY k
  ON CONFLICT (key) DO UPDATE SET expires_at = greatest(a.trusted_until, excluded.expires_at);
  at := clock_timestamp(); -- after the locks
  SELECT max(a.blocked_until) - at INTO wait FROM sametick.login_attempts a
   WHERE a.key IN (pair, address)
      OR a.key = account AND NOT EXISTS (SELECT FROM sametick.login_attempts p WHERE p.key = pair AND p.trusted_until > at);
  IF wait > interval '0' THEN
    RETURN extract(epoch FROM wait);
  END IF;
  UPDATE sametick.login_attempts a SET failures = f.n, seen_at = at,
    blocked_until = CASE WHEN f.n >= f.free THEN at + least(f.most, interval '1 second' * 2 ^ least(f.n - f.free, 20)) ELSE 'epoch' END
    FROM (SELECT q.key, CASE WHEN q.seen_at < at - interval '1 hour' THEN 1 ELSE q.failures + 1 END AS n, l.free, l.most
            FROM (VALUES (pair, 5, interval '15 minutes'), (account, 50, interval '30 seconds'), (address, 100, interval '15 minutes')) l(key, free, most)
            JOIN sametick.login_attempts q ON q.key = l.key) f
   WHERE a.key = f.key;
  DELETE FROM sametick.login_attempts a WHERE a.key IN (SELECT q.key FROM sametick.login_attempts q
    WHERE q.expires_at < at ORDER BY q.expires_at LIMIT 10 FOR UPDATE SKIP LOCKED);
  RETURN 0;
END $$;
-- +goose StatementEnd

-- A login that begin_login let pass has succeeded.
-- +goose StatementBegin
CREATE FUNCTION sametick.end_login(pair bytea, account bytea, address bytea) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  PERFORM FROM sametick.login_attempts a WHERE a.key IN (pair, account, address) ORDER BY a.key FOR UPDATE;
  UPDATE sametick.login_attempts a SET failures = 0, blocked_until = 'epoch', trusted_until = now() + interval '30 days',
    expires_at = now() + interval '30 days' WHERE a.key = pair;
  -- Its own attempt only: a login of the attacker's own must not forgive the guesses at others'.
  UPDATE sametick.login_attempts a SET failures = greatest(a.failures - 1, 0), blocked_until = 'epoch' WHERE a.key IN (account, address);
END $$;
-- +goose StatementEnd

-- The users that there are get roles: those with every scope the administrator's, others one for each set
-- of scopes. Like any mutation it is told.
-- +goose StatementBegin
DO $$
DECLARE
  every CONSTANT text[] := ARRAY['events:read', 'records:read', 'records:write', 'webhooks:manage', 'prompts:manage', 'audit:read', 'org:admin'];
  g    record;
  role bigint;
BEGIN
  FOR g IN SELECT c.org_id, c.scopes @> every AS administrator, s.scopes, array_agg(DISTINCT c.user_id) AS users
             FROM sametick.credentials c,
                  LATERAL (SELECT CASE WHEN c.scopes @> every THEN every ELSE ARRAY(SELECT unnest(c.scopes) ORDER BY 1) END AS scopes) s
            WHERE c.scopes <> '{}' GROUP BY 1, 2, 3 ORDER BY 1
  LOOP
    role := nextval('sametick.record_ids');
    INSERT INTO sametick.records (org_id, type, id, name)
    VALUES (g.org_id, 'role', role, CASE WHEN g.administrator THEN 'administrator' ELSE array_to_string(g.scopes, ' ') END);
    INSERT INTO sametick.roles (org_id, id, scopes, administrator) VALUES (g.org_id, role, g.scopes, g.administrator);
    INSERT INTO sametick.user_roles (org_id, user_id, role_id) SELECT g.org_id, u, role FROM unnest(g.users) u;
    PERFORM sametick.record_events(jsonb_build_array(
      jsonb_build_object('org_id', g.org_id, 'aggregate_type', 'role', 'aggregate_id', role, 'action', 'pre_create'),
      jsonb_build_object('org_id', g.org_id, 'aggregate_type', 'role', 'aggregate_id', role, 'action', 'post_create')));
  END LOOP;
  UPDATE sametick.credentials SET scopes = '{}' WHERE scopes <> '{}';
  INSERT INTO sametick.sessions (org_id, id, user_id, expires_at, revoked_at)
  SELECT DISTINCT ON (t.family) t.org_id, t.family, t.user_id, t.expires_at, t.revoked_at
    FROM sametick.refresh_tokens t ORDER BY t.family, t.expires_at DESC;
END $$;
-- +goose StatementEnd

GRANT SELECT, INSERT ON sametick.roles, sametick.user_roles, sametick.sessions, sametick.user_tokens, sametick.external_identities TO sametick_api;
GRANT UPDATE (scopes) ON sametick.roles TO sametick_api;
GRANT DELETE ON sametick.user_roles TO sametick_api;
GRANT UPDATE (revoked_at) ON sametick.sessions TO sametick_api;
GRANT UPDATE (revoked_at), SELECT (org_id, user_id, family, revoked_at) ON sametick.refresh_tokens TO sametick_api;
GRANT UPDATE (used_at, expires_at) ON sametick.user_tokens TO sametick_api;
GRANT UPDATE (email, password_hash) ON sametick.credentials TO sametick_api;
GRANT UPDATE (hash, prefix, previous_hash, previous_until, rotated_at) ON sametick.api_keys TO sametick_api;
GRANT EXECUTE ON FUNCTION sametick.user_scopes(bigint, bigint), sametick.org_archived(bigint), sametick.find_user_token(bytea, text),
  sametick.renew_session(bytea, bytea, timestamptz, text, inet), sametick.finish_session(bytea, boolean),
  sametick.begin_login(bytea, bytea, bytea), sametick.end_login(bytea, bytea, bytea) TO sametick_api;

ALTER TABLE sametick.roles ENABLE ROW LEVEL SECURITY;
ALTER TABLE sametick.user_roles ENABLE ROW LEVEL SECURITY;
ALTER TABLE sametick.sessions ENABLE ROW LEVEL SECURITY;
ALTER TABLE sametick.user_tokens ENABLE ROW LEVEL SECURITY;
ALTER TABLE sametick.external_identities ENABLE ROW LEVEL SECURITY;
ALTER TABLE sametick.login_attempts ENABLE ROW LEVEL SECURITY;
CREATE POLICY org ON sametick.roles TO sametick_api USING (org_id = sametick.current_org());
CREATE POLICY org ON sametick.user_roles TO sametick_api USING (org_id = sametick.current_org());
CREATE POLICY org ON sametick.sessions TO sametick_api USING (org_id = sametick.current_org());
CREATE POLICY org ON sametick.user_tokens TO sametick_api USING (org_id = sametick.current_org());
CREATE POLICY org ON sametick.external_identities TO sametick_api USING (org_id = sametick.current_org());
RESET ROLE;
