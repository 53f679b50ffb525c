package app

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sametick/sametick/services/outbox-relay/internal/store"
)

// HoldLockSilently takes the leader's lock and never renews it.
func HoldLockSilently(t *testing.T, url string) {
	l, err := store.TryLock(t.Context(), url)
	require.NoError(t, err)
	require.NotNil(t, l)
	t.Cleanup(l.Close)
}
