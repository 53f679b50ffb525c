package lead_test

import (
	"log/slog"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/sametick/sametick/pkg/auditlog"
	"github.com/sametick/sametick/pkg/auditlog/auditdb"
	"github.com/sametick/sametick/pkg/redistest"
	"github.com/sametick/sametick/services/outbox-relay/internal/lead"
	"github.com/sametick/sametick/services/outbox-relay/internal/relaytest"
	"github.com/sametick/sametick/services/outbox-relay/internal/store"
)

// Two whole relays lead at once and seal, one is stopped in the middle: every entry is a leaf once, and events
// are sequenced as without.
func TestTwoLeadersSealOnce(t *testing.T) {
	t.Parallel()
	db, red := relaytest.Database(t), redistest.New(t)
	pool := db.Pool(t)
	private, public, err := auditlog.GenerateKey("audit.test")
	require.NoError(t, err)
	signer, err := auditlog.ParseSigner(private)
	require.NoError(t, err)
	verifier, err := auditlog.NewVerifier(public)
	require.NoError(t, err)
	begin := func() (*active, *store.SealStats) {
		stats := &store.SealStats{}
		s := &store.Sealer{Pool: pool, Signer: signer, Verifier: verifier, Batch: 4, Logger: slog.New(slog.DiscardHandler), Stats: stats}
		return startActive(t, db.URL, red.URL, options{batch: 5, chores: []lead.Chore{{Name: "sealing", Every: time.Millisecond, Do: s.Run}}}), stats
	}
	one, first := begin()
	_, second := begin()
	done := make(chan int64, 1)
	go func() { done <- writers(t, pool, 6, 40) }()
	relaytest.Eventually(t, func() bool { return first.Seals.Load() > 5 && second.Seals.Load() > 5 }, "both seal")
	one.stop()
	<-done
	want := relaytest.Count(t, pool, "sametick.audit_entries")
	relaytest.Eventually(t, func() bool { return relaytest.Count(t, pool, "sametick.audit_leaves") == want }, "%d leaves", want)
	settled(t, db, red.URL)
	conn, err := pgx.Connect(t.Context(), db.URL)
	require.NoError(t, err)
	r, err := auditdb.Verify(t.Context(), conn, verifier, nil)
	require.NoError(t, err)
	require.NoError(t, conn.Close(t.Context()))
	require.Empty(t, r.Findings)
	require.Equal(t, want, r.Leaves)
	require.Zero(t, r.Unsealed)
	require.Positive(t, first.Lost.Load()+second.Lost.Load(), "they have met")
}
