package redistest_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sametick/sametick/pkg/redistest"
)

func TestKillAndStartOnTheSameAddress(t *testing.T) {
	t.Parallel()
	r := redistest.New(t)
	url, pid := r.URL, r.PID()
	require.NoError(t, r.Kill())
	require.NoError(t, r.Start(t.Context()))
	require.Equal(t, url, r.URL)
	require.NotEqual(t, pid, r.PID())
}
