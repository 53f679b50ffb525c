package sse_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sametick/sametick/pkg/auth"
)

func TestTheStream(t *testing.T) {
	t.Parallel()
	g := start(t, func(s *settings) {
		s.heartbeat = 150 * time.Millisecond
		s.origins = []string{"https://app.example.com"}
	})
	g.emit(3)
	c := g.open("", g.bearer(), "Accept-Encoding: gzip", "Origin: https://app.example.com")
	defer c.close()
	require.Equal(t, 200, c.res.StatusCode)
	for name, want := range map[string]string{
		"Content-Type": "text/event-stream", "Cache-Control": "no-store, no-transform", "X-Accel-Buffering": "no",
		"Content-Encoding": "", "Access-Control-Allow-Origin": "https://app.example.com", "Vary": "Origin",
	} {
		require.Equal(t, want, c.res.Header.Get(name), name)
	}
	first := g.read(c)
	require.Equal(t, "6", first.id, "a client that leaves before its first event misses nothing")
	require.Empty(t, first.data)
	require.InDelta(t, 2500, number(t, first.retry), 500)

	e := g.log.Append(g.org, "task", "post_update", 234, "two\nlines\r\nid: 99\n\ndata: {}")
	require.NoError(t, g.redis.Publish(t.Context()))
	m := g.read(c)
	for m.comment == "heartbeat" {
		m = g.read(c)
	}
	require.Equal(t, fmt.Sprintf("id: 7\ndata: %s\n\n", e.Envelope), m.raw, "no event field, one data line, byte for byte")
	require.True(t, json.Valid([]byte(m.data)))

	// Another organisation's events, and nothing else, move the id.
	for range 5 {
		g.log.Append(g.other, "task", "post_create", 1, "")
	}
	require.NoError(t, g.redis.Publish(t.Context()))
	for m = g.read(c); m.id == ""; m = g.read(c) {
		require.Equal(t, ": heartbeat\n\n", m.raw)
	}
	require.Equal(t, ": heartbeat\nid: 12\n\n", m.raw)
	require.Equal(t, ": heartbeat\n\n", g.read(c).raw)
}

func TestResumeFromEachSource(t *testing.T) {
	t.Parallel()
	g := start(t, nil)
	g.emit(100)
	stay := g.open("", g.bearer())
	defer stay.close()
	require.Equal(t, "200", g.read(stay).id)
	g.emit(20)
	require.Equal(t, g.want(200), g.events(stay, 20))
	resume := func(query string, header ...string) {
		t.Helper()
		last := number(t, query[strings.LastIndex(query, "=")+1:])
		c := g.open(query, append(header, g.bearer())...)
		defer c.close()
		if h := c.res.Request.Header.Get("Last-Event-ID"); h != "" {
			last = number(t, h)
		}
		want := g.want(last)
		require.Equal(t, want, g.events(c, len(want)))
	}
	resume("?last_event_id=210")
	require.EqualValues(t, 1, g.streams.Stats.Ring.Load())
	resume("?lastEventId=50")
	require.EqualValues(t, 1, g.streams.Stats.Redis.Load())
	require.Zero(t, g.streams.Stats.Log.Load())
	require.NoError(t, g.redis.Trim(t.Context(), 30))
	resume("?last_event_id=0")
	require.EqualValues(t, 1, g.streams.Stats.Log.Load())
	resume("?last_event_id=0", "Last-Event-ID: 230") // the header is newer than the URL
	g.log.DropBefore(shard, 101)
	require.NoError(t, g.redis.Flush(t.Context()))
	resume("?last_event_id=100")

	c := g.open("?last_event_id=17", g.bearer())
	defer c.close()
	require.Equal(t, "100", g.read(c).id)
	require.Equal(t, "id: 100\nevent: reset\ndata: {\"first_position\":101}\n\n", g.read(c).raw)
	require.Equal(t, g.want(100), g.events(c, len(g.want(100))))
	future := g.open("?last_event_id=9223372036854775807", g.bearer())
	defer future.close()
	require.Equal(t, "240", g.read(future).id)
	require.Equal(t, "id: 240\nevent: reset\ndata: {\"first_position\":241}\n\n", g.read(future).raw)
	g.emit(1)
	require.Equal(t, []int64{241}, g.events(future, 1))
}

