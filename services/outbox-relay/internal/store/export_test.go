package store

import (
	"strconv"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
)

// ExplainDifference plans the sealer's poll as the sealer does.
func ExplainDifference(t *testing.T, tx pgx.Tx) (plan string) {
	_, err := tx.Exec(t.Context(), sealSettingsSQL)
	require.NoError(t, err)
	h, err := newestHead(t.Context(), tx)
	require.NoError(t, err)
	rows, err := tx.Query(t.Context(), "EXPLAIN "+sealDifferenceSQL, strconv.FormatUint(h.snapshot.Xmax, 10), xids(h.snapshot.Xip, nil), 5001)
	require.NoError(t, err)
	lines, err := pgx.CollectRows(rows, pgx.RowTo[string])
	require.NoError(t, err)
	for _, l := range lines {
		plan += l + "\n"
	}
	return plan
}
