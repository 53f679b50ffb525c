-- +goose Up
SET LOCAL ROLE sametick_owner;

-- For the API: an organisation's entries by id, of a type, an action or an outcome, from the index alone. The planner took
-- the primary key before and read every organisation's rows. Making it reads the table, while writers wait.
CREATE INDEX audit_entries_kinds_idx ON sametick.audit_entries (org_id, id) INCLUDE (aggregate_type, action, outcome);
DROP INDEX sametick.audit_entries_org_idx;
RESET ROLE;
