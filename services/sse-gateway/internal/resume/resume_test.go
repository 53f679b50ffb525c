package resume_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"github.com/sametick/sametick/pkg/stream"
	"github.com/sametick/sametick/pkg/stream/streamtest"
	"github.com/sametick/sametick/services/sse-gateway/internal/feed"
	"github.com/sametick/sametick/services/sse-gateway/internal/hub"
	"github.com/sametick/sametick/services/sse-gateway/internal/resume"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const shard = 3

// world is a log, a hub that hears of it when told to, and a reader of the log.
type world struct {
	log    *streamtest.Log
	hub    *hub.Hub
	reader resume.Reader
	org    int64
	other  int64

	mu    sync.Mutex
	heard int64
}

func newWorld() *world {
	orgs := streamtest.Orgs(shard, 2)
	w := &world{log: streamtest.NewLog(), org: orgs[0], other: orgs[1],
		hub: hub.New(hub.Options{RingBytes: 1, MaxPerOrg: 100, MaxPerToken: 100})} // one chunk: overrun is near
	w.reader = feed.Reader{Source: stream.New(stream.Options{Log: w.log.Direct(), Limit: 7})}
	w.hub.Begin(shard, 0)
	return w
}

func (w *world) append(n, bytes int) {
	for range n {
		w.log.Append(w.org, "task", "post_create", 1, strings.Repeat("x", bytes))
		w.log.Append(w.other, "task", "post_create", 1, "not yours")
	}
}

// hear publishes up to n positions that the hub has not heard of.
func (w *world) hear(n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	list := w.log.Entries(shard, w.heard, 0)
	list = list[:min(n, len(list))]
	if len(list) == 0 {
		return
	}
	out := make([]hub.Entry, len(list))
	for i, e := range list {
		out[i] = hub.Entry{Position: e.Position, OrgID: e.OrgID, EventType: e.EventType,
			AggregateType: e.AggregateType, AggregateID: e.AggregateID, Envelope: e.Envelope}
	}
	through := list[len(list)-1].Position
	w.hub.Publish(shard, w.heard, through, out)
	w.heard = through
}

func (w *world) open(t require.TestingT, last *int64) (*hub.Sub, *resume.Session) {
	sub, err := w.hub.Attach(context.Background(), w.org, hub.Identity{Subject: "user:1"}, hub.Filter{})
	require.NoError(t, err)
	s, err := resume.Open(context.Background(), sub, w.reader, last, nil)
	require.NoError(t, err)
	return sub, s
}

// positions of frames, which must agree with what is in them.
func positions(t require.TestingT, frames []hub.Frame) (out []int64) {
	for _, f := range frames {
		require.True(t, strings.HasPrefix(string(f.Bytes), fmt.Sprintf("id: %d\ndata: {", f.Position)))
		out = append(out, f.Position)
	}
	return out
}

// next gives a session's next step; the wait for a page is none.
func next(sub *hub.Sub, s *resume.Session) (resume.Step, error) {
	for {
		step, err := s.Next(context.Background(), nil)
		if err != nil || step.Wait == nil || step.Reset != 0 || s.Position() >= sub.Newest() {
			return step, err
		}
		<-step.Wait
	}
}

func (w *world) want(after int64) (out []int64) {
	for _, e := range w.log.Entries(shard, after, w.org) {
		out = append(out, e.Position)
	}
	return out
}

// client is a client that reconnects with the last id it saw, over a way of serving.
type client struct {
	w    *world
	last int64
	got  []int64
	next func(t require.TestingT) (frames []hub.Frame, idle bool, err error)
	gone func()
}

// connect serves it properly.
func (c *client) connect(t require.TestingT) {
	sub, s := c.w.open(t, &c.last)
	c.gone = func() { s.Close(); sub.Close() }
	c.next = func(t require.TestingT) ([]hub.Frame, bool, error) {
		step, err := next(sub, s)
		require.Zero(t, step.Reset)
		return step.Frames, step.Wait != nil, err
	}
}

