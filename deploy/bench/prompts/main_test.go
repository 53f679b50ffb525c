package main

import (
	"context"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestTheShortFormIsAStartAndNoLimit(t *testing.T) {
	o, err := parse([]string{"--short", "--rounds", "7", "--legs", "async,review"}, io.Discard)
	require.NoError(t, err)
	require.Equal(t, 7, o.rounds)
	require.Equal(t, 10_000, o.runs)
	require.Equal(t, []string{"async", "review"}, o.legs)
	long, err := parse(nil, io.Discard)
	require.NoError(t, err)
	require.Equal(t, 100_000, long.queued)
	for _, args := range [][]string{{"--legs", "none"}, {"--rounds", "0"}, {"--runs", "10"}} {
		_, err := parse(args, io.Discard)
		require.Error(t, err, "%v", args)
	}
}

func TestTheModelAnswersUnlessItStandsStill(t *testing.T) {
	m, err := listen(t.Context())
	require.NoError(t, err)
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	ask := func(within time.Duration) error {
		ctx, cancel := context.WithTimeout(t.Context(), within)
		defer cancel()
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, m.url+"/chat/completions", strings.NewReader("{}"))
		require.NoError(t, err)
		resp, err := client.Do(req)
		if err != nil {
			return err
		}
		text, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		require.Equal(t, completion, string(text))
		return resp.Body.Close()
	}
	require.NoError(t, ask(10*time.Second))
	m.stand()
	require.ErrorIs(t, ask(100*time.Millisecond), context.DeadlineExceeded)
	require.EqualValues(t, 1, m.taken.Load())
	m.goOn()
	require.NoError(t, ask(10*time.Second))
	require.Greater(t, m.taken.Load(), int64(1))
	require.NoError(t, m.close())
}
