package oidc

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
)

const (
	// keepFor is how long an answer of the issuer is given again: a stranger's token with an unknown key id makes
	// the library ask anew, and must not make us ask the issuer as often.
	keepFor = 10 * time.Second
	// keepFailure is the same for a failure.
	keepFailure = time.Second
	// maxAnswer bounds one.
	maxAnswer = 1 << 20
)

// kept asks the issuer, and gives what it said again for a while.
type kept struct {
	next http.RoundTripper
	now  func() time.Time
	// failures counts requests that were not answered with 200.
	failures atomic.Int64

	mu      sync.Mutex
	answers map[string]answer
}

type answer struct {
	status int
	header http.Header
	body   []byte
	err    error
	until  time.Time
}

func (a *answer) good() bool { return a.err == nil && a.status == http.StatusOK }

func newKept(next http.RoundTripper, now func() time.Time) *kept {
	return &kept{next: next, now: now, answers: map[string]answer{}}
}

// RoundTrip implements http.RoundTripper. One request at a time: the others wait for its answer.
func (k *kept) RoundTrip(r *http.Request) (*http.Response, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	key := r.URL.String()
	a, ok := k.answers[key]
	if !ok || !k.now().Before(a.until) {
		a = k.ask(r)
		a.until = k.now().Add(keepFor)
		if !a.good() {
			a.until = k.now().Add(keepFailure)
		}
		k.answers[key] = a // an issuer has two addresses: its configuration's and its keys'
	}
	if !a.good() {
		k.failures.Add(1)
	}
	if a.err != nil {
		return nil, a.err
	}
	return &http.Response{StatusCode: a.status, Status: http.StatusText(a.status), Header: a.header.Clone(), Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Body: io.NopCloser(bytes.NewReader(a.body)), ContentLength: int64(len(a.body)), Request: r}, nil
}

func (k *kept) ask(r *http.Request) answer {
	res, err := k.next.RoundTrip(r)
	if err != nil {
		return answer{err: err}
	}
	defer func() { _ = res.Body.Close() }() // read, or of no use
	body, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer))
	return answer{status: res.StatusCode, header: res.Header, body: body, err: err}
}

func isExpired(err error) bool {
	var expired *oidc.TokenExpiredError
	return errors.As(err, &expired)
}
