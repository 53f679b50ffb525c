package sse_test

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// plan is a client and what befalls it, drawn ahead so that a failure repeats.
type plan struct {
	start int64
	// lives are how many events each connection reads before it is cut; the last one reads to the end.
	lives []int
	wild  bool
}

// Clients come and go at random while events are published and Redis is emptied, crashed, trimmed and
// filled in part: each ends up with exactly what the log has after its first position.
func TestExactOverRandomDisconnects(t *testing.T) {
	t.Parallel()
	g := start(t, func(s *settings) { s.hub.RingBytes = 64 << 10 })
	rapid.Check(t, func(rt *rapid.T) {
		head := g.log.Head(shard)
		plans := rapid.SliceOfN(rapid.Custom(func(rt *rapid.T) plan {
			return plan{
				start: rapid.Int64Range(max(0, head-150), head).Draw(rt, "start"),
				lives: rapid.SliceOfN(rapid.IntRange(0, 40), 0, 6).Draw(rt, "lives"),
				wild:  rapid.Bool().Draw(rt, "filtered"),
			}
		}), 1, 6).Draw(rt, "clients")
		steps := rapid.SliceOfN(rapid.IntRange(0, 12), 3, 10).Draw(rt, "steps")
		end := g.log.Head(shard)
		results := make([]error, len(plans))
		var wg sync.WaitGroup
		for i, p := range plans {
			wg.Go(func() { results[i] = g.follow(p, end) })
		}
		for _, s := range steps {
			switch s {
			case 0:
				require.NoError(rt, g.redis.Flush(t.Context()))
			case 1:
				require.NoError(rt, g.redis.Restart(t.Context()))
			case 2:
				require.NoError(rt, g.redis.Trim(t.Context(), 5))
			case 3:
				require.NoError(rt, g.redis.Refill(t.Context(), 9))
			default:
				for range s * 4 {
					g.log.Append([]int64{g.org, g.other}[rand.IntN(2)], []string{"task", "employee"}[rand.IntN(2)], "post_update", 7, strings.Repeat("y", 300))
				}
				require.NoError(rt, g.redis.Publish(t.Context()))
			}
		}
		g.log.Append(g.org, "task", "post_archive", 99, "end") // every client waits for this one
		require.NoError(rt, g.redis.Publish(t.Context()))
		wg.Wait()
		for _, err := range results {
			if err != nil { // rapid keeps to itself what it cannot repeat
				t.Log(err)
			}
			require.NoError(rt, err)
		}
	})
}

// follow is one client's way to the round's last event, which lies beyond end.
func (g *gateway) follow(p plan, end int64) error {
	query, filter := "", func(string) bool { return true }
	if p.wild {
		query, filter = "&event_type=task.*", func(typ string) bool { return strings.HasPrefix(typ, "task.") }
	}
	lastID, got := fmt.Sprint(p.start), []int64{}
	for life := 0; ; life++ {
		c := g.open("?last_event_id="+fmt.Sprint(p.start)+query, g.bearer(), "Last-Event-ID: "+lastID)
		if c.res.StatusCode != http.StatusOK { // Redis and the hub are finding each other
			c.close()
			return fmt.Errorf("status %d", c.res.StatusCode)
		}
		for read := 0; life >= len(p.lives) || read < p.lives[life]; {
			m, err := c.next()
			if err != nil {
				break // cut off by the server: resume
			}
			lastID = m.id
			if m.event != "" {
				return fmt.Errorf("unexpected %q", m.raw)
			}
			if m.data == "" {
				continue
			}
			read++
			position := number(g.t, m.id)
			got = append(got, position)
			if position > end && strings.Contains(m.data, `"aggregate_id":99,`) {
				c.close()
				return g.verdict(p.start, position, got, filter)
			}
		}
		c.close()
	}
}

func (g *gateway) verdict(start, end int64, got []int64, filter func(string) bool) error {
	var want []int64
	for _, e := range g.log.Entries(shard, start, g.org) {
		if e.Position <= end && filter(e.EventType) {
			want = append(want, e.Position)
		}
	}
	if !slices.Equal(got, want) {
		return fmt.Errorf("after %d: got %v, want %v", start, got, want)
	}
	return nil
}

// The control: a client that resumes at the newest event instead of after its last one loses some,
// and the verdict sees it.
func TestControlResumesAtTheHead(t *testing.T) {
	t.Parallel()
	g := start(t, nil)
	g.emit(10)
	c := g.open("?last_event_id=0", g.bearer())
	got := g.events(c, 10)
	c.close()
	g.emit(5) // while it is away
	c = g.open("", g.bearer())
	defer c.close()
	g.read(c)
	g.emit(10)
	got = append(got, g.events(c, 10)...)
	all := func(string) bool { return true }
	require.Error(t, g.verdict(0, g.log.Head(shard), got, all))
	require.NoError(t, g.verdict(0, 20, got[:10], all))
}

func TestHTTP2WithoutTLS(t *testing.T) {
	t.Parallel()
	g := start(t, nil)
	var protocols http.Protocols
	protocols.SetUnencryptedHTTP2(true)
	transport := &http.Transport{Protocols: &protocols}
	defer transport.CloseIdleConnections()
	g.client = &http.Client{Transport: transport}
	g.emit(3)
	c := g.open("?last_event_id=0", g.bearer())
	defer c.close()
	require.Equal(t, 2, c.res.ProtoMajor)
	require.Equal(t, []int64{1, 3, 5}, g.events(c, 3))
}
