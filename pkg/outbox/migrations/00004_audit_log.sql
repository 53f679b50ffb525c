-- +goose Up
SET LOCAL ROLE sametick_owner;

-- The transaction that wrote an entry: entries commit in another order than that of their ids, and the sealer
-- finds the late ones by it. NULL in entries from before; in two steps, because a default that is computed would
-- write the table anew. The index is empty at first, but making it reads the table once, while writers wait.
ALTER TABLE sametick.audit_entries ADD COLUMN txid xid8;
ALTER TABLE sametick.audit_entries ALTER COLUMN txid SET DEFAULT pg_current_xact_id();
CREATE INDEX audit_entries_txid_idx ON sametick.audit_entries (txid, id) WHERE txid IS NOT NULL;

-- The leaves of the Merkle tree over the audit entries (RFC 6962; pkg/auditlog says what a leaf is). `hashes` are
-- the leaf's own and those of the subtrees that it completes, 32 bytes each.
CREATE TABLE sametick.audit_leaves (
  leaf     bigint PRIMARY KEY,
  entry_id bigint NOT NULL UNIQUE,
  salt     bytea NOT NULL,
  hashes   bytea NOT NULL,
  CONSTRAINT leaf_from_zero CHECK (leaf >= 0),
  CONSTRAINT salt_of_16 CHECK (octet_length(salt) = 16),
  CONSTRAINT whole_hashes CHECK (octet_length(hashes) > 0 AND octet_length(hashes) % 32 = 0)
);

-- The signed heads of the tree. The newest is also the sealer's cursor, as in relay_batches; `note` is signed and binds
-- the other columns.
CREATE TABLE sametick.audit_heads (
  seal              bigint PRIMARY KEY,
  size              bigint NOT NULL,
  -- All entries visible in it are sealed.
  snapshot          pg_snapshot NOT NULL,
  -- While a backlog is paged: the snapshot it is paged in, and the last id taken.
  paging            pg_snapshot,
  page_after        bigint NOT NULL,
  -- The greatest entry id that is sealed.
  max_id            bigint NOT NULL,
  -- Drawn after the snapshot: a transaction from here on draws entry ids beyond max_id.
  claim_xid         xid8 NOT NULL,
  system_identifier bigint NOT NULL,
  note              text NOT NULL,
  sealed_at         timestamptz NOT NULL DEFAULT clock_timestamp(),
  CONSTRAINT snapshot_is_past CHECK (claim_xid >= pg_snapshot_xmax(coalesce(paging, snapshot)))
);
CREATE INDEX audit_heads_size_idx ON sametick.audit_heads (size);
CREATE INDEX audit_heads_claim_xid_idx ON sametick.audit_heads (claim_xid);

CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON sametick.audit_leaves
  FOR EACH ROW EXECUTE FUNCTION sametick.refuse_change();
CREATE TRIGGER append_only_truncate BEFORE TRUNCATE ON sametick.audit_leaves
  FOR EACH STATEMENT EXECUTE FUNCTION sametick.refuse_change();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON sametick.audit_heads
  FOR EACH ROW EXECUTE FUNCTION sametick.refuse_change();
CREATE TRIGGER append_only_truncate BEFORE TRUNCATE ON sametick.audit_heads
  FOR EACH STATEMENT EXECUTE FUNCTION sametick.refuse_change();

GRANT SELECT ON sametick.audit_entries TO sametick_relay;
GRANT SELECT, INSERT ON sametick.audit_leaves, sametick.audit_heads TO sametick_relay;
CREATE POLICY relay ON sametick.audit_entries FOR SELECT TO sametick_relay USING (true);
RESET ROLE;
