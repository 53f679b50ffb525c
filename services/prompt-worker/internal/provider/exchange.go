package provider

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"sync/atomic"

	"github.com/sametick/sametick/pkg/netguard"
	"github.com/sametick/sametick/services/prompt-worker/internal/prompting"
)

// maxErrorBytes of a failure's body are read.
const maxErrorBytes = 64 << 10

// exchange is one request and what came of it. It is the SDK's HTTP client for one call, because the SDKs tell too
// little of a failure, or too much: their errors quote URLs and bodies.
type exchange struct {
	client *http.Client
	max    int64
	// sent: there was a connection to write to, so the request may be carried out. That it has been written is told too
	// late: the answer can be faster.
	sent   atomic.Bool
	status int
	header http.Header
	// failure is the body of an answer of 400 and more.
	failure  []byte
	cut      bool
	tooLarge bool
	// refused is why the address may not be called; nil when it may.
	refused *netguard.Refused
}

// Do implements the SDKs' HTTPClient. It follows no redirect: the key and the event would go to somebody else.
func (e *exchange) Do(r *http.Request) (*http.Response, error) {
	trace := &httptrace.ClientTrace{GotConn: func(httptrace.GotConnInfo) { e.sent.Store(true) }}
	client := *e.client
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	resp, err := client.Do(r.WithContext(httptrace.WithClientTrace(r.Context(), trace)))
	if err != nil {
		errors.As(err, &e.refused)
		return nil, err
	}
	e.status, e.header = resp.StatusCode, resp.Header
	if e.status >= http.StatusMultipleChoices {
		// A failure that is cut is one all the same.
		e.failure, _ = io.ReadAll(io.LimitReader(resp.Body, maxErrorBytes))
		_ = resp.Body.Close()
		resp.Body = io.NopCloser(bytes.NewReader(e.failure))
		if e.status < http.StatusBadRequest {
			return nil, http.ErrUseLastResponse
		}
		return resp, nil
	}
	resp.Body = &body{http.MaxBytesReader(nil, resp.Body, e.max), e}
	return resp, nil
}

// body notes why it could not be read to its end.
type body struct {
	io.ReadCloser
	of *exchange
}

func (b *body) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &large):
		b.of.tooLarge = true
	case err != nil && !errors.Is(err, io.EOF):
		b.of.cut = true
	}
	return n, err
}

// fail says why a call gave no answer that could be read.
func (e *exchange) fail(ctx context.Context, err error, key string) *prompting.ModelError {
	out := &prompting.ModelError{Unknown: e.sent.Load()}
	var network net.Error
	switch {
	case e.refused != nil: // by the guard, before a connection: no wait changes it
		out.Cause, out.Text, out.Unknown, out.Unsent = prompting.CauseBadRequest, "the provider's address is "+e.refused.Error(), false, true
	case e.status >= http.StatusBadRequest:
		return classify(e.status, e.header, e.failure, key)
	case e.status >= http.StatusMultipleChoices:
		out.Cause, out.Text, out.Unknown = prompting.CauseBadRequest, "the provider answers with a redirect, which is not followed", false
	case errors.Is(ctx.Err(), context.Canceled):
		out.Cause, out.Text = prompting.CauseTimeout, "the call was cancelled"
	case ctx.Err() != nil, errors.As(err, &network) && network.Timeout():
		out.Cause, out.Text = prompting.CauseTimeout, "no answer in time"
	case e.tooLarge:
		out.Cause, out.Text = prompting.CauseInvalid, "the answer is too large"
	case e.cut:
		out.Cause, out.Text = prompting.CauseUnavailable, "the answer was cut off"
	case e.status != 0:
		out.Cause, out.Text = prompting.CauseInvalid, "the answer is not of the provider's protocol"
	case out.Unknown:
		out.Cause, out.Text = prompting.CauseUnavailable, "the connection was lost before an answer"
	default:
		out.Cause, out.Text = prompting.CauseUnavailable, "the provider cannot be reached"
	}
	return out
}
