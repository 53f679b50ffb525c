package httpsend

import (
	"compress/gzip"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/sametick/sametick/pkg/netguard"
	"github.com/sametick/sametick/services/webhook-worker/internal/delivery"
)

// The stages of an attempt.
const (
	connecting = iota
	handshaking
	waiting
	readingBody
)

// progress follows an attempt, for its error's sake. The transport calls from goroutines of its own.
type progress struct {
	at    atomic.Int32
	stats Stats
	trace httptrace.ClientTrace
}

func newProgress(stats Stats) *progress {
	p := &progress{stats: stats}
	p.trace.TLSHandshakeStart, p.trace.GotConn = p.handshake, p.connected
	return p
}

func (p *progress) stage() int { return int(p.at.Load()) }

func (p *progress) handshake() { p.at.CompareAndSwap(connecting, handshaking) }

func (p *progress) connected(i httptrace.GotConnInfo) {
	p.at.Store(waiting)
	if p.stats != nil {
		p.stats.Connection(i.Reused)
	}
}

// readBody reads an answer's first 64 KiB. gzip, which was not asked for, is opened, its input and output bounded; what is
// wrong with it is no fault of the delivery. The error is the connection's.
func readBody(resp *http.Response) (body []byte, truncated bool, err error) {
	if resp.Body == http.NoBody {
		return nil, false, nil
	}
	from := &wire{r: io.LimitedReader{R: resp.Body, N: maxRaw}}
	var r io.Reader = from
	if strings.EqualFold(resp.Header.Get("Content-Encoding"), "gzip") {
		z, err := gzip.NewReader(from)
		if err != nil {
			return nil, true, from.err
		}
		r = z
	}
	body, err = io.ReadAll(io.LimitReader(r, MaxBody+1))
	if len(body) > MaxBody {
		return body[:MaxBody:MaxBody], true, nil
	}
	return body, err != nil || from.r.N <= 0, from.err
}

// wire remembers the error of a connection, apart from those of what reads it.
type wire struct {
	r   io.LimitedReader
	err error
}

// Read implements io.Reader.
func (w *wire) Read(b []byte) (int, error) {
	n, err := w.r.Read(b)
	if err != nil && !errors.Is(err, io.EOF) {
		w.err = err
	}
	return n, err
}

// explain sorts what went wrong before an answer was whole, and says it without addresses.
func explain(ctx context.Context, err error, stage int) (cause, text string) {
	var refused *netguard.Refused
	var proxy *netguard.ProxyError
	var dns *net.DNSError
	var timeout net.Error
	switch {
	case errors.As(err, &refused):
		return delivery.CauseBlocked, refused.Error()
	case errors.As(err, &proxy):
		return delivery.CauseProxy, proxy.Error()
	case errors.As(err, &dns):
		if dns.IsNotFound {
			return delivery.CauseDNS, "its name does not resolve"
		}
		return delivery.CauseDNS, "its name could not be resolved"
	case ctx.Err() != nil, errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, context.DeadlineExceeded),
		errors.As(err, &timeout) && timeout.Timeout():
		return delivery.CauseTimeout, []string{"timeout while connecting", "timeout in the TLS handshake", "timeout before it answered", "timeout while its answer was read"}[stage]
	case stage == handshaking || isTLS(err):
		return delivery.CauseTLS, words(err)
	case stage == connecting:
		return delivery.CauseConnect, words(err)
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE), errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, net.ErrClosed):
		return delivery.CauseReset, "it closed the connection before its answer was whole"
	}
	return delivery.CauseProtocol, words(err)
}

func isTLS(err error) bool {
	var record tls.RecordHeaderError
	var alert tls.AlertError
	var cert *tls.CertificateVerificationError
	return errors.As(err, &record) || errors.As(err, &alert) || errors.As(err, &cert)
}

// words gives an error without the addresses of both ends, which net.OpError shows, and bounded.
func words(err error) string {
	var op *net.OpError
	for errors.As(err, &op) {
		err = op.Err
	}
	var errno syscall.Errno
	if errors.As(err, &errno) {
		return errno.Error()
	}
	const most = 300
	s := strings.ToValidUTF8(err.Error(), "�")
	if len(s) > most {
		s = strings.ToValidUTF8(s[:most], "") + "…"
	}
	return s
}

// maxRetryAfter caps what an answer may ask for.
const maxRetryAfter = 24 * time.Hour

// retryAfter reads the header Retry-After (RFC 9110 section 10.2.3): seconds or a date; 0 for anything else.
func retryAfter(v string, now time.Time) time.Duration {
	v = strings.TrimSpace(v)
	if v != "" && strings.Trim(v, "0123456789") == "" {
		seconds, err := strconv.ParseInt(v, 10, 64)
		if err != nil || seconds > int64(maxRetryAfter/time.Second) {
			return maxRetryAfter
		}
		return time.Duration(seconds) * time.Second
	}
	at, err := http.ParseTime(v)
	if err != nil {
		return 0
	}
	return min(max(at.Sub(now), 0), maxRetryAfter)
}
