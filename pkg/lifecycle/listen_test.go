package lifecycle_test

import (
	"context"
	"io"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sametick/sametick/pkg/lifecycle"
	"github.com/sametick/sametick/pkg/lifecycletest"
)

// get calls the server on a connection of its own, so that goleak sees no pooled one.
func get(t *testing.T, addr string) (string, error) {
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+addr+"/", nil)
	require.NoError(t, err)
	tr := &http.Transport{DisableKeepAlives: true}
	defer tr.CloseIdleConnections()
	res, err := tr.RoundTrip(req)
	if err != nil {
		return "", err
	}
	defer func() { _ = res.Body.Close() }()
	b, err := io.ReadAll(res.Body)
	return string(b), err
}

func TestHTTPContract(t *testing.T) {
	lifecycletest.Stress(t, func() lifecycle.Component {
		return lifecycle.NewHTTP("web", "127.0.0.1:0", &http.Server{ReadHeaderTimeout: time.Second})
	})
}

func TestHTTPDrain(t *testing.T) {
	for name, c := range map[string]struct {
		grace   time.Duration
		release bool
		want    error
	}{
		"finishes the request in hand": {time.Minute, true, nil},
		"cuts it off after the grace":  {10 * time.Millisecond, false, lifecycle.ErrGrace},
	} {
		t.Run(name, func(t *testing.T) {
			entered, release := make(chan struct{}), make(chan struct{})
			s := lifecycle.NewHTTP("web", "127.0.0.1:0", &http.Server{
				ReadHeaderTimeout: time.Second,
				Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					close(entered)
					select {
					case <-release:
						_, _ = io.WriteString(w, "whole")
					case <-r.Context().Done():
					}
				}),
			})
			require.Empty(t, s.Addr())
			require.NoError(t, s.Start(t.Context()))
			type answer struct {
				body string
				err  error
			}
			got := make(chan answer, 1)
			go func() { b, err := get(t, s.Addr()); got <- answer{b, err} }()
			<-entered
			ctx, cancel := context.WithTimeout(t.Context(), c.grace)
			defer cancel()
			if c.release {
				close(release)
			}
			require.ErrorIs(t, s.Stop(ctx), c.want)
			a := <-got
			if c.want == nil {
				require.NoError(t, a.err)
				require.Equal(t, "whole", a.body)
			} else {
				require.Error(t, a.err)
			}
			_, err := get(t, s.Addr())
			require.Error(t, err, "nothing listens any more")
		})
	}
}

func TestAddressTaken(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer func() { _ = l.Close() }()
	s := lifecycle.NewHTTP("ops", l.Addr().String(), &http.Server{ReadHeaderTimeout: time.Second})
	err = s.Start(t.Context())
	require.ErrorContains(t, err, `ops: cannot listen on "`+l.Addr().String())
	require.NoError(t, s.Stop(t.Context()))
}
