-- +goose Up
SET LOCAL ROLE sametick_owner;

CREATE TABLE sametick.workflow_definitions (
  org_id      bigint NOT NULL,
  id          bigint NOT NULL,
  name        text NOT NULL,
  steps       jsonb NOT NULL,
  version     bigint NOT NULL DEFAULT 1,
  created_at  timestamptz NOT NULL DEFAULT date_trunc('milliseconds', now()),
  updated_at  timestamptz NOT NULL DEFAULT date_trunc('milliseconds', now()),
  archived_at timestamptz,
  PRIMARY KEY (org_id, id)
);

-- The workflows that a definition governs. Its row is locked first by every move. The status stands in the
-- record's attributes too, where only moves change it.
CREATE TABLE sametick.workflow_runs (
  org_id             bigint NOT NULL,
  workflow_id        bigint NOT NULL,
  definition_id      bigint NOT NULL,
  definition_version bigint NOT NULL,
  status             text NOT NULL,
  PRIMARY KEY (org_id, workflow_id)
);

-- Their steps, as the definition was at the start.
CREATE TABLE sametick.workflow_steps (
  org_id      bigint NOT NULL,
  workflow_id bigint NOT NULL,
  step_id     bigint NOT NULL,
  place       integer NOT NULL,
  key         text NOT NULL,
  needs       text[] NOT NULL,
  approval    boolean NOT NULL,
  on_failure  text NOT NULL,
  status      text NOT NULL,
  PRIMARY KEY (org_id, step_id)
);
CREATE INDEX workflow_steps_workflow_idx ON sametick.workflow_steps (org_id, workflow_id, place);

GRANT SELECT, INSERT, UPDATE ON sametick.workflow_definitions, sametick.workflow_runs, sametick.workflow_steps TO sametick_api;
ALTER TABLE sametick.workflow_definitions ENABLE ROW LEVEL SECURITY;
ALTER TABLE sametick.workflow_runs ENABLE ROW LEVEL SECURITY;
ALTER TABLE sametick.workflow_steps ENABLE ROW LEVEL SECURITY;
CREATE POLICY org ON sametick.workflow_definitions TO sametick_api USING (org_id = sametick.current_org());
CREATE POLICY org ON sametick.workflow_runs TO sametick_api USING (org_id = sametick.current_org());
CREATE POLICY org ON sametick.workflow_steps TO sametick_api USING (org_id = sametick.current_org());
RESET ROLE;
