package app_test

import (
	"bufio"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sametick/sametick/pkg/wiretest"
)

// replay is a client in the middle of a long replay.
type replay struct {
	t     *testing.T
	s     *suite
	g     *gateway
	res   *http.Response
	lines *bufio.Scanner
	last  int64
	beats int
}

// replayed opens a stream that replays many large events, and reads the first of them: more than fits
// between the gateway and its client is left.
func (s *suite) replayed(g *gateway) *replay {
	r := &replay{t: s.t, s: s, g: g}
	r.connect()
	s.t.Cleanup(func() { _ = r.res.Body.Close() })
	require.True(s.t, r.read(func() bool { return r.last >= 10 }))
	return r
}

// connect connects until a stream begins.
func (r *replay) connect() {
	c := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	require.Eventually(r.t, func() bool {
		req, err := http.NewRequest(http.MethodGet, "http://"+r.g.http+"/api/events/stream", nil)
		require.NoError(r.t, err)
		req.Header.Set("Authorization", "Bearer "+r.s.token(time.Hour))
		req.Header.Set("Last-Event-ID", fmt.Sprint(r.last))
		if r.res, err = c.Do(req); err != nil {
			return false
		}
		if r.res.StatusCode != http.StatusOK {
			_ = r.res.Body.Close()
			return false
		}
		return true
	}, 20*time.Second, 10*time.Millisecond)
	r.lines = bufio.NewScanner(r.res.Body)
	r.lines.Buffer(nil, 1<<20)
}

// read reads until done says so, each event being the one after the last; false when the stream ends before.
func (r *replay) read(done func() bool) bool {
	guard := time.AfterFunc(30*time.Second, func() { _ = r.res.Body.Close() })
	defer guard.Stop()
	id := r.last
	for !done() {
		if !r.lines.Scan() {
			return false
		}
		switch line := r.lines.Text(); {
		case strings.HasPrefix(line, "id: "):
			_, err := fmt.Sscanf(line, "id: %d", &id)
			require.NoError(r.t, err)
		case strings.HasPrefix(line, "data: "):
			require.Equal(r.t, r.last+1, id, "nothing is lost or comes twice")
			r.last = id
		case strings.HasPrefix(line, ": heartbeat"):
			r.beats++
		}
	}
	return true
}

// beat reads until some more heartbeats have come.
func (r *replay) beat(more int) bool {
	want := r.beats + more
	return r.read(func() bool { return r.beats >= want })
}

const large = 2000 // events of 8 KiB

// history is a log of large events, of which Redis has the newest alone.
func (s *suite) history() {
	text := strings.Repeat("x", 8<<10)
	for range large {
		s.log.Append(s.org, "task", "post_create", 5, text)
	}
	require.NoError(s.t, s.pub.Publish(s.t.Context()))
	require.NoError(s.t, s.pub.Trim(s.t.Context(), 5))
}

// The relay accepts and never answers, in the middle of a replay: heartbeats go on, and so does the replay, on the
// same connection, once it answers.
func TestReplayWhileTheLogDoesNotAnswer(t *testing.T) {
	s := newSuite(t)
	s.history()
	wire := wiretest.New(t, s.relay)
	g := s.start("HEARTBEAT_INTERVAL=200ms", "RELAY_ADDR="+wire.Addr())
	r := s.replayed(g)
	wire.Freeze()
	require.True(t, r.beat(5))
	require.Less(t, r.last, int64(large), "it was frozen too late to show anything")
	at := r.last
	wire.Thaw()
	begin := time.Now()
	require.True(t, r.read(func() bool { return r.last == large }))
	require.Greater(t, r.last, at)
	require.Less(t, time.Since(begin), 10*time.Second)
}

// It does not answer for longer than a page is waited for: the stream ends, which a client can tell from
// silence, and goes on where it was once the relay answers.
func TestReplayAfterTheLogDidNotAnswerForLong(t *testing.T) {
	s := newSuite(t)
	s.history()
	wire := wiretest.New(t, s.relay)
	g := s.start("HEARTBEAT_INTERVAL=200ms", "RELAY_ADDR="+wire.Addr())
	r := s.replayed(g)
	wire.Freeze()
	begin := time.Now()
	require.False(t, r.read(func() bool { return r.last == large }), "the stream must end")
	require.Less(t, time.Since(begin), 15*time.Second)
	require.Greater(t, r.beats, 10)
	wire.Thaw()
	begin = time.Now()
	r.connect()
	require.True(t, r.read(func() bool { return r.last == large }))
	require.Less(t, time.Since(begin), 10*time.Second)
}

// Redis accepts and never answers: what it has comes from the log, and while it does not answer too, heartbeats.
func TestReplayWhileRedisDoesNotAnswer(t *testing.T) {
	s := newSuite(t)
	text := strings.Repeat("x", 8<<10)
	for range large {
		s.log.Append(s.org, "task", "post_create", 5, text)
	}
	require.NoError(t, s.pub.Publish(t.Context()))
	g := s.start("HEARTBEAT_INTERVAL=200ms")
	r := s.replayed(g)
	require.NoError(t, s.redis.Pause())
	require.True(t, r.beat(5))
	at := r.last
	require.Less(t, at, int64(large), "it was frozen too late to show anything")
	require.True(t, r.read(func() bool { return r.last > at }), "the log has it all")
	require.NoError(t, s.redis.Continue())
	begin := time.Now()
	require.True(t, r.read(func() bool { return r.last == large }))
	require.Less(t, time.Since(begin), 10*time.Second)
}
