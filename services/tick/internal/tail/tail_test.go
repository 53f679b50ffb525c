package tail_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/sametick/sametick/services/tick/internal/client"
	"github.com/sametick/sametick/services/tick/internal/tail"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// flaky serves the positions after Last-Event-ID, three a connection, and cuts the fourth in half. Every
// second event is filtered out: an id without data.
func flaky(t *testing.T, requests *int) *httptest.Server {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		*requests++
		if *requests == 2 {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		require.Equal(t, "Bearer t", r.Header.Get("Authorization"))
		from, err := strconv.Atoi(r.Header.Get("Last-Event-ID"))
		require.NoError(t, err)
		w.Header().Set("Content-Type", "text/event-stream")
		_, _ = fmt.Fprint(w, "retry: 100\n\n: heartbeat\n\n")
		for p := from + 1; p <= from+3; p++ {
			if p%2 == 0 {
				_, _ = fmt.Fprintf(w, ": heartbeat\nid: %d\n\n", p)
				continue
			}
			_, _ = fmt.Fprintf(w, "id: %d\r\ndata: {\"id\":%d,\"event_type\":\"task.post_create\",\"payload\":{}}\r\n\r\n", p, p)
		}
		_, _ = fmt.Fprintf(w, "id: %d\ndata: {\"id\":%d", from+4, from+4)
	}))
	t.Cleanup(s.Close)
	return s
}

func TestFollowLosesAndRepeatsNothing(t *testing.T) {
	t.Parallel()
	requests := 0
	s := flaky(t, &requests)
	c := client.New(s.URL, "t")
	t.Cleanup(c.HTTP.CloseIdleConnections)
	ctx, cancel := context.WithCancel(t.Context())
	var got []int64
	notices := 0
	require.NoError(t, tail.Follow(ctx, c, nil, "0", tail.Handler{
		Event: func(e tail.Event, raw string) error {
			require.Contains(t, raw, `"payload":{}`)
			got = append(got, e.ID)
			if len(got) == 6 {
				cancel()
			}
			return nil
		},
		Notice: func(string) { notices++ },
	}))
	require.Equal(t, []int64{1, 3, 5, 7, 9, 11}, got)
	require.Greater(t, notices, 2)
}

func TestFollowStopsWhereTryingAgainIsNoUse(t *testing.T) {
	t.Parallel()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusUnauthorized)
		_, _ = fmt.Fprint(w, `{"title":"Unauthorized","detail":"the token has expired","reason":"TOKEN_EXPIRED"}`)
	}))
	t.Cleanup(s.Close)
	c := client.New(s.URL, "t")
	t.Cleanup(c.HTTP.CloseIdleConnections)
	err := tail.Follow(t.Context(), c, nil, "", tail.Handler{Notice: func(text string) { t.Error(text) }})
	require.ErrorContains(t, err, "the token has expired")
	require.True(t, strings.Contains(err.Error(), "SAMETICK_TOKEN"), err)
}

// TestASilentConnectionIsGivenUp: the other end vanished and no packet says so.
func TestASilentConnectionIsGivenUp(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		started := time.Now()
		var opened []time.Duration
		c := client.New("http://sametick.test", "t")
		c.HTTP.Transport = roundTrip(func(r *http.Request) (*http.Response, error) {
			if opened = append(opened, time.Since(started)); len(opened) == 2 {
				cancel()
			}
			body, w := io.Pipe()
			go func() {
				for range 3 { // heartbeats keep it open, then nothing comes
					_, _ = io.WriteString(w, ": heartbeat\n\n")
					<-time.After(30 * time.Second)
				}
			}()
			context.AfterFunc(r.Context(), func() { _ = w.CloseWithError(context.Cause(r.Context())) })
			return &http.Response{StatusCode: http.StatusOK, Body: body, Header: http.Header{}}, nil
		})
		var notice string
		require.NoError(t, tail.Follow(ctx, c, nil, "", tail.Handler{Notice: func(text string) { notice = text }}))
		require.Contains(t, notice, "no heartbeat for")
		require.GreaterOrEqual(t, opened[1], 60*time.Second+tail.Silence)
		require.Less(t, opened[1], 61*time.Second+tail.Silence)
		synctest.Wait()
		<-time.After(2 * time.Minute)
	})
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }
