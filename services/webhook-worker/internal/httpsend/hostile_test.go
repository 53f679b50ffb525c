package httpsend_test

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sametick/sametick/pkg/netguard"
	"github.com/sametick/sametick/services/webhook-worker/internal/delivery"
	"github.com/sametick/sametick/services/webhook-worker/internal/httpsend"
)

// raw is a receiver that reads the head and body of a request and then does as it likes with the connection, until it
// returns or the test ends.
func raw(t testing.TB, act func(conn net.Conn, ended <-chan struct{})) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	ended := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer func() { _ = conn.Close() }()
				if req, err := http.ReadRequest(bufio.NewReader(conn)); err == nil {
					_, _ = io.Copy(io.Discard, req.Body)
					act(conn, ended)
				}
			})
		}
	})
	t.Cleanup(func() { close(ended); _ = l.Close(); wg.Wait() })
	return "http://" + l.Addr().String()
}

// says answers with text and closes.
func says(text string) func(net.Conn, <-chan struct{}) {
	return func(c net.Conn, _ <-chan struct{}) { _, _ = io.WriteString(c, text) }
}

// thenHangs answers with text and never ends.
func thenHangs(text string) func(net.Conn, <-chan struct{}) {
	return func(c net.Conn, ended <-chan struct{}) { _, _ = io.WriteString(c, text); <-ended }
}

// drips writes text and then a byte at a time.
func drips(text string) func(net.Conn, <-chan struct{}) {
	return func(c net.Conn, ended <-chan struct{}) {
		_, _ = io.WriteString(c, text)
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-ended:
				return
			case <-tick.C:
				if _, err := io.WriteString(c, "x"); err != nil {
					return
				}
			}
		}
	}
}

// repeats writes text and then another over and over, until nobody reads.
func repeats(text, more string) func(net.Conn, <-chan struct{}) {
	return func(c net.Conn, _ <-chan struct{}) {
		_, _ = io.WriteString(c, text)
		for range 1 << 20 {
			if _, err := io.WriteString(c, more); err != nil {
				return
			}
		}
	}
}

func reset(c net.Conn, _ <-chan struct{}) {
	if tcp, ok := c.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
}

const ok = "HTTP/1.1 200 OK\r\n"

func bomb(t *testing.T) string {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	_, err := z.Write(make([]byte, 32<<20))
	require.NoError(t, err)
	require.NoError(t, z.Close())
	return fmt.Sprintf(ok+"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n%s", b.Len(), b.String())
}

// Every receiver yields its cause within the deadline; what is not answered by a whole 2xx is no success.
func TestHostileReceivers(t *testing.T) {
	for name, c := range map[string]struct {
		act    func(net.Conn, <-chan struct{})
		cause  string
		status int
	}{
		"hangs before headers":      {thenHangs(""), delivery.CauseTimeout, 0},
		"hangs in the status":       {thenHangs("HTTP/1.1 20"), delivery.CauseTimeout, 0},
		"hangs in headers":          {thenHangs(ok + "X: y\r\n"), delivery.CauseTimeout, 0},
		"hangs before the body":     {thenHangs(ok + "Content-Length: 5\r\n\r\n"), delivery.CauseTimeout, 200},
		"drips headers":             {drips(ok + "X: "), delivery.CauseTimeout, 0},
		"drips the body":            {drips(ok + "Content-Length: 100000\r\n\r\n"), delivery.CauseTimeout, 200},
		"drips without an end":      {drips(ok + "\r\n"), delivery.CauseTimeout, 200},
		"drips a failure":           {drips("HTTP/1.1 500 No\r\nContent-Length: 100000\r\n\r\n"), delivery.CauseStatus, 500},
		"closes":                    {says(""), delivery.CauseReset, 0},
		"resets":                    {reset, delivery.CauseReset, 0},
		"closes in the body":        {says(ok + "Content-Length: 500\r\n\r\nhalf"), delivery.CauseReset, 200},
		"closes in a chunk":         {says(ok + "Transfer-Encoding: chunked\r\n\r\nff\r\nhalf"), delivery.CauseReset, 200},
		"no HTTP":                   {says("SSH-2.0-OpenSSH_9.9\r\n"), delivery.CauseProtocol, 0},
		"no status":                 {says("HTTP/1.1 two OK\r\n\r\n"), delivery.CauseProtocol, 0},
		"negative length":           {says(ok + "Content-Length: -5\r\n\r\n"), delivery.CauseProtocol, 0},
		"two lengths":               {says(ok + "Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello!"), delivery.CauseProtocol, 0},
		"1xx storm":                 {repeats("", "HTTP/1.1 102 Processing\r\n\r\n"), delivery.CauseProtocol, 0},
		"early hints, then nothing": {thenHangs("HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"), delivery.CauseTimeout, 0},
		"switches protocols":        {says("HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n"), delivery.CauseStatus, 101},
		"large headers":             {says(ok + "X: " + strings.Repeat("x", 100<<10) + "\r\n\r\n"), delivery.CauseTooLarge, 200},
		"endless headers":           {repeats(ok, "X: "+strings.Repeat("x", 1000)+"\r\n"), delivery.CauseProtocol, 0},
		"a header without an end":   {repeats(ok+"X: ", strings.Repeat("x", 1000)), delivery.CauseProtocol, 0},
		"redirects":                 {says("HTTP/1.1 302 Found\r\nLocation: /again\r\nContent-Length: 0\r\n\r\n"), delivery.CauseRedirect, 302},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel() // most of their time is waiting
			o := httpsend.Options{}
			if strings.Contains(name, "hangs") || strings.Contains(name, "drips") || strings.Contains(name, "then nothing") {
				o.Timeout = short
			}
			s := sender(t, o, netguard.Options{})
			begin := time.Now()
			r := send(t, s, raw(t, c.act))
			require.Equal(t, c.cause, r.Cause, r.Error)
			require.Equal(t, c.status, r.Status)
			require.NotEmpty(t, r.Error)
			require.NotContains(t, r.Error, "127.0.0.1")
			require.Less(t, time.Since(begin), 14*time.Second)
		})
	}
}

