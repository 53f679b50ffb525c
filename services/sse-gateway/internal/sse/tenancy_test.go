package sse_test

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// queries gives every combination of filters and positions, over what only the other organisation has.
func queries() (out []url.Values) {
	types := [][]string{nil, {"task"}, {"secret_type"}, {"task", "secret_type"}}
	ids := [][]string{nil, {"7"}, {"4242"}}
	events := [][]string{nil, {"*"}, {"*.*"}, {"task.*"}, {"*.post_create"}, {"secret_type.stolen"}, {"*.stolen"}}
	for _, typ := range types {
		for _, id := range ids {
			for _, event := range events {
				for _, last := range [][]string{nil, {"0"}, {"3"}} {
					q := url.Values{}
					for name, values := range map[string][]string{"aggregate_type": typ, "aggregate_id": id, "event_type": event, "last_event_id": last} {
						if values != nil {
							q[name] = values
						}
					}
					out = append(out, q)
				}
			}
		}
	}
	return out
}

// TestNoFilterShowsAnotherOrganisation: both organisations share a shard, a stream in Redis and the
// numbering; whatever one asks for, it gets of the other nothing but gaps. The control is the other's own
// token, which the same queries show it all to.
func TestNoFilterShowsAnotherOrganisation(t *testing.T) {
	t.Parallel()
	g := start(t, func(s *settings) { s.heartbeat = 50 * time.Millisecond })
	emit := func() {
		for range 3 {
			g.log.Append(g.other, "task", "post_create", 7, "zq-secret")
			g.log.Append(g.other, "secret_type", "stolen", 4242, "zq-secret")
			g.log.Append(g.org, "task", "post_create", 7, "mine")
			g.log.Append(g.org, "employee", "post_update", 8, "mine")
		}
		require.NoError(t, g.redis.Publish(t.Context()))
	}
	emit()
	all := queries()
	mine, others := make([]*conn, len(all)), make([]*conn, len(all))
	for i, q := range all {
		mine[i] = g.open("?"+q.Encode(), g.bearer())
		defer mine[i].close()
		others[i] = g.open("?" + q.Encode() + "&token=" + g.tokenFor(g.other, time.Hour))
		defer others[i].close()
		require.Equal(t, http.StatusOK, mine[i].res.StatusCode)
	}
	emit() // what streams that are open see
	head := g.log.Head(shard)
	shown := 0
	for i, q := range all {
		text := upTo(t, mine[i], head)
		require.NotContains(t, text, "zq-secret", "%v", q)
		require.NotContains(t, text, fmt.Sprintf(`"org_id":%d`, g.other), "%v", q)
		require.NotContains(t, text, "secret_type", "%v", q)
		if strings.Contains(upTo(t, others[i], head), "zq-secret") {
			shown++
		}
	}
	require.Greater(t, shown, len(all)/2, "most of the queries select something of the other's")
	for _, q := range []string{"?org_id=1", "?org=1", "?organization_id=1", "?shard=3"} {
		c := g.open(q, g.bearer())
		require.Equal(t, http.StatusBadRequest, c.res.StatusCode, q)
		c.close()
	}
}

// upTo reads a stream until its position has come to head, and gives all that it said.
func upTo(t *testing.T, c *conn, head int64) string {
	t.Helper()
	var said []string
	for {
		m, err := c.next()
		require.NoError(t, err)
		said = append(said, m.raw)
		if m.id != "" && number(t, m.id) >= head {
			return strings.Join(said, "")
		}
	}
}
