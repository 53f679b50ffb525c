package store_test

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/sametick/sametick/pkg/auditlog"
	"github.com/sametick/sametick/pkg/auditlog/auditdb"
	"github.com/sametick/sametick/pkg/errs"
	"github.com/sametick/sametick/pkg/pgtest"
	"github.com/sametick/sametick/services/outbox-relay/internal/relaytest"
	"github.com/sametick/sametick/services/outbox-relay/internal/store"
)

// log is a database whose audit entries are sealed.
type sealed struct {
	t        *testing.T
	db       *pgtest.DB
	admin    *pgxpool.Pool
	sealer   *store.Sealer
	verifier *auditlog.Verifier
	private  string
}

func newSealed(t *testing.T, batch int) *sealed {
	t.Helper()
	s := &sealed{t: t, db: relaytest.Database(t)}
	s.admin = s.db.Pool(t)
	private, public, err := auditlog.GenerateKey("audit.test")
	require.NoError(t, err)
	s.private = private
	s.verifier, err = auditlog.NewVerifier(public)
	require.NoError(t, err)
	s.sealer = s.another(batch)
	return s
}

// another is a sealer of another relay, as the service's role.
func (s *sealed) another(batch int) *store.Sealer {
	s.t.Helper()
	signer, err := auditlog.ParseSigner(s.private)
	require.NoError(s.t, err)
	return &store.Sealer{Pool: pgtest.Pool(s.t, s.db.URLAs(s.t, "sametick_relay")), Signer: signer, Verifier: s.verifier, Batch: batch,
		Logger: slog.New(slog.DiscardHandler), Stats: &store.SealStats{}}
}

func (s *sealed) exec(sql string, args ...any) {
	s.t.Helper()
	_, err := s.admin.Exec(s.t.Context(), sql, args...)
	require.NoError(s.t, err, sql)
}

// write records n entries of their own.
func (s *sealed) write(n int) {
	s.t.Helper()
	s.exec(`SELECT sametick.record_event(1 + i % 3, 'task', i, 'post_update', 7, 'Größe "' || i || '"', '{"n":{"before":1.0,"after":12345678901234567890}}',
		context => '{"request_id":"r","ip":"10.0.0.1","user_agent":"<test>"}') FROM generate_series(1, $1) i`, n)
}

func (s *sealed) seal() {
	s.t.Helper()
	require.NoError(s.t, s.sealer.Run(s.t.Context()))
}

func (s *sealed) verify(saved *auditlog.Head) auditdb.Result {
	s.t.Helper()
	conn, err := pgx.Connect(s.t.Context(), s.db.URL)
	require.NoError(s.t, err)
	defer func() { require.NoError(s.t, conn.Close(context.WithoutCancel(s.t.Context()))) }()
	r, err := auditdb.Verify(s.t.Context(), conn, s.verifier, saved)
	require.NoError(s.t, err)
	return r
}

// whole requires that nothing is wrong, that every entry is a leaf once, without gaps, and n of them.
func (s *sealed) whole(n int64) auditdb.Result {
	s.t.Helper()
	r := s.verify(nil)
	require.Empty(s.t, r.Findings)
	require.Zero(s.t, r.Unsealed)
	require.Equal(s.t, n, r.Leaves)
	require.Equal(s.t, n, r.Head.Size)
	require.Equal(s.t, n, relaytest.Count(s.t, s.admin, "sametick.audit_entries"))
	var distinct, gaps int64
	require.NoError(s.t, s.admin.QueryRow(s.t.Context(), `SELECT count(DISTINCT entry_id), max(leaf) + 1 - count(*) FROM sametick.audit_leaves`).Scan(&distinct, &gaps))
	require.Equal(s.t, []int64{n, 0}, []int64{distinct, gaps})
	return r
}

// A long transaction delays nobody's sealing, and its entries, whose ids are older, are sealed when it commits.
// The control: a cursor of the greatest id would have passed them.
func TestALongTransactionIsSealedWhenItCommits(t *testing.T) {
	t.Parallel()
	s := newSealed(t, 100)
	long, err := s.admin.Begin(t.Context())
	require.NoError(t, err)
	relaytest.WriteTx(t, long, 9, 1, 1)
	s.write(30)
	s.seal()
	require.EqualValues(t, 30, s.verify(nil).Leaves)
	s.write(5)
	s.seal()
	require.EqualValues(t, 35, s.verify(nil).Leaves)
	require.NoError(t, long.Commit(t.Context()))
	var late, greatest int64
	require.NoError(t, s.admin.QueryRow(t.Context(), "SELECT min(id), (SELECT max(entry_id) FROM sametick.audit_leaves) FROM sametick.audit_entries WHERE org_id = 9").Scan(&late, &greatest))
	require.Less(t, late, greatest)
	s.seal()
	s.whole(36)
}

