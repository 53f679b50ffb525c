package oidc

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type roundTrip func() (*http.Response, error)

func (f roundTrip) RoundTrip(*http.Request) (*http.Response, error) { return f() }

// TestAskedSeldom: whatever tokens strangers send, the issuer is asked once in a while.
func TestAskedSeldom(t *testing.T) {
	now := time.Date(2026, 4, 12, 0, 0, 0, 0, time.UTC)
	asked, status := 0, http.StatusOK
	var away error
	k := newKept(roundTrip(func() (*http.Response, error) {
		asked++
		if away != nil {
			return nil, away
		}
		return &http.Response{StatusCode: status, Header: http.Header{"Content-Type": {"application/json"}}, Body: io.NopCloser(strings.NewReader("{}"))}, nil
	}), func() time.Time { return now })
	get := func() (string, error) {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://id.example.com/keys", nil)
		require.NoError(t, err)
		res, err := k.RoundTrip(req)
		if err != nil {
			return "", err
		}
		body, err := io.ReadAll(res.Body)
		require.NoError(t, err)
		require.NoError(t, res.Body.Close())
		return string(body), nil
	}
	for range 100 {
		body, err := get()
		require.NoError(t, err)
		require.Equal(t, "{}", body)
	}
	require.Equal(t, 1, asked)
	require.Zero(t, k.failures.Load())
	now = now.Add(keepFor)
	away = errors.New("away")
	for range 10 {
		_, err := get()
		require.ErrorIs(t, err, away)
	}
	require.Equal(t, 2, asked)
	require.Equal(t, int64(10), k.failures.Load(), "each caller is told")
	now = now.Add(keepFailure)
	away = nil
	_, err := get()
	require.NoError(t, err)
	require.Equal(t, 3, asked)
}

func TestIssued(t *testing.T) {
	v := New("https://id.example.com", "sametick")
	for token, want := range map[string]bool{
		"x.eyJpc3MiOiJodHRwczovL2lkLmV4YW1wbGUuY29tIn0.x": true,
		"x.eyJpc3MiOiJodHRwczovL2lkLmV4YW1wbGUub3JnIn0.x": false,
		"x.eyJpc3MiOjF9.x": false, "x.!.x": false, "x.x": false, "": false, "a.b.c.d": false, "stk_x": false,
		"x." + strings.Repeat("A", maxToken) + ".x": false,
	} {
		require.Equal(t, want, v.Issued(token), token)
	}
}