// The negative control: what is odd and yet a whole 2xx is delivered, so the suite above does not pass by refusing all.
func TestOddButDelivered(t *testing.T) {
	for name, c := range map[string]struct {
		act       func(net.Conn, <-chan struct{})
		status    int
		body      string
		truncated bool
	}{
		"plain":                       {says(ok + "Content-Length: 2\r\n\r\nhi"), 200, "hi", false},
		"HTTP/1.0 without an end":     {says("HTTP/1.0 200 OK\r\n\r\nhi"), 200, "hi", false},
		"204 with a body":             {says("HTTP/1.1 204 No Content\r\n\r\nHTTP/1.1 500 No\r\n\r\n"), 204, "", false},
		"a few early hints":           {says("HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n" + ok + "Content-Length: 2\r\n\r\nhi"), 200, "hi", false},
		"100 MB":                      {repeats(ok+"Content-Length: 104857600\r\n\r\n", strings.Repeat("x", 1000)), 200, strings.Repeat("x", httpsend.MaxBody), true},
		"exactly what is kept":        {says(fmt.Sprintf(ok+"Content-Length: %d\r\n\r\n%s", httpsend.MaxBody, strings.Repeat("x", httpsend.MaxBody))), 200, strings.Repeat("x", httpsend.MaxBody), false},
		"a gzip bomb":                 {says(bomb(t)), 200, strings.Repeat("\x00", httpsend.MaxBody), true},
		"gzip that is none":           {says(ok + "Content-Encoding: gzip\r\nContent-Length: 2\r\n\r\nhi"), 200, "", true},
		"gzip without end, no output": {repeats(ok+"Content-Encoding: gzip\r\nConnection: close\r\n\r\n", empty(t)), 200, "", true},
	} {
		t.Run(name, func(t *testing.T) {
			r := send(t, sender(t, httpsend.Options{Timeout: 10 * time.Second}, netguard.Options{}), raw(t, c.act))
			require.Empty(t, r.Cause, r.Error)
			require.Equal(t, c.status, r.Status)
			require.Equal(t, c.body, string(r.Body))
			require.Equal(t, c.truncated, r.Truncated)
		})
	}
}

// empty is a gzip member of nothing: any number of them is an endless answer that says nothing.
func empty(t *testing.T) string {
	var b bytes.Buffer
	require.NoError(t, gzip.NewWriter(&b).Close())
	return strings.Repeat(b.String(), 100)
}

func TestTLSFaults(t *testing.T) {
	good, later := time.Now().Add(time.Hour), time.Now().Add(-time.Hour)
	known := selfSigned(t, "known", good)
	for name, c := range map[string]struct {
		cert tls.Certificate
		want string
	}{
		"self-signed": {selfSigned(t, "x", good), delivery.CauseTLS}, "expired": {selfSigned(t, "x", later), delivery.CauseTLS},
		"wrong name": {selfSigned(t, "x", good, "other.example.com"), delivery.CauseTLS}, "known": {known, ""},
	} {
		srv := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
		srv.TLS = &tls.Config{Certificates: []tls.Certificate{c.cert}}
		srv.Config.ErrorLog = quiet()
		srv.StartTLS()
		roots := pool(known.Leaf)
		if name != "self-signed" {
			roots.AddCert(c.cert.Leaf)
		}
		r := send(t, sender(t, httpsend.Options{RootCAs: roots}, netguard.Options{}), srv.URL)
		require.Equal(t, c.want, r.Cause, "%s: %s", name, r.Error)
		srv.Close()
	}
	plain := receiver(t, func(http.ResponseWriter, *http.Request) {})
	r := send(t, sender(t, httpsend.Options{}, netguard.Options{}), strings.Replace(plain.URL, "http://", "https://", 1))
	require.Equal(t, delivery.CauseTLS, r.Cause, r.Error)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer func() { require.NoError(t, l.Close()) }()
	r = send(t, sender(t, httpsend.Options{Timeout: short}, netguard.Options{}), "https://"+l.Addr().String())
	require.Equal(t, delivery.CauseTimeout, r.Cause, "a handshake that hangs: %s", r.Error)
}

