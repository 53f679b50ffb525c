package store_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sametick/sametick/pkg/pgtest"
	"github.com/sametick/sametick/services/webhook-worker/internal/store"
	"github.com/sametick/sametick/services/webhook-worker/internal/workertest"
)

func TestMain(m *testing.M) { workertest.Main(m) }

func TestSchema(t *testing.T) {
	t.Parallel()
	db := workertest.Database(t)
	s := store.New(pgtest.Pool(t, db.URLAs(t, workertest.Role)))
	require.NoError(t, s.CheckSchema(t.Context()))
	_, err := db.Pool(t).Exec(t.Context(), "DELETE FROM sametick.schema_webhook WHERE version_id > 0")
	require.NoError(t, err)
	require.ErrorContains(t, s.CheckSchema(t.Context()), "migrate")
}