// connectEager is the control: it reads what there is before the stream begins, and goes live at once.
func (c *client) connectEager(t require.TestingT) {
	page, err := c.w.reader.Read(context.Background(), c.w.org, c.last)
	require.NoError(t, err)
	sub, err := c.w.hub.Attach(context.Background(), c.w.org, hub.Identity{Subject: "user:1"}, hub.Filter{})
	require.NoError(t, err)
	c.gone = sub.Close
	c.next = func(require.TestingT) ([]hub.Frame, bool, error) {
		if page.Through > 0 {
			var frames []hub.Frame
			for _, e := range page.Entries {
				frames = append(frames, hub.Frame{Position: e.Position, Bytes: hub.AppendFrame(nil, e.Position, e.Envelope)})
			}
			page.Through = 0
			return frames, false, nil
		}
		frames, more, err := sub.Take(nil, 1<<16)
		return frames, !more, err
	}
}

// program drives a client through random appends, hearing, reading and disconnecting, then to the end.
func (c *client) program(t *rapid.T, connect func(require.TestingT)) error {
	connect(t)
	defer func() { c.gone() }()
	step := func() bool {
		frames, idle, err := c.next(t)
		if err != nil {
			require.ErrorIs(t, err, resume.ErrSlow)
			c.gone()
			connect(t)
			return false
		}
		if n := rapid.IntRange(0, len(frames)).Draw(t, "received"); rapid.IntRange(0, 9).Draw(t, "cut") == 0 {
			frames, idle = frames[:n], false // the rest was lost with the connection
			defer func() { c.gone(); connect(t) }()
		}
		for _, p := range positions(t, frames) {
			c.got, c.last = append(c.got, p), p
		}
		return idle
	}
	for range rapid.IntRange(5, 60).Draw(t, "steps") {
		switch rapid.IntRange(0, 3).Draw(t, "what") {
		case 0:
			c.w.append(rapid.IntRange(1, 12).Draw(t, "n"), 2000)
		case 1:
			c.w.hear(rapid.IntRange(1, 30).Draw(t, "n"))
		default:
			step()
		}
	}
	for c.w.heard < c.w.log.Head(shard) {
		c.w.hear(100)
	}
	for range 2000 {
		if step() {
			break
		}
	}
	if want := c.w.want(0); fmt.Sprint(want) != fmt.Sprint(c.got) {
		return fmt.Errorf("got %v, want %v", c.got, want)
	}
	return nil
}

func TestExactWhateverHappens(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		c := &client{w: newWorld()}
		require.NoError(rt, c.program(rt, c.connect))
	})
}

func TestControlGoesLiveTooEarly(t *testing.T) {
	caught := false
	for seed := range 50 {
		rapid.Custom(func(rt *rapid.T) bool {
			c := &client{w: newWorld()}
			c.w.append(20, 100)
			if err := c.program(rt, c.connectEager); err != nil {
				caught = true
			}
			return true
		}).Example(seed)
	}
	require.True(t, caught, "the exactness test would not notice")
}

func TestSlowWhenTheRingHasMovedOn(t *testing.T) {
	w := newWorld()
	sub, s := w.open(t, nil)
	defer sub.Close()
	w.append(1, 10)
	w.hear(10)
	step, err := s.Next(t.Context(), nil)
	require.NoError(t, err)
	require.Equal(t, []int64{1}, positions(t, step.Frames))
	w.append(40, 2000)
	w.hear(1000)
	_, err = s.Next(t.Context(), nil)
	require.ErrorIs(t, err, resume.ErrSlow)

	last := int64(1)
	sub2, s2 := w.open(t, &last)
	defer sub2.Close()
	got := []int64{1}
	for {
		step, err := next(sub2, s2)
		require.NoError(t, err)
		got = append(got, positions(t, step.Frames)...)
		if step.Wait != nil {
			break
		}
	}
	require.Equal(t, w.want(0), got)
}

func TestReset(t *testing.T) {
	drain := func(sub *hub.Sub, s *resume.Session) (reset int64, got []int64) {
		for {
			step, err := next(sub, s)
			require.NoError(t, err)
			reset = max(reset, step.Reset)
			got = append(got, positions(t, step.Frames)...)
			if step.Wait != nil && step.Reset == 0 {
				return reset, got
			}
		}
	}
	w := newWorld()
	w.append(50, 10)
	w.hear(1000)
	w.log.DropBefore(shard, 41)
	for last, want := range map[int64]int64{0: 0, 10: 41, 40: 0, 100: 0, 101: 101, 1 << 62: 101} {
		sub, s := w.open(t, &last)
		reset, got := drain(sub, s)
		require.Equal(t, want, reset, "after %d", last)
		require.Equal(t, w.want(min(last, 100)), got)
		sub.Close()
	}
}

