package netguard_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sametick/sametick/pkg/netguard"
)

// proxy is an egress proxy that answers CONNECT as told; a status of 200 leads to the target.
func proxy(t *testing.T, status int, target string) (*url.URL, *[]*http.Request) {
	var asked []*http.Request
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked = append(asked, r)
		if status != http.StatusOK {
			w.WriteHeader(status)
			return
		}
		up, err := net.Dial("tcp", target)
		if err != nil {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		down, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		_, _ = io.WriteString(down, "HTTP/1.1 200 OK\r\n\r\n")
		done := make(chan struct{})
		go func() { _, _ = io.Copy(up, down); _ = up.Close(); close(done) }()
		_, _ = io.Copy(down, up)
		_ = down.Close()
		<-done
	}))
	t.Cleanup(s.Close)
	u, err := url.Parse(s.URL)
	require.NoError(t, err)
	u.User = url.UserPassword("u", "hunter2")
	return u, &asked
}

func TestProxyTunnels(t *testing.T) {
	s, _ := server(t, func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, r.Host) })
	u, asked := proxy(t, http.StatusOK, s.Listener.Addr().String())
	n := resolves("a.example.com")
	transport := &http.Transport{DialContext: guard(t, netguard.Options{Proxy: u, HTTP: true, Resolver: n}).DialContext}
	defer transport.CloseIdleConnections()
	resp, err := (&http.Client{Transport: transport}).Get("http://a.example.com/")
	require.NoError(t, err)
	body, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	require.Equal(t, "a.example.com", string(body))
	require.Equal(t, "a.example.com:80", (*asked)[0].Host)
	require.Equal(t, "Basic dTpodW50ZXIy", (*asked)[0].Header.Get("Proxy-Authorization"))
	require.Empty(t, n.asked, "names are the proxy's to resolve")
}

// A literal address is judged here, proxy or not.
func TestProxyIsNoWayRound(t *testing.T) {
	u, asked := proxy(t, http.StatusOK, "127.0.0.1:1")
	g := guard(t, netguard.Options{Proxy: u})
	for a := range forms() {
		_, err := g.DialContext(t.Context(), "tcp", net.JoinHostPort(a, "443"))
		require.NotEmpty(t, reason(t, err), a)
	}
	_, err := g.DialContext(t.Context(), "tcp", "localhost:443")
	require.Equal(t, "a local name", reason(t, err))
	require.Empty(t, *asked)
}

func TestProxyFaults(t *testing.T) {
	for _, status := range []int{403, 407, 502, 503, 302, 100 + 99} {
		u, _ := proxy(t, status, "")
		_, err := guard(t, netguard.Options{Proxy: u}).DialContext(t.Context(), "tcp", "a.example.com:443")
		var fault *netguard.ProxyError
		require.ErrorAs(t, err, &fault, status)
		require.NotContains(t, err.Error(), "127.0.0.1")
		require.NotContains(t, err.Error(), "hunter2")
	}
	for name, answer := range map[string]string{
		"garbage": "SSH-2.0-x\r\n", "nothing": "", "more than its answer": "HTTP/1.1 200 OK\r\n\r\nhello", "endless head": "HTTP/1.1 200 OK\r\n" + string(make([]byte, 1<<16)),
	} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(t, err)
		done := make(chan struct{})
		go func() {
			defer close(done)
			conn, err := l.Accept()
			if err != nil {
				return
			}
			buf := make([]byte, 4096)
			_, _ = conn.Read(buf)
			_, _ = io.WriteString(conn, answer)
			_ = conn.Close()
		}()
		_, err = guard(t, netguard.Options{Proxy: &url.URL{Scheme: "http", Host: l.Addr().String()}}).DialContext(t.Context(), "tcp", "a.example.com:443")
		var fault *netguard.ProxyError
		require.ErrorAs(t, err, &fault, name)
		require.NoError(t, l.Close())
		<-done
		// The port is closed now: the proxy is down.
		_, err = guard(t, netguard.Options{Proxy: &url.URL{Scheme: "http", Host: l.Addr().String()}}).DialContext(t.Context(), "tcp", "a.example.com:443")
		require.ErrorAs(t, err, &fault, name)
		require.Zero(t, fault.Status)
	}
}

// A proxy that accepts and says nothing holds a dial no longer than its context.
func TestProxyHangs(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer func() { require.NoError(t, l.Close()) }()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err = guard(t, netguard.Options{Proxy: &url.URL{Scheme: "http", Host: l.Addr().String()}}).DialContext(ctx, "tcp", "a.example.com:443")
	var fault *netguard.ProxyError
	require.True(t, errors.As(err, &fault))
	require.ErrorIs(t, ctx.Err(), context.DeadlineExceeded)
}
