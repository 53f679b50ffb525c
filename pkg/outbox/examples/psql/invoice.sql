-- Events from plain SQL, each in the transaction of the write that it tells of. Run it with
--
--   psql "$DATABASE_URL" -v ON_ERROR_STOP=1 -f invoice.sql
--
-- as a role that has been granted sametick_producer and may make tables.

CREATE TABLE IF NOT EXISTS public.invoices (
  id     bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  org_id bigint NOT NULL,
  number text NOT NULL,
  status text NOT NULL DEFAULT 'open'
);

BEGIN;
WITH invoice AS (
  INSERT INTO public.invoices (org_id, number) VALUES (7, 'Invoice 2026-001') RETURNING *
)
SELECT sametick.record_event(org_id, 'invoice', id, 'post_create', actor_id => 3, record_name => number) AS event_id FROM invoice;
COMMIT;

BEGIN;
WITH invoice AS (
  UPDATE public.invoices SET status = 'paid' WHERE number = 'Invoice 2026-001' AND status = 'open' RETURNING *
)
SELECT sametick.record_event(org_id, 'invoice', id, 'paid', actor_id => 3, record_name => number,
  changes => '{"status": {"before": "open", "after": "paid"}}') AS event_id FROM invoice;
COMMIT;