// Entries from before the log are sealed first, by id, and a backlog in pages.
func TestBacklogInPages(t *testing.T) {
	t.Parallel()
	s := newSealed(t, 7)
	s.write(50)
	s.exec("ALTER TABLE sametick.audit_entries DISABLE TRIGGER append_only")
	s.exec("UPDATE sametick.audit_entries SET txid = NULL WHERE id <= 30") // as the migration leaves them
	s.exec("ALTER TABLE sametick.audit_entries ENABLE TRIGGER append_only")
	s.seal()
	s.whole(50)
	require.EqualValues(t, 8, s.sealer.Stats.Seals.Load())
	var disorder int
	require.NoError(t, s.admin.QueryRow(t.Context(), "SELECT count(*) FROM sametick.audit_leaves WHERE leaf <> entry_id - 1").Scan(&disorder))
	require.Zero(t, disorder)
	seals := relaytest.Count(t, s.admin, "sametick.audit_heads")
	s.seal()
	require.Equal(t, seals, relaytest.Count(t, s.admin, "sametick.audit_heads"), "nothing new, no head")
	s.write(40) // a second backlog, found as a difference
	s.seal()
	s.whole(90)
}

// What is written while a first backlog is paged has leaves before the cursor has passed it, and hides nothing that comes
// after it. Each trigger writes between two rounds.
func TestWrittenWhileTheFirstBacklogIsPaged(t *testing.T) {
	t.Parallel()
	s := newSealed(t, 3)
	s.write(4)
	s.exec(`CREATE FUNCTION public.writes() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
		BEGIN
		  PERFORM sametick.record_event(1, 'task', i, 'post_update') FROM generate_series(1, TG_ARGV[0]::int) i;
		  RETURN NULL;
		END $$`)
	s.exec("CREATE TRIGGER first AFTER INSERT ON sametick.audit_heads FOR EACH ROW WHEN (NEW.seal = 1) EXECUTE FUNCTION public.writes('3')")
	s.exec("CREATE TRIGGER last AFTER INSERT ON sametick.audit_heads FOR EACH ROW WHEN (NEW.seal = 3) EXECUTE FUNCTION public.writes('5')")
	s.seal()
	s.whole(12)
}

// A relay that is killed, or fails, at each of a seal's writes leaves nothing of it.
func TestKilledInMidSeal(t *testing.T) {
	t.Parallel()
	s := newSealed(t, 10)
	s.write(5)
	s.seal()
	s.write(25)
	s.exec(`CREATE FUNCTION public.fault() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
		BEGIN
		  IF TG_ARGV[0] = 'kill' THEN PERFORM pg_terminate_backend(pg_backend_pid()); END IF;
		  RAISE EXCEPTION 'injected fault';
		END $$`)
	for _, table := range []string{"audit_heads", "audit_leaves"} {
		for _, how := range []string{"raise", "kill"} {
			s.exec(fmt.Sprintf("CREATE TRIGGER fault AFTER INSERT ON sametick.%s FOR EACH ROW EXECUTE FUNCTION public.fault('%s')", table, how))
			require.Error(t, s.sealer.Run(t.Context()), "%s at %s", how, table)
			r := s.verify(nil)
			require.Empty(t, r.Findings)
			require.Equal(t, []int64{5, 25}, []int64{r.Leaves, r.Unsealed}, "%s at %s", how, table)
			s.exec("DROP TRIGGER fault ON sametick." + table)
		}
	}
	s.seal()
	s.whole(30)
}

// Any history that two relays at once seal beside writers of all kinds, some of whom begin early, commit late or
// roll back, while sessions are cut: no gap, no entry twice, all of them. Cuts follow progress and not a clock, and writers go
// on until the relays have met: on a busy machine a clock cuts every round.
func TestAnyHistoryIsSealedOnce(t *testing.T) {
	t.Parallel()
	s := newSealed(t, 5)
	ctx, stop := context.WithCancel(t.Context())
	sealers := []*store.Sealer{s.another(5), s.another(3)}
	one, two := sealers[0].Stats, sealers[1].Stats
	var cuts atomic.Int64
	met := func() bool {
		return one.Seals.Load() > 0 && two.Seals.Load() > 0 && one.Lost.Load()+two.Lost.Load() > 0 && cuts.Load() > 0
	}
	var relays, writers sync.WaitGroup
	for _, sealer := range sealers {
		relays.Go(func() {
			for ctx.Err() == nil {
				err := sealer.Run(ctx) // cut sessions fail; the next run goes on
				if errs.HasReason(err, store.ReasonLogTampered) {
					t.Errorf("a lost race is no tampering: %v", err)
				}
			}
		})
	}
	relays.Go(func() { // cuts one session after every other head
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for seen := int64(0); ctx.Err() == nil; <-tick.C {
			heads := one.Seals.Load() + two.Seals.Load()
			if heads < seen+2 {
				continue
			}
			var cut bool
			if err := s.admin.QueryRow(ctx, `SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE datname = current_database() AND usename = 'sametick_relay' ORDER BY random() LIMIT 1`).Scan(&cut); err == nil && cut {
				seen = heads
				cuts.Add(1)
			}
		}
	})
	patience, enough := context.WithTimeout(t.Context(), time.Minute)
	defer enough()
	for i := range 6 {
		writers.Go(func() {
			r := rand.New(rand.NewPCG(uint64(i), 4))
			for n := 0; n < 40 || !met() && patience.Err() == nil; n++ {
				s.writeSomehow(r, 1+i, 1+n)
			}
		})
	}
	writers.Wait()
	stop()
	relays.Wait()
	s.sealer.Pool.Reset()
	s.seal()
	s.whole(relaytest.Count(t, s.admin, "sametick.audit_entries"))
	require.True(t, met(), "heads %d and %d, lost %d and %d, cuts %d", one.Seals.Load(), two.Seals.Load(), one.Lost.Load(), two.Lost.Load(), cuts.Load())
}

