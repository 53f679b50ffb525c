-- +goose Up
SET LOCAL ROLE sametick_owner;

-- The types of records that organisations have registered, beside those built in. Never deleted: records name
-- them.
CREATE TABLE sametick.types (
  org_id      bigint NOT NULL,
  id          bigint NOT NULL,
  name        text NOT NULL,
  description text NOT NULL DEFAULT '',
  schema      jsonb NOT NULL,
  version     bigint NOT NULL DEFAULT 1,
  created_at  timestamptz NOT NULL DEFAULT date_trunc('milliseconds', now()),
  updated_at  timestamptz NOT NULL DEFAULT date_trunc('milliseconds', now()),
  archived_at timestamptz,
  PRIMARY KEY (org_id, name)
);

GRANT SELECT, INSERT, UPDATE ON sametick.types TO sametick_api;
ALTER TABLE sametick.types ENABLE ROW LEVEL SECURITY;
CREATE POLICY org ON sametick.types TO sametick_api USING (org_id = sametick.current_org());
RESET ROLE;
