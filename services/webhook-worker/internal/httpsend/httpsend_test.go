package httpsend_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/sametick/sametick/pkg/netguard"
	"github.com/sametick/sametick/services/webhook-worker/internal/delivery"
	"github.com/sametick/sametick/services/webhook-worker/internal/httpsend"
	"github.com/sametick/sametick/services/webhook-worker/internal/signing"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const body = `{"type":"task.post_create","timestamp":"2026-04-12T14:30:00.000Z","data":{"id":8401}}`

// short is the deadline of tests in which it passes: long enough for a busy machine to get to where they hang.
const short = 2 * time.Second

// counts is a fake Stats.
type counts struct {
	fresh, reused atomic.Int64
	mu            sync.Mutex
	causes        []string
}

func (c *counts) Connection(reused bool) {
	if reused {
		c.reused.Add(1)
	} else {
		c.fresh.Add(1)
	}
}

func (c *counts) Attempted(cause string, _ time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.causes = append(c.causes, cause)
}

func sender(t testing.TB, o httpsend.Options, g netguard.Options) *httpsend.Sender {
	if g.Allow == nil {
		g.Allow = []string{"127.0.0.0/8"}
	}
	g.HTTP = true
	var err error
	o.Guard, err = netguard.New(g)
	require.NoError(t, err)
	s, err := httpsend.New(o)
	require.NoError(t, err)
	t.Cleanup(s.Close)
	return s
}

func endpoint(url string) *delivery.Endpoint {
	return &delivery.Endpoint{OrgID: 1, ID: 12, URL: url, Format: delivery.Standard, Secrets: []delivery.Secret{{Text: "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"}}}
}

func event() *delivery.Delivery {
	return &delivery.Delivery{ID: 5, OrgID: 1, EndpointID: 12, EventID: 8401, Traceparent: "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"}
}

func send(t testing.TB, s *httpsend.Sender, url string) delivery.Result {
	return s.Send(t.Context(), endpoint(url), event(), []byte(body))
}

func receiver(t testing.TB, h http.HandlerFunc) *httptest.Server {
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	return srv
}

func TestRequest(t *testing.T) {
	var got *http.Request
	var sent []byte
	srv := receiver(t, func(w http.ResponseWriter, r *http.Request) {
		got = r
		sent, _ = io.ReadAll(r.Body)
		w.Header().Set("X-Answer", "yes")
		w.WriteHeader(http.StatusAccepted)
		_, _ = io.WriteString(w, "thanks")
	})
	c := &counts{}
	s := sender(t, httpsend.Options{Stats: c}, netguard.Options{})
	e := endpoint(srv.URL + "/hook?a=1")
	e.Headers = map[string]string{"X-Team": "blue", "x-api-key": "hunter2"}
	e.Authorization = "Bearer hunter2"
	r := s.Send(t.Context(), e, event(), []byte(body))
	require.Empty(t, r.Cause, r.Error)
	require.Equal(t, 202, r.Status)
	require.Equal(t, "thanks", string(r.Body))
	require.False(t, r.Truncated)
	require.Equal(t, []string{"yes"}, headers(t, r.ResponseHeaders)["X-Answer"])
	require.WithinDuration(t, time.Now(), r.Began, time.Minute)
	require.Positive(t, r.Latency)

	require.Equal(t, http.MethodPost, got.Method)
	require.Equal(t, "/hook?a=1", got.URL.String())
	require.Equal(t, int64(len(body)), got.ContentLength)
	require.Equal(t, body, string(sent))
	for name, want := range map[string]string{
		"Content-Type": "application/json", "User-Agent": "Sametick-Webhooks/1.0", "Webhook-Id": "msg_8401_12", "Traceparent": event().Traceparent,
		"X-Team": "blue", "X-Api-Key": "hunter2", "Authorization": "Bearer hunter2", "Accept-Encoding": "",
	} {
		require.Equal(t, want, got.Header.Get(name), name)
	}
	wh, err := standardwebhooks.NewWebhook(e.Secrets[0].Text)
	require.NoError(t, err)
	require.NoError(t, wh.Verify(sent, got.Header))
	shown := headers(t, r.RequestHeaders)
	require.Equal(t, []string{"[hidden]"}, shown["X-Api-Key"])
	require.Equal(t, []string{"[hidden]"}, shown["Authorization"])
	require.Equal(t, []string{"blue"}, shown["X-Team"])
	delete(got.Header, "Content-Length")
	require.Len(t, shown, len(got.Header), "%s beside %v", r.RequestHeaders, got.Header)
	require.Equal(t, []string{""}, c.causes)

	odd := event()
	odd.Traceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\r\nX: y"
	require.Empty(t, s.Send(t.Context(), e, odd, []byte(body)).Cause, "what is no trace context is left out")
	require.NotContains(t, got.Header, "Traceparent")
	next := *e // a version is replaced, never changed
	next.Format, next.Headers = delivery.CloudEvents, nil
	require.Empty(t, s.Send(t.Context(), &next, event(), []byte(body)).Cause)
	require.Equal(t, "application/cloudevents+json; charset=utf-8", got.Header.Get("Content-Type"))
	require.Equal(t, [2]int64{1, 2}, [2]int64{c.fresh.Load(), c.reused.Load()}, "one connection for all")
}

