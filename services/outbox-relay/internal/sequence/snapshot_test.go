package sequence

import (
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/sametick/sametick/pkg/errs"
)

func TestSnapshotReadsPostgresForm(t *testing.T) {
	s, err := ParseSnapshot("795:799:795,797")
	require.NoError(t, err)
	require.Equal(t, Snapshot{Xmin: 795, Xmax: 799, Xip: []uint64{795, 797}}, s)
	require.Equal(t, "795:799:795,797", s.String())
	for x, ended := range map[uint64]bool{3: true, 795: false, 796: true, 797: false, 798: true, 799: false, 1 << 40: false} {
		require.Equal(t, ended, s.Ended(x), x)
	}
	for _, bad := range []string{"", "1:2", "0:1:", "5:4:", "1:2:2", "1:9:3,3", "1:9:5,4", "a:2:", "1:b:", "1:9:x", "1:2:3:4"} {
		_, err := ParseSnapshot(bad)
		require.Error(t, err, bad)
	}
}

func FuzzSnapshot(f *testing.F) {
	f.Add("795:799:795,797")
	f.Add("3:3:")
	f.Fuzz(func(t *testing.T, text string) {
		s, err := ParseSnapshot(text)
		if err != nil {
			return
		}
		again, err := ParseSnapshot(s.String())
		require.NoError(t, err)
		require.Equal(t, s, again)
	})
}

func TestBoundsStayValidWhenThinned(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var (
			b    Bounds
			all  []Bound
			last Bound
		)
		for range rapid.IntRange(0, 3*maxBounds).Draw(t, "n") {
			last.Xid += uint64(rapid.IntRange(0, 3).Draw(t, "xid"))
			last.MaxID += int64(rapid.IntRange(0, 3).Draw(t, "id"))
			b.Add(last)
			all = append(all, last)
		}
		require.LessOrEqual(t, len(b.list), maxBounds)
		ask := uint64(rapid.IntRange(0, 10*maxBounds).Draw(t, "ask"))
		var best int64
		for _, x := range all {
			if x.Xid <= ask {
				best = x.MaxID
			}
		}
		require.LessOrEqual(t, b.Below(ask), best)
	})
}

func TestIdentity(t *testing.T) {
	c := Cursor{Batch: 9, Snapshot: Snapshot{Xmin: 500, Xmax: 500}, Claimed: Identity{1, 1}}
	now := Snapshot{Xmin: 600, Xmax: 600}
	require.NoError(t, CheckIdentity(c, Identity{1, 1}, now, 599))
	require.NoError(t, CheckIdentity(c, Identity{1, 2}, now, 599), "a failover")
	require.NoError(t, CheckIdentity(First(Identity{}), Identity{1, 1}, now, 0))
	back := Snapshot{Xmin: 400, Xmax: 400}
	for _, err := range []error{
		CheckIdentity(c, Identity{2, 1}, back, 0),
		CheckIdentity(Cursor{Snapshot: back, Paging: &now}, Identity{2, 1}, Snapshot{Xmin: 450, Xmax: 450}, 0),
		CheckIdentity(First(Identity{}), Identity{2, 1}, now, 600),
	} {
		require.True(t, errs.HasReason(err, ReasonXidsWentBack))
		require.ErrorContains(t, err, "outbox-relay rebase")
	}
}
