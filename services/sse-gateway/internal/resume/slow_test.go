package resume_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sametick/sametick/services/sse-gateway/internal/hub"
	"github.com/sametick/sametick/services/sse-gateway/internal/resume"
)

// laggard is a reader whose answers take a while, as they do while Redis and then the log are waited for.
type laggard struct {
	resume.Reader
	takes time.Duration
}

func (l *laggard) Read(ctx context.Context, org, after int64) (resume.Page, error) {
	select {
	case <-time.After(l.takes):
		return l.Reader.Read(ctx, org, after)
	case <-ctx.Done():
		return resume.Page{}, ctx.Err()
	}
}

// replay serves everything from the beginning over a reader that takes so long for each page of 7.
func replay(t *testing.T, takes time.Duration, terms resume.Terms) ([]string, error) {
	w := newWorld()
	w.append(7, 10)
	w.hear(100)
	w.append(1, 2000)
	reader := &laggard{Reader: w.reader}
	sub, err := w.hub.Attach(t.Context(), w.org, hub.Identity{Subject: "user:1"}, hub.Filter{})
	require.NoError(t, err)
	defer sub.Close()
	from := int64(0)
	s, err := resume.Open(t.Context(), sub, reader, &from, nil)
	require.NoError(t, err)
	defer s.Close()
	reader.takes = takes
	sink := &script{begin: time.Now()}
	err = resume.Run(t.Context(), s, sink, terms)
	return sink.lines, err
}

// A page that is long in coming keeps back no heartbeat, and neither the end of a token nor of the process.
func TestHeartbeatsGoOnWhileAPageIsAwaited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		lines, err := replay(t, 5*time.Second, resume.Terms{Heartbeat: 2 * time.Second, Expires: time.Now().Add(5500 * time.Millisecond)})
		require.ErrorIs(t, err, resume.ErrExpired)
		require.Equal(t, []string{"0s begin 0", "0s send 7", "2s heartbeat 13 false", "4s heartbeat 13 false", "5s send 1"}, lines)
	})
}

func TestAStreamThatAwaitsAPageEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		_, err := replay(t, time.Hour, resume.Terms{Heartbeat: time.Minute, Expires: time.Now().Add(6 * time.Second)})
		require.ErrorIs(t, err, resume.ErrExpired)
		require.Equal(t, 6*time.Second, time.Since(begin))

		begin = time.Now()
		drain := make(chan struct{})
		time.AfterFunc(3*time.Second, func() { close(drain) })
		_, err = replay(t, time.Hour, resume.Terms{Heartbeat: time.Minute, Expires: time.Now().Add(time.Hour), Drain: drain, DrainOver: time.Second})
		require.ErrorIs(t, err, resume.ErrDrained)
		require.Less(t, time.Since(begin), 4*time.Second)
	})
}

// A page goes out in portions, between which the stream can end: a client that reads slowly takes long over a page,
// and neither a stopping process nor an expired token waits for it.
func TestAPageGoesOutInPortions(t *testing.T) {
	w := newWorld()
	w.append(7, 20_000)
	w.hear(1)
	from := int64(0)
	sub, s := w.open(t, &from)
	defer sub.Close()
	defer s.Close()
	var got []int64
	for len(got) < 7 {
		step, err := next(sub, s)
		require.NoError(t, err)
		require.LessOrEqual(t, len(step.Frames), 2, "32 KiB are enough, an event is 20 KiB")
		got = append(got, positions(t, step.Frames)...)
		if len(got) > 0 && len(got) < 7 {
			require.Equal(t, got[len(got)-1], s.Position(), "what was not given out is not behind it")
		}
	}
	require.Equal(t, w.want(0), got)
}