func headers(t testing.TB, text string) (h map[string][]string) {
	require.NoError(t, json.Unmarshal([]byte(text), &h), text)
	return h
}

// What cannot be called is a result, and nothing is sent.
func TestNoRequest(t *testing.T) {
	srv := receiver(t, func(http.ResponseWriter, *http.Request) { t.Error("called") })
	s := sender(t, httpsend.Options{}, netguard.Options{})
	for name, change := range map[string]func(*delivery.Endpoint){
		"no secret":        func(e *delivery.Endpoint) { e.Secrets = nil },
		"bad secret":       func(e *delivery.Endpoint) { e.Secrets = []delivery.Secret{{Text: "whsec_hunter2"}} },
		"bad URL":          func(e *delivery.Endpoint) { e.URL = "http://hunter2\x00" },
		"header of ours":   func(e *delivery.Endpoint) { e.Headers = map[string]string{"Webhook-ID": "hunter2"} },
		"header injection": func(e *delivery.Endpoint) { e.Headers = map[string]string{"X": "hunter2\r\nY: z"} },
	} {
		e := endpoint(srv.URL)
		change(e)
		r := s.Send(t.Context(), e, event(), []byte(body))
		require.Equal(t, delivery.CauseProtocol, r.Cause, name)
		require.NotContains(t, r.Error, "hunter2", name)
	}
}

func TestHeaders(t *testing.T) {
	for _, name := range []string{
		"Host", "content-length", "Transfer-Encoding", "Connection", "Keep-Alive", "TE", "Trailer", "Upgrade", "Proxy-Authorization", "webhook-signature", "Webhook-Anything",
		"Content-Type", "User-Agent", "traceparent", "Expect", "", "a b", "a:", ":authority", "ü",
	} {
		require.Error(t, httpsend.CheckHeaders(map[string]string{name: "x"}), name)
	}
	require.NoError(t, httpsend.CheckHeaders(map[string]string{"X-Team": "blue", "Authorization": "x", "x_y": ""}))
	require.Error(t, httpsend.CheckHeaders(map[string]string{"X": strings.Repeat("x", 9000)}))
	many := map[string]string{}
	for i := range 21 {
		many["X-"+strings.Repeat("a", i+1)] = ""
	}
	require.Error(t, httpsend.CheckHeaders(many))
}

func TestStatuses(t *testing.T) {
	for status, want := range map[int]string{
		200: "", 201: "", 202: "", 204: "", 299: "", 300: delivery.CauseRedirect, 301: delivery.CauseRedirect, 304: delivery.CauseRedirect, 307: delivery.CauseRedirect, 308: delivery.CauseRedirect,
		400: delivery.CauseStatus, 401: delivery.CauseStatus, 404: delivery.CauseStatus, 410: delivery.CauseGone, 429: delivery.CauseStatus, 500: delivery.CauseStatus, 503: delivery.CauseStatus, 599: delivery.CauseStatus,
	} {
		srv := receiver(t, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Location", "http://127.0.0.1:1/")
			w.WriteHeader(status)
		})
		r := send(t, sender(t, httpsend.Options{}, netguard.Options{}), srv.URL)
		require.Equal(t, want, r.Cause, status)
		require.Equal(t, status, r.Status)
	}
}