func TestFilters(t *testing.T) {
	t.Parallel()
	g := start(t, nil)
	for _, query := range []string{"?aggregate_type=task&aggregate_type=team", "?aggregate_id=7&aggregate_id=8", "?event_type=task.*&event_type=*.post_archive",
		"?event_type=*.post_update&aggregate_id=7"} {
		q, err := url.ParseQuery(query[1:])
		require.NoError(t, err)
		from := g.log.Head(shard)
		live := g.open(query, g.bearer())
		g.read(live)
		var want []int64
		for _, typ := range []string{"task", "employee", "team"} {
			for _, action := range []string{"post_update", "post_archive"} {
				for id := int64(6); id < 9; id++ {
					e := g.log.Append(g.org, typ, action, id, "")
					pass := (!q.Has("aggregate_type") || slices.Contains(q["aggregate_type"], typ)) &&
						(!q.Has("aggregate_id") || slices.Contains(q["aggregate_id"], fmt.Sprint(id))) &&
						(!q.Has("event_type") || slices.ContainsFunc(q["event_type"], func(p string) bool {
							return p == typ+".*" || p == "*."+action
						}))
					if pass {
						want = append(want, e.Position)
					}
				}
			}
		}
		require.NoError(t, g.redis.Publish(t.Context()))
		require.Equal(t, want, g.events(live, len(want)), query)
		live.close()
		again := g.open(query+fmt.Sprintf("&last_event_id=%d", from), g.bearer())
		require.Equal(t, want, g.events(again, len(want)), query)
		again.close()
	}
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	g := start(t, nil)
	secret := g.tokenFor(g.org, -time.Minute)
	for name, c := range map[string]struct {
		query, header, reason, field string
		status                       int
	}{
		"no token":          {reason: "TOKEN_MISSING", status: 401},
		"other scheme":      {header: "Authorization: Basic abc", reason: "TOKEN_MISSING", status: 401},
		"no JWT":            {query: "?token=abc", reason: "TOKEN_MALFORMED", status: 401},
		"expired":           {query: "?token=" + secret, reason: "TOKEN_EXPIRED", status: 401},
		"expired, leeway":   {query: "?token=" + g.tokenFor(g.org, -time.Second), reason: "TOKEN_EXPIRED", status: 401},
		"forged":            {query: "?token=" + g.token()[:80] + "AAAA", reason: "TOKEN_MALFORMED", status: 401},
		"scope":             {query: "?token=" + g.token(auth.RecordsRead), reason: "SCOPE_MISSING", status: 403},
		"unknown parameter": {query: "?limit=1", header: g.bearer(), reason: "INVALID_REQUEST", field: "limit", status: 400},
		"pattern":           {query: "?event_type=task.po*", header: g.bearer(), reason: "INVALID_REQUEST", field: "event_type", status: 400},
		"type":              {query: "?aggregate_type=Task%0a", header: g.bearer(), reason: "INVALID_REQUEST", field: "aggregate_type", status: 400},
		"wildcard type":     {query: "?aggregate_type=*", header: g.bearer(), reason: "INVALID_REQUEST", field: "aggregate_type", status: 400},
		"id":                {query: "?aggregate_id=1e3", header: g.bearer(), reason: "INVALID_REQUEST", field: "aggregate_id", status: 400},
		"id 0":              {query: "?aggregate_id=0", header: g.bearer(), reason: "INVALID_REQUEST", field: "aggregate_id", status: 400},
		"negative":          {query: "?last_event_id=-1", header: g.bearer(), reason: "INVALID_REQUEST", field: "last_event_id", status: 400},
		"no number":         {query: "?lastEventId=abc", header: g.bearer(), reason: "INVALID_REQUEST", field: "lastEventId", status: 400},
		"empty":             {query: "?last_event_id=", header: g.bearer(), reason: "INVALID_REQUEST", field: "last_event_id", status: 400},
		"huge":              {query: "?last_event_id=9223372036854775808", header: g.bearer(), reason: "INVALID_REQUEST", field: "last_event_id", status: 400},
		"malformed query":   {query: "?%zz=1;", header: g.bearer(), reason: "INVALID_REQUEST", field: "query", status: 400},
	} {
		t.Run(name, func(t *testing.T) {
			var header []string
			if c.header != "" {
				header = append(header, c.header)
			}
			conn := g.open(c.query, header...)
			defer conn.close()
			var p struct {
				Status    int    `json:"status"`
				Reason    string `json:"reason"`
				RequestID string `json:"request_id"`
				Errors    []struct{ Field, Description string }
			}
			require.NoError(t, json.NewDecoder(conn.r).Decode(&p))
			require.Equal(t, c.status, conn.res.StatusCode)
			require.Equal(t, c.status, p.Status)
			require.Equal(t, c.reason, p.Reason)
			require.Equal(t, "application/problem+json", conn.res.Header.Get("Content-Type"))
			require.NotEmpty(t, p.RequestID)
			require.Equal(t, p.RequestID, conn.res.Header.Get("X-Request-Id"))
			if c.field != "" {
				require.Equal(t, c.field, p.Errors[0].Field)
				require.NotEmpty(t, p.Errors[0].Description)
			}
			if c.status == 401 {
				require.Contains(t, conn.res.Header.Get("WWW-Authenticate"), "Bearer")
			}
		})
	}
	h := g.open("", g.bearer(), "Last-Event-ID: x")
	require.Contains(t, body(t, h), `"field":"Last-Event-ID"`)
	h.close()
	res, err := g.client.Post(g.url, "text/plain", nil)
	require.NoError(t, err)
	require.Equal(t, 405, res.StatusCode)
	require.Equal(t, "GET, HEAD, OPTIONS", res.Header.Get("Allow"))
	require.NoError(t, res.Body.Close())
	require.NotContains(t, g.logs.String(), secret, "the token in a log")
	require.NotContains(t, g.logs.String(), "token=")
}

