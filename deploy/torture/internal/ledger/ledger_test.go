package ledger_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/sametick/sametick/deploy/torture/internal/ledger"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestWhatIsAppendedIsRead(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ledger")
	l, err := ledger.Create(path)
	require.NoError(t, err)
	want := []ledger.Entry{
		{Outcome: ledger.Committed, Tx: 1, Kind: "short", Events: []ledger.Event{
			{ID: 8401, OrgID: 1, Type: "task", AggregateID: 234, Sequence: 7},
			{ID: 8402, OrgID: 2, Type: "team", AggregateID: 9, Sequence: 1},
		}},
		{Outcome: ledger.Aborted, Tx: 2, Kind: "abort"},
		{Outcome: ledger.Unknown, Tx: 3, Kind: "async", Events: []ledger.Event{{ID: 1, OrgID: 1, Type: "task", AggregateID: 1, Sequence: 1}}},
	}
	for _, e := range want {
		require.NoError(t, l.Append(e))
	}
	require.Equal(t, ledger.Counts{Committed: 1, Aborted: 1, Unknown: 1, Events: 2}, l.Counts())
	require.NoError(t, l.Close())

	file, err := os.Open(path)
	require.NoError(t, err)
	defer func() { require.NoError(t, file.Close()) }()
	var got []ledger.Entry
	require.NoError(t, ledger.Read(file, func(e ledger.Entry) error {
		e.Events = slices.Clone(e.Events)
		got = append(got, e)
		return nil
	}))
	require.Len(t, got, len(want))
	for i := range want {
		require.Equal(t, want[i].Tx, got[i].Tx)
		require.Equal(t, want[i].Outcome, got[i].Outcome)
		require.Equal(t, want[i].Kind, got[i].Kind)
		require.ElementsMatch(t, want[i].Events, got[i].Events)
	}
}

func TestADamagedLedgerIsRefused(t *testing.T) {
	for _, text := range []string{"C\n", "X 1 short\n", "C one short\n", "C 1 short 1:2:task:3\n", "C 1 short 1:2:task:3:x\n", "C 1 short"} {
		require.Error(t, ledger.Read(strings.NewReader(text), func(ledger.Entry) error { return nil }), "%q", text)
	}
}
