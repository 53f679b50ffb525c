-- Pays an invoice and records it, in one transaction: either both are there or neither.
\set ON_ERROR_STOP on
BEGIN;
CREATE TABLE IF NOT EXISTS invoices (id bigint PRIMARY KEY, paid boolean NOT NULL DEFAULT false);
INSERT INTO invoices (id, paid) VALUES (:invoice, true) ON CONFLICT (id) DO UPDATE SET paid = true;
SELECT sametick.record_event(:org, 'invoice', :invoice, 'paid',
         record_name => 'Invoice ' || :invoice,
         changes => '{"paid": {"before": false, "after": true}}') AS event;
COMMIT;