// HEAD says whether a stream would open, and opens none.
func TestHead(t *testing.T) {
	t.Parallel()
	g := start(t, nil)
	head := func(authorization, query string) *http.Response {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodHead, g.url+query, nil)
		require.NoError(t, err)
		req.Header.Set("Authorization", strings.TrimPrefix(authorization, "Authorization: "))
		res, err := g.client.Do(req)
		require.NoError(t, err)
		require.NoError(t, res.Body.Close())
		return res
	}
	for range 3 {
		res := head(g.bearer(), "")
		require.Equal(t, 200, res.StatusCode)
		require.Equal(t, "text/event-stream", res.Header.Get("Content-Type"))
		require.Equal(t, "no-store, no-transform", res.Header.Get("Cache-Control"))
	}
	require.Zero(t, g.streams.Stats.Open.Load())
	c := g.open("", g.bearer())
	g.read(c)
	require.EqualValues(t, 1, g.streams.Stats.Open.Load(), "that is how one would show")
	c.close()
	require.Equal(t, 401, head("Bearer nobody", "").StatusCode)
	require.Equal(t, 400, head(g.bearer(), "?last_event_id=x").StatusCode)
}

func TestLimits(t *testing.T) {
	t.Parallel()
	g := start(t, func(s *settings) { s.hub.MaxPerToken, s.hub.MaxPerOrg = 1, 2 })
	first := g.open("", g.bearer())
	g.read(first)
	second := g.open("", g.bearer()) // a new token of the same user
	require.Equal(t, 429, second.res.StatusCode)
	require.Equal(t, "5", second.res.Header.Get("Retry-After"))
	require.Contains(t, body(t, second), "TOO_MANY_STREAMS_OF_TOKEN")
	second.close()
	browser := g.open("?token="+g.token(), "Sec-Fetch-Mode: cors")
	require.Equal(t, 200, browser.res.StatusCode, "any other status is final for EventSource")
	require.Regexp(t, `^retry: [5-7]\d\d\d\n\n$`, body(t, browser))
	browser.close()
	foreign := g.open("?token=" + g.tokenFor(g.other, time.Hour))
	require.Equal(t, 200, foreign.res.StatusCode, "the other organisation has its own")
	foreign.close()
	first.close()
	require.Eventually(t, func() bool {
		c := g.open("", g.bearer())
		defer c.close()
		return c.res.StatusCode == http.StatusOK
	}, 10*time.Second, 20*time.Millisecond, "the place is free again")
}

func TestExpiryEndsTheStream(t *testing.T) {
	t.Parallel()
	g := start(t, nil)
	c := g.open("?token=" + g.tokenFor(g.org, 2*time.Second))
	defer c.close()
	g.read(c)
	_, err := c.next()
	require.ErrorContains(t, err, "EOF")
}

func TestTwoOrgsOfOneShard(t *testing.T) {
	t.Parallel()
	g := start(t, nil)
	mine, yours := g.open("?last_event_id=0", g.bearer()), g.open("?last_event_id=0&token="+g.tokenFor(g.other, time.Hour))
	defer mine.close()
	defer yours.close()
	g.emit(200)
	for range 200 {
		for c, org := range map[*conn]int64{mine: g.org, yours: g.other} {
			m := g.read(c)
			for m.data == "" {
				m = g.read(c)
			}
			require.Contains(t, m.data, fmt.Sprintf(`"org_id":%d,`, org))
		}
	}
}

// A socket that nobody reads is cut off, costs the others nothing, and its client resumes exactly.
func TestSlowReader(t *testing.T) {
	t.Parallel()
	g := start(t, func(s *settings) { s.hub.RingBytes = 256 << 10; s.writeTimeout = 500 * time.Millisecond })
	u, err := url.Parse(g.url)
	require.NoError(t, err)
	stalled, err := net.Dial("tcp", u.Host)
	require.NoError(t, err)
	defer func() { _ = stalled.Close() }()
	require.NoError(t, stalled.(*net.TCPConn).SetReadBuffer(4096))
	_, err = fmt.Fprintf(stalled, "GET %s?last_event_id=0 HTTP/1.1\r\nHost: x\r\n%s\r\n\r\n", u.Path, g.bearer())
	require.NoError(t, err)
	quick := g.open("?last_event_id=0", g.bearer())
	defer quick.close()
	g.read(quick)
	got := 0
	longest := time.Duration(0)
	for i := 0; g.streams.Stats.Slow.Load() == 0 && i < 400; i++ {
		for range 30 {
			g.log.Append(g.org, "task", "post_update", 1, strings.Repeat("x", 1000))
		}
		require.NoError(t, g.redis.Publish(t.Context()))
		begin := time.Now()
		got += len(g.events(quick, 30))
		longest = max(longest, time.Since(begin))
	}
	require.EqualValues(t, 1, g.streams.Stats.Slow.Load(), "cut off")
	require.Less(t, longest, 5*time.Second)
	last := g.log.Head(shard) - 40
	again := g.open(fmt.Sprintf("?last_event_id=%d", last), g.bearer())
	defer again.close()
	require.Equal(t, g.want(last), g.events(again, 40))
	require.LessOrEqual(t, g.streams.Hub.RingBytes(), int64(256<<10))
}

func TestThousandClients(t *testing.T) {
	t.Parallel()
	g := start(t, nil)
	const clients, events = 1000, 20
	conns := make([]*conn, clients)
	for i := range conns {
		conns[i] = g.open("", g.bearer())
		g.read(conns[i])
	}
	require.EqualValues(t, clients, g.streams.Stats.Open.Load())
	g.emit(events)
	want := fmt.Sprint(g.want(0))
	var wg sync.WaitGroup
	wrong := make(chan string, clients)
	for _, c := range conns {
		wg.Go(func() {
			defer c.close()
			var got []int64
			for len(got) < events {
				m, err := c.next()
				if err != nil {
					wrong <- err.Error()
					return
				}
				if m.data != "" {
					got = append(got, number(t, m.id))
				}
			}
			if fmt.Sprint(got) != want {
				wrong <- fmt.Sprint(got)
			}
		})
	}
	wg.Wait()
	close(wrong)
	for w := range wrong {
		t.Error(w)
	}
	require.Eventually(t, func() bool { return g.streams.Stats.Open.Load() == 0 && g.streams.Hub.RingBytes() == 0 },
		10*time.Second, 20*time.Millisecond, "rings go with the last subscriber")
}

func TestPreflight(t *testing.T) {
	t.Parallel()
	g := start(t, func(s *settings) { s.origins = []string{"https://app.example.com"} })
	for origin, want := range map[string]string{"https://app.example.com": "https://app.example.com", "https://evil.example": ""} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodOptions, g.url, nil)
		require.NoError(t, err)
		req.Header.Set("Origin", origin)
		res, err := g.client.Do(req)
		require.NoError(t, err)
		require.NoError(t, res.Body.Close())
		require.Equal(t, 204, res.StatusCode)
		require.Equal(t, want, res.Header.Get("Access-Control-Allow-Origin"))
		require.Equal(t, want != "", strings.Contains(res.Header.Get("Access-Control-Allow-Headers"), "Last-Event-ID"))
	}
}

func TestRefusedWhileNothingAnswers(t *testing.T) {
	t.Parallel()
	g := start(t, nil)
	g.emit(5)
	stay := g.open("", g.bearer())
	defer stay.close()
	g.read(stay)
	g.log.SetDown(true)
	require.NoError(t, g.redis.Flush(context.WithoutCancel(t.Context())))
	c := g.open("?last_event_id=1", g.bearer())
	defer c.close()
	require.Equal(t, 503, c.res.StatusCode)
	require.Contains(t, body(t, c), "HISTORY_UNAVAILABLE")
}
