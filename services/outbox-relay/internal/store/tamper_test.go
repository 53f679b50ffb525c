package store_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sametick/sametick/pkg/auditlog"
	"github.com/sametick/sametick/services/outbox-relay/internal/relaytest"
)

// unlock is what a superuser does who wants to rewrite history.
func (s *sealed) unlock() {
	for _, table := range []string{"audit_entries", "audit_leaves", "audit_heads"} {
		s.exec("ALTER TABLE sametick." + table + " DISABLE TRIGGER append_only")
	}
}

// Each way to rewrite the log, as superuser with the triggers off, is found and named. The control is the log before it,
// which verifies.
func TestTamperingIsFound(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		what string
		sql  []string
		want auditlog.Kind
		id   int64 // of the entry that is named; 0 for none in particular
	}{
		{"a changed field", []string{`UPDATE sametick.audit_entries SET actor_id = 8 WHERE id = 5`}, auditlog.Changed, 5},
		{"a changed before", []string{`UPDATE sametick.audit_entries SET changes = '{"n":{"before":2,"after":12345678901234567890}}' WHERE id = 5`}, auditlog.Changed, 5},
		{"another organisation", []string{`UPDATE sametick.audit_entries SET org_id = 9 WHERE id = 5`}, auditlog.Changed, 5},
		{"a removed row", []string{`DELETE FROM sametick.audit_entries WHERE id = 5`}, auditlog.Removed, 5},
		{"a removed row and its leaf", []string{`DELETE FROM sametick.audit_entries WHERE id = 5`, `DELETE FROM sametick.audit_leaves WHERE entry_id = 5`}, auditlog.LeafGone, 0},
		{"an inserted row", []string{`INSERT INTO sametick.audit_entries (id, txid, org_id, action, outcome, aggregate_type, aggregate_id, event_ids, occurred_at)
			OVERRIDING SYSTEM VALUE SELECT 999, txid, org_id, 'create', 'applied', 'task', 77, '{1}', occurred_at FROM sametick.audit_entries WHERE id = 5`}, auditlog.Inserted, 999},
		{"two swapped rows", []string{`CREATE TABLE swap AS SELECT * FROM sametick.audit_entries WHERE id IN (5, 7)`, `DELETE FROM sametick.audit_entries WHERE id IN (5, 7)`,
			`UPDATE swap SET id = 12 - id`, `INSERT INTO sametick.audit_entries OVERRIDING SYSTEM VALUE SELECT * FROM swap`}, auditlog.Swapped, 0},
		{"a leaf's hash", []string{`UPDATE sametick.audit_leaves SET hashes = overlay(hashes placing '\x00'::bytea from 1) WHERE entry_id = 5`}, auditlog.StoredHash, 0},
		{"a head", []string{`UPDATE sametick.audit_heads SET note = overlay(note placing 'AAAA' from length(note) - 20)`}, auditlog.HeadForged, 0},
		{"no heads", []string{`DELETE FROM sametick.audit_heads`}, auditlog.HeadGone, 0},
	} {
		t.Run(c.what, func(t *testing.T) {
			t.Parallel()
			s := newSealed(t, 100)
			s.write(20)
			s.seal()
			s.whole(20)
			s.unlock()
			for _, sql := range c.sql {
				s.exec(sql)
			}
			named := false
			r := s.verify(nil)
			for _, f := range r.Findings {
				require.NotEmpty(t, f.Text)
				named = named || f.Kind == c.want && (c.id == 0 || f.EntryID == c.id)
			}
			require.True(t, named, "%s: %+v", c.want, r.Findings)
		})
	}
}

// A database that is put back to an older state is whole in itself: only a head that was kept elsewhere tells. So it
// does when the log went on from there.
func TestARolledBackDatabaseIsFound(t *testing.T) {
	t.Parallel()
	s := newSealed(t, 100)
	s.write(10)
	s.seal()
	s.write(10)
	s.seal()
	saved := s.whole(20).Head
	require.Empty(t, s.verify(saved).Findings)
	s.unlock()
	s.exec(`DELETE FROM sametick.audit_heads WHERE size > 10`)
	s.exec(`DELETE FROM sametick.audit_leaves WHERE leaf >= 10`)
	s.exec(`DELETE FROM sametick.audit_entries WHERE id > (SELECT max(entry_id) FROM sametick.audit_leaves)`)
	require.Empty(t, s.verify(nil).Findings, "the control: nothing in the database is wrong")
	r := s.verify(saved)
	require.Len(t, r.Findings, 1)
	require.Equal(t, auditlog.RolledBack, r.Findings[0].Kind)
	s.write(12)
	relaytest.Eventually(t, func() bool { s.seal(); return s.verify(nil).Leaves > 20 }, "the log goes on")
	r = s.verify(saved)
	require.NotEmpty(t, r.Findings)
	require.Equal(t, auditlog.OtherLog, r.Findings[len(r.Findings)-1].Kind)
}
