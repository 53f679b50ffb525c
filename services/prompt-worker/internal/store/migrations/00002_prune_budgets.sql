-- +goose Up
SET LOCAL ROLE sametick_owner;
-- Days that nothing is held of or booked to any more go with the runs of their time.
GRANT DELETE ON sametick.prompt_budgets TO sametick_prompt;
CREATE INDEX prompt_budgets_day_idx ON sametick.prompt_budgets (day);
RESET ROLE;
