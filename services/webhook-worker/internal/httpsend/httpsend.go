// Package httpsend makes one attempt: it signs a body, posts it and tells what came of that. Whether and when to try again
// is decided in delivery; which addresses may be called, in pkg/netguard.
package httpsend

import (
	"container/list"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net/http"
	"net/http/httptrace"
	"strconv"
	"sync"
	"time"

	"github.com/sametick/sametick/pkg/netguard"
	"github.com/sametick/sametick/pkg/telemetry"
	"github.com/sametick/sametick/services/webhook-worker/internal/delivery"
)

const (
	// MaxBody is how much of an answer is kept, in bytes after decompression.
	MaxBody = 64 << 10
	// maxRaw bounds what is read of an answer before decompression.
	maxRaw = 1 << 20
	// maxHeaders bounds the headers of an answer that are kept; what has more failed, as too large.
	maxHeaders = 64 << 10
	// idle is how long a connection waits for the next request. Short, so that a name is resolved and judged again.
	idle = 30 * time.Second
)

// Stats counts; its methods must not block and may be called at once by several.
type Stats interface {
	// Connection tells whether an attempt went over a connection that was there.
	Connection(reused bool)
	// Attempted tells the cause (empty: delivered) and how long it took.
	Attempted(cause string, latency time.Duration)
}

// Options of a Sender.
type Options struct {
	// Guard dials. Required.
	Guard *netguard.Guard
	// Timeout bounds an attempt whole: connecting, TLS, request, headers and body. Default: 15 s.
	Timeout time.Duration
	// UserAgent of requests. Default: Sametick-Webhooks/1.0.
	UserAgent string
	// ConnsPerHost caps connections to a host. Default: 256.
	ConnsPerHost int
	// Certificates caps how many client certificates have connections of their own at a time. Default: 256.
	Certificates int
	// RootCAs judge receivers' certificates; nil for the system's.
	RootCAs *x509.CertPool
	// Stats may be nil.
	Stats Stats
}

// Sender makes attempts. Safe for concurrent use; it has no goroutines but those of its connections.
type Sender struct {
	o Options

	mu         sync.Mutex
	plain      *http.Transport
	byCert     map[[sha256.Size]byte]*list.Element
	newestCert list.List // of *certTransport

	preparing sync.RWMutex
	prepared  map[int64]*prepared // by the endpoint's id
}

type certTransport struct {
	key [sha256.Size]byte
	rt  *http.Transport
}

// New makes a sender.
func New(o Options) (*Sender, error) {
	if o.Guard == nil {
		return nil, errors.New("httpsend: no guard")
	}
	if o.Timeout <= 0 {
		o.Timeout = 15 * time.Second
	}
	if o.UserAgent == "" {
		o.UserAgent = "Sametick-Webhooks/1.0"
	}
	if o.ConnsPerHost <= 0 {
		o.ConnsPerHost = 256
	}
	if o.Certificates <= 0 {
		o.Certificates = 256
	}
	s := &Sender{o: o, byCert: map[[sha256.Size]byte]*list.Element{}, prepared: map[int64]*prepared{}}
	s.plain = s.transport(nil)
	return s, nil
}

// Close closes the connections that wait; call it when no attempt is under way.
func (s *Sender) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.plain.CloseIdleConnections()
	for e := s.newestCert.Front(); e != nil; e = e.Next() {
		closeIdle(e)
	}
}

func closeIdle(e *list.Element) {
	if c, ok := e.Value.(*certTransport); ok {
		c.rt.CloseIdleConnections()
	}
}

func (s *Sender) transport(cert *tls.Certificate) *http.Transport {
	conf := &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: s.o.RootCAs}
	if cert != nil {
		conf.Certificates = []tls.Certificate{*cert}
	}
	return &http.Transport{
		Proxy:       nil, // the guard tunnels, if need be
		DialContext: s.o.Guard.DialContext, TLSClientConfig: conf, TLSHandshakeTimeout: s.o.Timeout,
		MaxConnsPerHost: s.o.ConnsPerHost, MaxIdleConnsPerHost: s.o.ConnsPerHost, MaxIdleConns: 4096, IdleConnTimeout: idle,
		ForceAttemptHTTP2: true, HTTP2: &http.HTTP2Config{SendPingTimeout: idle / 2, PingTimeout: s.o.Timeout},
		MaxResponseHeaderBytes: 4 * maxHeaders,
		DisableCompression:     true, // none is asked for; what comes all the same is bounded by readBody
	}
}

