package prompting

import (
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func TestLedger(t *testing.T) {
	at := time.Unix(1000, 0)
	hundred := int64(100)
	limits := Limits{Tokens: &hundred}
	a, b, c := Attempt{1, 1}, Attempt{2, 1}, Attempt{3, 1}
	var l Ledger
	require.NoError(t, l.Reserve(a, Amount{1, 60, 0}, limits, at))
	require.NoError(t, l.Reserve(a, Amount{1, 60, 0}, limits, at), "again")
	require.ErrorIs(t, l.Reserve(b, Amount{1, 41, 0}, limits, at), ErrBudget, "before the call, not after it")
	require.NoError(t, l.Reserve(b, Amount{1, 40, 0}, limits, at))
	require.NoError(t, l.Settle(a, Amount{1, 10, 5}))
	require.NoError(t, l.Settle(a, Amount{1, 90, 5}), "told again")
	require.Equal(t, Amount{1, 10, 5}, l.Spent())
	require.ErrorIs(t, l.Reserve(a, Amount{1, 1, 0}, limits, at), ErrSettled)
	require.ErrorIs(t, l.Settle(c, Amount{}), ErrNotReserved)
	require.Empty(t, l.Expire(at.Add(-1)))
	require.Equal(t, []Attempt{b}, l.Expire(at))
	require.Equal(t, Amount{2, 50, 5}, l.Spent(), "the worst case: it may have been paid for")
	require.NoError(t, l.Settle(b, Amount{}), "it was not")
	require.Equal(t, Amount{1, 10, 5}, l.Spent())
	require.ErrorIs(t, l.Reserve(c, Amount{0, -1, 0}, limits, at), ErrBudget)
}

// TestLedgerNeverExceeds: whatever workers do, in whatever order, and however often they repeat it, what was spent and
// what may still be is within the limits, as long as no attempt takes more than its worst case.
func TestLedgerNeverExceeds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		limit := rapid.Int64Range(0, 300).Draw(t, "limit")
		limits := Limits{Tokens: &limit, Cost: &limit}
		var l Ledger
		now := time.Unix(0, 0)
		worst, told, expires := map[Attempt]Amount{}, map[Attempt]Amount{}, map[Attempt]time.Time{}
		guessed := map[Attempt]bool{}
		attempt := rapid.Custom(func(t *rapid.T) Attempt {
			return Attempt{rapid.Int64Range(1, 8).Draw(t, "run"), rapid.IntRange(1, 2).Draw(t, "no")}
		})
		t.Repeat(map[string]func(*rapid.T){
			"reserve": func(t *rapid.T) {
				a := attempt.Draw(t, "attempt")
				w := Amount{1, rapid.Int64Range(0, 100).Draw(t, "tokens"), rapid.Int64Range(0, 100).Draw(t, "cost")}
				_, known := worst[a]
				if err := l.Reserve(a, w, limits, now.Add(5*time.Second)); err == nil && !known {
					worst[a], expires[a] = w, now.Add(5*time.Second)
				}
			},
			"settle": func(t *rapid.T) {
				a := attempt.Draw(t, "attempt")
				w, known := worst[a]
				part := rapid.Int64Range(0, 10).Draw(t, "part")
				took := Amount{w.Runs, w.Tokens * part / 10, w.Cost * part / 10}
				require.Equal(t, known, l.Settle(a, took) == nil)
				if _, done := told[a]; known && (!done || guessed[a]) {
					told[a], guessed[a] = took, false
				}
			},
			"expire": func(t *rapid.T) {
				now = now.Add(time.Duration(rapid.IntRange(0, 4).Draw(t, "s")) * time.Second)
				var want []Attempt
				for a, w := range worst {
					if _, done := told[a]; !done && !now.Before(expires[a]) {
						told[a], guessed[a] = w, true
						want = append(want, a)
					}
				}
				require.ElementsMatch(t, want, l.Expire(now))
			},
			"": func(t *rapid.T) {
				var spent, held Amount
				for _, a := range slices.Collect(maps.Keys(worst)) {
					if took, done := told[a]; done {
						spent = spent.Plus(took)
					} else {
						held = held.Plus(worst[a])
					}
				}
				require.Equal(t, spent, l.Spent())
				require.Equal(t, held, l.Held())
				require.True(t, limits.Allow(spent.Plus(held)))
			},
		})
	})
}
