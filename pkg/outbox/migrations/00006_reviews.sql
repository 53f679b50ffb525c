-- +goose Up
SET LOCAL ROLE sametick_owner;
ALTER DEFAULT PRIVILEGES FOR ROLE sametick_owner REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC;

-- Which rows a worker's transaction sees: those of the organisation that it acts for or, when it says so, of all.
CREATE FUNCTION sametick.sees(org bigint) RETURNS boolean
LANGUAGE sql STABLE PARALLEL SAFE
RETURN current_setting('sametick.every_org', true) = 'on' OR org = sametick.current_org();
GRANT EXECUTE ON FUNCTION sametick.sees(bigint) TO sametick_webhook, sametick_prompt;

-- The hooks that review writes: all that api-gateway must know to ask prompt-worker, or to decide without it.
CREATE TABLE sametick.review_hooks (
  org_id         bigint NOT NULL,
  hook_id        bigint NOT NULL,
  name           text NOT NULL,
  -- Patterns of pre_* events.
  event_types    text[] NOT NULL,
  failure_policy text NOT NULL CHECK (failure_policy IN ('fail_open', 'fail_closed')),
  enforcement    text NOT NULL CHECK (enforcement IN ('shadow', 'warn', 'enforce')),
  timeout_ms     integer NOT NULL CHECK (timeout_ms BETWEEN 1 AND 10000),
  PRIMARY KEY (org_id, hook_id)
);

-- Counts the changes of an organisation's review_hooks. A writer names the generation that it has asked by, and the
-- database refuses any other: so no replica's memory of the hooks can let a write slip past one.
CREATE TABLE sametick.review_sets (
  org_id     bigint PRIMARY KEY,
  generation bigint NOT NULL
) WITH (fillfactor = 50);

-- +goose StatementBegin
CREATE FUNCTION sametick.count_review_change() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  INSERT INTO sametick.review_sets AS s (org_id, generation) VALUES (coalesce(NEW.org_id, OLD.org_id), 1)
  ON CONFLICT (org_id) DO UPDATE SET generation = s.generation + 1;
  RETURN NULL;
END $$;
-- +goose StatementEnd
CREATE TRIGGER count_change AFTER INSERT OR UPDATE OR DELETE ON sametick.review_hooks
  FOR EACH ROW EXECUTE FUNCTION sametick.count_review_change();

-- Begins a write that was reviewed, or needed no review, by this generation of the organisation's hooks.
-- +goose StatementBegin
CREATE FUNCTION sametick.begin_write(org bigint, reviewed_by bigint) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
  PERFORM set_config('sametick.org_id', org::text, true);
  IF coalesce((SELECT s.generation FROM sametick.review_sets s WHERE s.org_id = org), 0) <> reviewed_by THEN
    RAISE EXCEPTION 'the hooks that review writes have changed' USING ERRCODE = 'STREV';
  END IF;
END $$;
-- +goose StatementEnd

GRANT SELECT ON sametick.review_hooks, sametick.review_sets TO sametick_api;
GRANT SELECT, INSERT, UPDATE, DELETE ON sametick.review_hooks TO sametick_prompt;
-- What it remembers of hooks it keeps by their generation.
GRANT SELECT ON sametick.review_sets TO sametick_prompt;
GRANT EXECUTE ON FUNCTION sametick.begin_write(bigint, bigint) TO sametick_api;
ALTER TABLE sametick.review_hooks ENABLE ROW LEVEL SECURITY;
ALTER TABLE sametick.review_sets ENABLE ROW LEVEL SECURITY;
CREATE POLICY org ON sametick.review_hooks FOR SELECT TO sametick_api USING (org_id = sametick.current_org());
CREATE POLICY org ON sametick.review_sets FOR SELECT TO sametick_api USING (org_id = sametick.current_org());
CREATE POLICY worker ON sametick.review_hooks TO sametick_prompt USING (sametick.sees(org_id));
CREATE POLICY worker ON sametick.review_sets FOR SELECT TO sametick_prompt USING (sametick.sees(org_id));
RESET ROLE;