// transportOf gives the transport of a client certificate: connections that have shown one are no one else's.
func (s *Sender) transportOf(cert *tls.Certificate) *http.Transport {
	if cert == nil || len(cert.Certificate) == 0 {
		return s.plain
	}
	key := sha256.Sum256(cert.Certificate[0])
	s.mu.Lock()
	defer s.mu.Unlock()
	if e, ok := s.byCert[key]; ok {
		s.newestCert.MoveToFront(e)
		if c, ok := e.Value.(*certTransport); ok {
			return c.rt
		}
	}
	c := &certTransport{key, s.transport(cert)}
	s.byCert[key] = s.newestCert.PushFront(c)
	if s.newestCert.Len() > s.o.Certificates {
		oldest := s.newestCert.Back()
		s.newestCert.Remove(oldest)
		if c, ok := oldest.Value.(*certTransport); ok {
			delete(s.byCert, c.key)
		}
		closeIdle(oldest) // what is under way ends by itself, its connection by IdleConnTimeout
	}
	return c.rt
}

// Send makes one attempt to deliver body to e, both of which must not change, and gives what it met. It never fails
// otherwise: an endpoint that cannot be called (its URL, secrets or headers) is a result too. When ctx ends before the
// timeout does, the result is that of a timeout; who ended it must not count it.
func (s *Sender) Send(ctx context.Context, e *delivery.Endpoint, d *delivery.Delivery, body []byte) delivery.Result {
	r := delivery.Result{Began: time.Now()}
	traceparent := traceparentOf(ctx, d)
	ctx, cancel := context.WithTimeout(ctx, s.o.Timeout)
	defer cancel()
	p := newProgress(s.o.Stats)
	prepared := s.prepare(e)
	req, shown, err := prepared.request(httptrace.WithClientTrace(ctx, &p.trace), d, body, r.Began, traceparent)
	if err != nil {
		r.Cause, r.Error = delivery.CauseProtocol, "the request cannot be made: "+err.Error()
		return r
	}
	r.RequestHeaders = shown
	s.attempt(req, p, prepared.certificate, &r)
	r.Latency = time.Since(r.Began)
	if s.o.Stats != nil {
		s.o.Stats.Attempted(r.Cause, r.Latency)
	}
	return r
}

// traceparentOf continues the trace of the span around the attempt, or else that of the event, which any producer writes.
func traceparentOf(ctx context.Context, d *delivery.Delivery) string {
	if span := telemetry.Traceparent(ctx); span != "" {
		return span
	}
	if telemetry.IsTraceparent(d.Traceparent) {
		return d.Traceparent
	}
	return ""
}

func (s *Sender) attempt(req *http.Request, p *progress, certificate *tls.Certificate, r *delivery.Result) {
	resp, err := s.transportOf(certificate).RoundTrip(req)
	if err != nil {
		r.Cause, r.Error = explain(req.Context(), err, p.stage())
		return
	}
	defer func() { _ = resp.Body.Close() }()
	r.Status = resp.StatusCode
	if size(resp.Header) > maxHeaders {
		r.Cause, r.Error = delivery.CauseTooLarge, "the headers of the answer are larger than 64 KiB"
		return
	}
	r.ResponseHeaders = asJSON(resp.Header)
	r.Body, r.Truncated, err = readBody(resp)
	if resp.StatusCode/100 != 2 {
		r.RetryAfter = retryAfter(resp.Header.Get("Retry-After"), time.Now())
		r.Cause, r.Error = judge(resp.StatusCode)
		return
	}
	if err != nil {
		r.Cause, r.Error = explain(req.Context(), err, readingBody)
	}
}

func judge(status int) (cause, text string) {
	switch {
	case status == http.StatusGone:
		return delivery.CauseGone, "it answered 410: gone for good"
	case status/100 == 3:
		return delivery.CauseRedirect, "it answered " + strconv.Itoa(status) + ": redirects are not followed"
	}
	return delivery.CauseStatus, "it answered " + strconv.Itoa(status)
}
