package store_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sametick/sametick/pkg/pgtest"
	"github.com/sametick/sametick/services/outbox-relay/internal/relaytest"
	"github.com/sametick/sametick/services/outbox-relay/internal/store"
)

// A promotion is seen at once. Its checkpoint, which alone brings the new timeline into the control file, is spread
// over minutes when there is anything to write.
func TestAPromotionIsSeenBeforeItsCheckpoint(t *testing.T) {
	server := pgtest.Private(t, map[string]string{"wal_level": "replica", "checkpoint_timeout": "1h"})
	require.NoError(t, relaytest.Migrate(t.Context(), server.URL))
	require.EqualValues(t, 1, timeline(t, server.URL))
	pool := pgtest.Pool(t, server.URL)
	relaytest.Write(t, pool, 1, 1, 500)
	pool.Close()
	require.NoError(t, server.Kill()) // so that there is WAL to replay, and pages to write
	require.NoError(t, os.WriteFile(filepath.Join(server.Dir(), "data", "standby.signal"), nil, 0o644))
	require.NoError(t, server.Start(t.Context()))
	promote := pgtest.Pool(t, server.URL)
	_, err := promote.Exec(t.Context(), "SELECT pg_promote()")
	require.NoError(t, err)
	require.EqualValues(t, 2, timeline(t, server.URL))
}

func timeline(t *testing.T, url string) int32 {
	s, err := store.OpenSession(t.Context(), url)
	require.NoError(t, err)
	defer s.Close()
	c, _, err := s.Load()
	require.NoError(t, err)
	return c.Identity.Timeline
}