func TestRetryAfter(t *testing.T) {
	day := 24 * time.Hour
	for value, want := range map[string]time.Duration{
		"120": 2 * time.Minute, " 7 ": 7 * time.Second, "0": 0, "86400": day, "86401": day, "99999999999999999999999": day, "-5": 0, "+5": 0, "1.5": 0, "soon": 0, "": 0, "0x10": 0, "١٢": 0,
		"Mon, 02 Jan 2006 15:04:05 GMT": 0, "Fri, 31 Dec 9999 23:59:59 GMT": day, "Fri, 99 Dec 9999": 0,
		time.Now().Add(time.Hour).UTC().Format(http.TimeFormat): time.Hour,
	} {
		srv := receiver(t, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", value)
			w.WriteHeader(http.StatusServiceUnavailable)
		})
		r := send(t, sender(t, httpsend.Options{}, netguard.Options{}), srv.URL)
		require.InDelta(t, want.Seconds(), r.RetryAfter.Seconds(), 5, value)
	}
}

// A client certificate is shown to those it is for, and its connections are not shared.
func TestClientCertificates(t *testing.T) {
	var shown atomic.Pointer[string]
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		name := ""
		if len(r.TLS.PeerCertificates) > 0 {
			name = r.TLS.PeerCertificates[0].Subject.CommonName
		}
		shown.Store(&name)
	}))
	srv.TLS = &tls.Config{ClientAuth: tls.RequestClientCert}
	srv.StartTLS()
	defer srv.Close()
	c := &counts{}
	s := sender(t, httpsend.Options{RootCAs: pool(srv.Certificate()), Certificates: 2, Stats: c}, netguard.Options{})
	for _, name := range []string{"a", "b", "", "a", "c", "d", "a"} {
		e := endpoint(srv.URL)
		if name != "" {
			cert := selfSigned(t, name, time.Now().Add(time.Hour), "client")
			e.Certificate = &cert
		}
		r := s.Send(t.Context(), e, event(), []byte(body))
		require.Empty(t, r.Cause, r.Error)
		require.Equal(t, name, *shown.Load())
	}
}

func pool(certs ...*x509.Certificate) *x509.CertPool {
	p := x509.NewCertPool()
	for _, c := range certs {
		p.AddCert(c)
	}
	return p
}

func selfSigned(t testing.TB, name string, until time.Time, hosts ...string) tls.Certificate {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-24 * time.Hour), NotAfter: until, DNSNames: hosts,
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	if len(hosts) > 0 {
		template.IPAddresses = nil
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	require.NoError(t, err)
	leaf, err := x509.ParseCertificate(der)
	require.NoError(t, err)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
}

// BenchmarkSend is an attempt beside what net/http alone takes for the same request, on one connection.
func BenchmarkSend(b *testing.B) {
	srv := receiver(b, func(w http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body) })
	b.Run("bare", func(b *testing.B) {
		client := http.Client{Transport: &http.Transport{}}
		defer client.CloseIdleConnections()
		b.ReportAllocs()
		for b.Loop() {
			req, _ := http.NewRequestWithContext(context.Background(), http.MethodPost, srv.URL, strings.NewReader(body))
			resp, err := client.Do(req)
			if err != nil {
				b.Fatal(err)
			}
			_, _ = io.Copy(io.Discard, resp.Body)
			_ = resp.Body.Close()
		}
	})
	b.Run("send", func(b *testing.B) {
		s, e, d := sender(b, httpsend.Options{}, netguard.Options{}), endpoint(srv.URL), event()
		e.Secrets = []delivery.Secret{{Text: signing.NewSecret()}}
		b.ReportAllocs()
		for b.Loop() {
			if r := s.Send(context.Background(), e, d, []byte(body)); r.Cause != "" {
				b.Fatal(r.Error)
			}
		}
	})
}