// A client that another replica has served further than this one has heard is no traveller in time.
func TestAheadOfThisReplica(t *testing.T) {
	w := newWorld()
	w.append(5, 10)
	w.hear(4)
	last := int64(8)
	sub, s := w.open(t, &last)
	defer sub.Close()
	step, err := next(sub, s)
	require.NoError(t, err)
	require.Zero(t, step.Reset)
	require.Equal(t, []int64{9}, positions(t, append([]hub.Frame{}, step.Frames...)), "read from the log")
	w.hear(100)
	step, err = next(sub, s)
	require.NoError(t, err)
	require.Empty(t, step.Frames)
	require.EqualValues(t, 10, s.Position())
}

// script records what a client is told, with the time since the start.
type script struct {
	begin time.Time
	lines []string
}

func (s *script) say(format string, args ...any) error {
	s.lines = append(s.lines, time.Since(s.begin).String()+" "+fmt.Sprintf(format, args...))
	return nil
}
func (s *script) Begin(p int64) error { return s.say("begin %d", p) }
func (s *script) Reset(p int64) error { return s.say("reset %d", p) }
func (s *script) Send(f []hub.Frame) error {
	return s.say("send %d", len(f))
}
func (s *script) Heartbeat(p int64, moved bool) error { return s.say("heartbeat %d %v", p, moved) }

func TestHeartbeatsMoveThePositionAndExpiryEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		sub, err := w.hub.Attach(t.Context(), w.org, hub.Identity{Subject: "user:1"}, hub.Filter{AggregateTypes: []string{"employee"}})
		require.NoError(t, err)
		defer sub.Close()
		s, err := resume.Open(t.Context(), sub, w.reader, nil, nil)
		require.NoError(t, err)
		sink := &script{begin: time.Now()}
		time.AfterFunc(40*time.Second, func() { w.append(2, 10); w.hear(100) })
		time.AfterFunc(50*time.Second, func() { w.log.Append(w.org, "employee", "post_update", 1, ""); w.hear(100) })
		err = resume.Run(t.Context(), s, sink, resume.Terms{Heartbeat: 30 * time.Second, Expires: time.Now().Add(125 * time.Second)})
		require.ErrorIs(t, err, resume.ErrExpired)
		require.Equal(t, []string{"0s begin 0", "30s heartbeat 0 false", "50s send 1", "1m0s heartbeat 5 false",
			"1m30s heartbeat 5 false", "2m0s heartbeat 5 false"}, sink.lines)

		sink = &script{begin: time.Now()}
		time.AfterFunc(10*time.Second, func() { w.append(2, 10); w.hear(100) })
		err = resume.Run(t.Context(), s, sink, resume.Terms{Heartbeat: 30 * time.Second, Expires: time.Now().Add(65 * time.Second)})
		require.ErrorIs(t, err, resume.ErrExpired)
		require.Equal(t, []string{"0s begin 5", "30s heartbeat 9 true", "1m0s heartbeat 9 false"}, sink.lines)
	})
}

func TestDrainSpreadsTheEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		streams := &resume.Streams{Hub: w.hub, Reader: w.reader, Heartbeat: time.Minute, DrainOver: 10 * time.Second}
		request := resume.Request{Org: w.org, Who: hub.Identity{Subject: "user:1"}, Expires: time.Now().Add(time.Hour)}
		ends := make(chan time.Time, 100)
		for range 100 {
			go func() {
				accepted, err := streams.Serve(t.Context(), request, func(context.Context) resume.Sink { return &script{begin: time.Now()} })
				if accepted && errors.Is(err, resume.ErrDrained) {
					ends <- time.Now()
				}
			}()
		}
		synctest.Wait()
		require.EqualValues(t, 100, streams.Stats.Open.Load())
		begin := time.Now()
		take, stop := context.WithCancel(t.Context())
		stop()
		require.NoError(t, streams.Drain(take, t.Context()))
		require.Less(t, time.Since(begin), 10*time.Second)
		require.Greater(t, time.Since(begin), 7*time.Second)
		early := 0
		for range 100 {
			if (<-ends).Sub(begin) < 5*time.Second {
				early++
			}
		}
		require.InDelta(t, 50, early, 30)
		_, err := streams.Serve(t.Context(), request, nil)
		require.ErrorContains(t, err, "SHUTTING_DOWN")
	})
}