// writeSomehow is a transaction that begins early, commits late, or rolls back.
func (s *sealed) writeSomehow(r *rand.Rand, org, id int) {
	ctx := s.t.Context()
	_ = pgx.BeginFunc(ctx, s.admin, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, "SELECT pg_current_xact_id(), pg_sleep($1)", float64(r.IntN(10))/1000); err != nil {
			return err
		}
		for range 1 + r.IntN(4) {
			if _, err := tx.Exec(ctx, "SELECT sametick.record_event($1, 'task', $2, 'post_update'), pg_sleep($3)", org, id, float64(r.IntN(4))/1000); err != nil {
				return err
			}
		}
		if r.IntN(4) == 0 {
			return context.Canceled // rolls back
		}
		return nil
	})
}

// After a restore from a dump transaction ids begin anew: all without a leaf is sealed, and nothing again.
func TestXidsThatBeganAnew(t *testing.T) {
	t.Parallel()
	s := newSealed(t, 10)
	s.write(25)
	s.seal()
	r := s.verify(nil)
	s.write(4)
	// A head of another cluster, where ids were a billion further on; the key is the same.
	signer, err := auditlog.ParseSigner(s.private)
	require.NoError(t, err)
	note, err := signer.Sign(auditlog.Head{Size: 25, Root: r.Head.Root, SealedAt: time.Now(),
		Cursor: auditlog.Cursor(4, "1000000000:1000000000:", "", 0, 25, "1000000001", 77)})
	require.NoError(t, err)
	s.exec(`INSERT INTO sametick.audit_heads (seal, size, snapshot, page_after, max_id, claim_xid, system_identifier, note)
		VALUES (4, 25, '1000000000:1000000000:', 0, 25, '1000000001', 77, $1)`, note)
	s.seal()
	s.write(4)
	s.seal()
	s.whole(33)
	seals := relaytest.Count(t, s.admin, "sametick.audit_heads")
	s.seal()
	require.Equal(t, seals, relaytest.Count(t, s.admin, "sametick.audit_heads"))
}

// A relay signs nothing on top of a log that somebody has rewritten.
func TestNothingIsSignedOverARewrittenLog(t *testing.T) {
	t.Parallel()
	for name, sql := range map[string]string{
		"hash":   `UPDATE sametick.audit_leaves SET hashes = overlay(hashes placing '\x00'::bytea from octet_length(hashes)) WHERE leaf = 7`,
		"gone":   `DELETE FROM sametick.audit_leaves WHERE leaf = 7`,
		"head":   `UPDATE sametick.audit_heads SET note = replace(note, '8', '9')`,
		"cursor": `UPDATE sametick.audit_heads SET max_id = max_id + 1`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSealed(t, 10)
			s.write(8)
			s.seal()
			s.write(1)
			for _, table := range []string{"audit_leaves", "audit_heads"} {
				s.exec("ALTER TABLE sametick." + table + " DISABLE TRIGGER append_only")
			}
			s.exec(sql)
			err := s.sealer.Run(t.Context())
			require.True(t, errs.HasReason(err, store.ReasonLogTampered), "%v", err)
			require.NotZero(t, s.verify(nil).Unsealed)
		})
	}
}

