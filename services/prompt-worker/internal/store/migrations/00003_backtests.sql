-- +goose Up
SET LOCAL ROLE sametick_owner;
-- Nothing has written to prompt_backtests before this.
ALTER TABLE sametick.prompt_backtests
  DROP CONSTRAINT prompt_backtests_status_check,
  ALTER COLUMN status SET DEFAULT 'queued',
  ADD CONSTRAINT prompt_backtests_status_check CHECK (status IN ('queued', 'running', 'completed', 'cancelled', 'failed')),
  DROP COLUMN report,
  -- What was asked for, and the hook's settings as of then, as package backtest writes them.
  ADD COLUMN request jsonb NOT NULL DEFAULT '{}',
  ADD COLUMN settings jsonb NOT NULL DEFAULT '{}',
  ADD COLUMN hook_version bigint NOT NULL DEFAULT 0,
  ADD COLUMN template_id bigint NOT NULL DEFAULT 0,
  ADD COLUMN error text NOT NULL DEFAULT '',
  -- Whose budget ended it early.
  ADD COLUMN exhausted text NOT NULL DEFAULT '' CHECK (exhausted IN ('', 'backtest', 'organisation')),
  -- Its events have been found.
  ADD COLUMN selected boolean NOT NULL DEFAULT false,
  -- Until then it is its holder's.
  ADD COLUMN holder text NOT NULL DEFAULT '',
  ADD COLUMN lease_until timestamptz NOT NULL DEFAULT '-infinity';
CREATE INDEX prompt_backtests_open_idx ON sametick.prompt_backtests (id) WHERE status IN ('queued', 'running');
CREATE INDEX prompt_backtests_hook_idx ON sametick.prompt_backtests (org_id, hook_id, id);

-- One row an event of a backtest: what it may take while it is under way, then what came of it.
CREATE TABLE sametick.prompt_backtest_events (
  org_id          bigint NOT NULL,
  backtest_id     bigint NOT NULL,
  event_id        bigint NOT NULL,
  run_id          bigint NOT NULL,
  attempts        smallint NOT NULL DEFAULT 0,
  unknown         smallint NOT NULL DEFAULT 0,
  -- An attempt has begun and not ended; held is its worst case.
  calling         boolean NOT NULL DEFAULT false,
  held_tokens     bigint NOT NULL DEFAULT 0,
  held_cost       bigint NOT NULL DEFAULT 0,
  -- What its attempts took, those of unknown outcome at their worst case.
  took_runs       bigint NOT NULL DEFAULT 0,
  took_tokens     bigint NOT NULL DEFAULT 0,
  took_cost       bigint NOT NULL DEFAULT 0,
  done            boolean NOT NULL DEFAULT false,
  result          jsonb,
  PRIMARY KEY (org_id, backtest_id, event_id),
  FOREIGN KEY (org_id, backtest_id) REFERENCES sametick.prompt_backtests (org_id, id) ON DELETE CASCADE
) WITH (fillfactor = 70);

GRANT DELETE ON sametick.prompt_backtests TO sametick_prompt;
GRANT SELECT, INSERT, UPDATE, DELETE ON sametick.prompt_backtest_events TO sametick_prompt;
ALTER TABLE sametick.prompt_backtest_events ENABLE ROW LEVEL SECURITY;
CREATE POLICY org ON sametick.prompt_backtest_events TO sametick_prompt USING (sametick.sees(org_id));
RESET ROLE;