// quiet is where a test's server says what is meant to fail.
func quiet() *log.Logger { return log.New(io.Discard, "", 0) }

// names answers in turn.
type names struct {
	mu      sync.Mutex
	answers []string
}

func (n *names) LookupNetIP(context.Context, string, string) ([]netip.Addr, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	a := n.answers[0]
	if len(n.answers) > 1 {
		n.answers = n.answers[1:]
	}
	if a == "" {
		return nil, &net.DNSError{Err: "server misbehaving", Server: "10.0.0.53:53"}
	}
	return []netip.Addr{netip.MustParseAddr(a)}, nil
}

func TestNamesAndProxies(t *testing.T) {
	srv := receiver(t, func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Connection", "close") })
	u, err := url.Parse(srv.URL)
	require.NoError(t, err)
	named := "http://a.example.com:" + u.Port()
	s := sender(t, httpsend.Options{}, netguard.Options{Allow: []string{"127.0.0.1"}, Resolver: &names{answers: []string{"127.0.0.1", "10.0.0.1", "169.254.169.254", "", "127.0.0.1"}}})
	for i, want := range []string{"", delivery.CauseBlocked, delivery.CauseBlocked, delivery.CauseDNS, ""} {
		r := send(t, s, named)
		require.Equal(t, want, r.Cause, "%d: %s", i, r.Error)
		for _, hidden := range []string{"10.0.0", "169.254", "127.0.0.1"} {
			require.NotContains(t, r.Error, hidden)
		}
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	closed := l.Addr().String()
	require.NoError(t, l.Close())
	r := send(t, s, "http://"+closed)
	require.Equal(t, delivery.CauseConnect, r.Cause, r.Error)
	require.Equal(t, "connection refused", r.Error)

	refusing := receiver(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusForbidden) })
	for name, c := range map[string][2]string{
		"down": {"http://" + closed, delivery.CauseProxy}, "refusing": {refusing.URL, delivery.CauseProxy},
		"hanging": {raw(t, thenHangs("")), delivery.CauseTimeout}, // the one called may be what the proxy waits for
	} {
		p, err := url.Parse(c[0])
		require.NoError(t, err)
		r := send(t, sender(t, httpsend.Options{Timeout: short}, netguard.Options{Proxy: p}), named)
		require.Equal(t, c[1], r.Cause, "%s: %s", name, r.Error)
		require.NotContains(t, r.Error, "127.0.0.1")
	}
}

// GOAWAY while a request is in flight: an answer, or a failure; never a success without an answer.
func TestHTTP2(t *testing.T) {
	srv := httptest.NewUnstartedServer(nil)
	mode := make(chan string, 1)
	srv.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch <-mode {
		case "go away":
			w.Header().Set("Connection", "close") // makes the server send GOAWAY
		case "abort":
			panic(http.ErrAbortHandler)
		case "closed":
			srv.CloseClientConnections()
		}
	})
	srv.EnableHTTP2 = true
	srv.Config.ErrorLog = quiet()
	srv.StartTLS()
	defer srv.Close()
	s := sender(t, httpsend.Options{RootCAs: pool(srv.Certificate())}, netguard.Options{})
	for _, c := range [][2]string{{"", ""}, {"go away", ""}, {"abort", "failed"}, {"", ""}, {"closed", "failed"}, {"", ""}} {
		mode <- c[0]
		r := send(t, s, srv.URL)
		if c[1] == "" {
			require.Empty(t, r.Cause, r.Error)
			continue
		}
		require.Contains(t, []string{delivery.CauseReset, delivery.CauseProtocol}, r.Cause, r.Error)
		require.Zero(t, r.Status)
		require.NotContains(t, r.Error, "127.0.0.1")
	}
}

// Bodies of 100 MB, bombs and headers without end leave neither memory nor goroutines (goleak) behind.
func TestNoMemoryKept(t *testing.T) {
	s := sender(t, httpsend.Options{Timeout: 10 * time.Second}, netguard.Options{})
	big := raw(t, repeats(ok+"Content-Length: 104857600\r\n\r\n", strings.Repeat("x", 1000)))
	wide := raw(t, repeats(ok, "X: "+strings.Repeat("x", 1000)+"\r\n"))
	var before, after runtime.MemStats
	for i := range 12 {
		if i == 4 {
			runtime.GC()
			runtime.ReadMemStats(&before)
		}
		require.Empty(t, send(t, s, big).Cause)
		require.NotEmpty(t, send(t, s, wide).Cause)
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	require.Less(t, int64(after.HeapAlloc)-int64(before.HeapAlloc), int64(4<<20))
}