// Leaves that no head covers are in the way for ever: it must be said. The control is the race below, whose loser fails on
// a unique key as well.
func TestANewestHeadThatIsGoneIsNoRace(t *testing.T) {
	t.Parallel()
	for name, where := range map[string]string{"newest": "seal = 2", "all": "true"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSealed(t, 10)
			for range 2 {
				s.write(8)
				s.seal()
			}
			s.write(1)
			s.exec("ALTER TABLE sametick.audit_heads DISABLE TRIGGER append_only")
			s.exec("DELETE FROM sametick.audit_heads WHERE " + where)
			err := s.sealer.Run(t.Context())
			require.True(t, errs.HasReason(err, store.ReasonLogTampered), "%v", err)
			require.Zero(t, s.sealer.Stats.Lost.Load())
		})
	}
}

// Of two relays that seal the same entries one wins, and the other has no error.
func TestALostRaceIsNoError(t *testing.T) {
	t.Parallel()
	s := newSealed(t, 10)
	s.write(5)
	s.seal()
	s.write(5)
	gate, err := s.admin.Begin(t.Context())
	require.NoError(t, err)
	_, err = gate.Exec(t.Context(), "LOCK TABLE sametick.audit_heads IN EXCLUSIVE MODE") // reads pass
	require.NoError(t, err)
	sealers := []*store.Sealer{s.another(10), s.another(10)}
	failed := make(chan error, len(sealers))
	for _, sealer := range sealers {
		go func() { failed <- sealer.Run(t.Context()) }()
	}
	relaytest.Eventually(t, func() bool {
		return relaytest.Count(t, s.admin, "pg_locks WHERE NOT granted AND relation = 'sametick.audit_heads'::regclass") == 2
	}, "both have read the newest head and wait to write the next")
	require.NoError(t, gate.Commit(t.Context()))
	for range sealers {
		require.NoError(t, <-failed)
	}
	require.EqualValues(t, 1, sealers[0].Stats.Seals.Load()+sealers[1].Stats.Seals.Load())
	require.EqualValues(t, 1, sealers[0].Stats.Lost.Load()+sealers[1].Stats.Lost.Load())
	s.whole(10)
}

// Proofs of every entry and between every two sizes hold, and of another organisation's neither guess.
func TestProofs(t *testing.T) {
	t.Parallel()
	s := newSealed(t, 4)
	log := store.NewAuditLog(s.sealer.Pool)
	_, _, err := log.Head(t.Context())
	require.True(t, errs.HasReason(err, "NOTHING_SEALED"))
	heads := map[int64]auditlog.Head{}
	for range 4 {
		s.write(5)
		s.seal()
		signed, size, err := log.Head(t.Context())
		require.NoError(t, err)
		heads[size], err = s.verifier.Open(signed)
		require.NoError(t, err)
	}
	rows, err := s.admin.Query(t.Context(), "SELECT "+auditdb.Columns+" FROM sametick.audit_entries e ORDER BY id")
	require.NoError(t, err)
	entries, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (auditlog.Entry, error) { return auditdb.ScanEntry(row) })
	require.NoError(t, err)
	for _, e := range entries {
		p, err := log.Inclusion(t.Context(), e.ID)
		require.NoError(t, err)
		b := auditlog.Bundle{Entry: e, Proof: p}
		_, err = b.Verify(s.verifier)
		require.NoError(t, err)
		b.Entry.Action += "d"
		_, err = b.Verify(s.verifier)
		require.ErrorContains(t, err, "changed")
	}
	for from, older := range heads {
		for to, newer := range heads {
			hashes, err := log.Consistency(t.Context(), from, to)
			if from > to {
				require.Equal(t, errs.Invalid, errs.KindOf(err))
				continue
			}
			require.NoError(t, err)
			require.NoError(t, auditlog.CheckConsistency(older, newer, hashes))
			older.Root[0] ^= 1
			require.Error(t, auditlog.CheckConsistency(older, newer, hashes))
			older.Root[0] ^= 1
		}
	}
	s.write(1)
	_, err = log.Inclusion(t.Context(), 21)
	require.True(t, errs.HasReason(err, "NOT_SEALED"))
	for _, bounds := range [][2]int64{{0, 1}, {1, 21}, {-5, -1}, {1, 1 << 62}} {
		_, err = log.Consistency(t.Context(), bounds[0], bounds[1])
		require.Equal(t, errs.Invalid, errs.KindOf(err), "%v", bounds)
	}
}

// The polls go by their indexes whatever statistics say.
func TestSealingReadsOnlyWhatIsNew(t *testing.T) {
	t.Parallel()
	s := newSealed(t, 5000)
	s.write(3000)
	s.seal()
	s.write(3)
	tx, err := s.sealer.Pool.Begin(t.Context())
	require.NoError(t, err)
	defer func() { require.NoError(t, tx.Rollback(t.Context())) }()
	plan := store.ExplainDifference(t, tx)
	require.Contains(t, plan, "txid", plan)
	require.NotContains(t, plan, "Seq Scan on audit_entries", plan)
	require.Less(t, strings.Count(plan, "\n"), 200)
}
