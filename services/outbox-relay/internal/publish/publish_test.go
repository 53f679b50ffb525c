package publish_test

import (
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/sametick/sametick/pkg/event"
	"github.com/sametick/sametick/services/outbox-relay/internal/publish"
	"github.com/sametick/sametick/services/outbox-relay/internal/sequence"
)

func TestJudge(t *testing.T) {
	g := &publish.Group{After: 5, Events: []sequence.Event{{Position: 6}, {Position: 7}}}
	for _, c := range []struct {
		what  string
		reply publish.Reply
		want  publish.Verdict
	}{
		{"as expected", publish.Reply{Last: 5}, publish.Added},
		{"another relay added one", publish.Reply{Last: 6, Refused: 1}, publish.Overtaken},
		{"another relay added more", publish.Reply{Last: 9, Refused: 2}, publish.Overtaken},
		{"emptied", publish.Reply{}, publish.Broken},
		{"a replica that lagged", publish.Reply{Last: 4}, publish.Broken},
		{"the tail was deleted, its ID is remembered", publish.Reply{Last: 5, Refused: 1}, publish.Broken},
		{"somebody else's entry", publish.Reply{Last: 1 << 40, Foreign: true, Refused: 2}, publish.Broken},
	} {
		require.Equal(t, c.want, publish.Judge(g, c.reply), c.what)
	}
}

func TestWhole(t *testing.T) {
	require.True(t, publish.Tail{}.Whole())
	require.True(t, publish.Tail{First: 3, Last: 5, Length: 3}.Whole())
	require.False(t, publish.Tail{First: 3, Last: 5, Length: 2}.Whole())
	require.False(t, publish.Tail{First: 3, Last: 5, Length: 3, Foreign: true}.Whole())
}

// Split loses nothing and keeps the order within a shard.
func TestSplit(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var (
			heads  sequence.Positions
			events []sequence.Event
		)
		for i, shard := range rapid.SliceOf(rapid.IntRange(0, event.Shards-1)).Draw(t, "shards") {
			heads[shard]++
			events = append(events, sequence.Event{ID: int64(i), Shard: shard, Position: heads[shard]})
		}
		total := 0
		for _, g := range publish.Split(events) {
			total += len(g.Events)
			for i, e := range g.Events {
				require.Equal(t, g.Shard, e.Shard)
				require.EqualValues(t, i+1, e.Position)
			}
			require.Equal(t, heads[g.Shard], g.End())
		}
		require.Len(t, events, total)
	})
}
