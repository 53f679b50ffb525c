package httpsend

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/sametick/sametick/services/webhook-worker/internal/delivery"
	"github.com/sametick/sametick/services/webhook-worker/internal/signing"
)

// prepared is what all requests to one version of an endpoint share.
type prepared struct {
	of          *delivery.Endpoint
	url         *url.URL
	header      http.Header
	shown       []byte // the header for history, a JSON object without its end
	keys        []key
	certificate *tls.Certificate
	err         error
}

// key signs until it expires; zero for never.
type key struct {
	signing.Key
	expires time.Time
}

// maxPrepared bounds the endpoints that are remembered.
const maxPrepared = 16_384

// prepare gives what requests to an endpoint share.
func (s *Sender) prepare(e *delivery.Endpoint) *prepared {
	s.preparing.RLock()
	p := s.prepared[e.ID]
	s.preparing.RUnlock()
	if p != nil && p.of == e {
		return p
	}
	p = s.newPrepared(e)
	s.preparing.Lock()
	defer s.preparing.Unlock()
	for id := range s.prepared {
		if len(s.prepared) < maxPrepared {
			break
		}
		delete(s.prepared, id)
	}
	s.prepared[e.ID] = p
	return p
}

func (s *Sender) newPrepared(e *delivery.Endpoint) *prepared {
	p := &prepared{of: e, certificate: e.Certificate}
	u, err := url.Parse(e.URL)
	if err != nil {
		p.err = errors.New("its URL is none") // the error would show it
		return p
	}
	p.url = u
	for _, secret := range e.Secrets {
		k, err := signing.Parse(secret.Text)
		if err != nil {
			p.err = err
			return p
		}
		p.keys = append(p.keys, key{k, secret.Expires})
	}
	if p.err = CheckHeaders(e.Headers); p.err != nil {
		return p
	}
	p.header = make(http.Header, 3+len(e.Headers))
	for name, value := range e.Headers {
		p.header.Set(name, value)
	}
	contentType := "application/json"
	if e.Format == delivery.CloudEvents {
		contentType = "application/cloudevents+json; charset=utf-8"
	}
	p.header["Content-Type"], p.header["User-Agent"] = []string{contentType}, []string{s.o.UserAgent}
	if e.Authorization != "" {
		p.header["Authorization"] = []string{e.Authorization}
	}
	p.shown = append(p.shown, '{')
	for name, values := range p.header {
		p.shown = appendShown(p.shown, name, values...)
	}
	return p
}

// request builds a request, and what history keeps of its headers. Its body is the bytes that are signed.
func (p *prepared) request(ctx context.Context, d *delivery.Delivery, body []byte, at time.Time, traceparent string) (*http.Request, string, error) {
	if p.err != nil {
		return nil, "", p.err
	}
	keys := make([]signing.Key, 0, 4)
	for _, k := range p.keys {
		if k.expires.IsZero() || k.expires.After(at) {
			keys = append(keys, k.Key)
		}
	}
	id := signing.MessageID(d.EventID, d.EndpointID)
	signature, err := signing.Sign(keys, id, at, body)
	if err != nil {
		return nil, "", err
	}
	h := make(http.Header, 4+len(p.header)) // names are in canonical form, which Set would make anew each time
	for name, values := range p.header {
		h[name] = values
	}
	shown := make([]byte, len(p.shown), len(p.shown)+len(signature)+256)
	copy(shown, p.shown)
	own := [...]struct{ name, value string }{
		{"Webhook-Id", id}, {"Webhook-Timestamp", strconv.FormatInt(at.Unix(), 10)}, {"Webhook-Signature", signature}, {"Traceparent", traceparent}}
	values := make([]string, len(own))
	for i, o := range own {
		if o.value == "" {
			continue
		}
		values[i] = o.value
		h[o.name] = values[i : i+1 : i+1]
		shown = appendHeader(shown, o.name, o.value)
	}
	// As http.NewRequest does it, without its parsing of the URL.
	req := (&http.Request{
		Method: http.MethodPost, URL: p.url, Host: p.url.Host, Header: h, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, ContentLength: int64(len(body)),
		Body: io.NopCloser(bytes.NewReader(body)), GetBody: func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(body)), nil },
	}).WithContext(ctx)
	return req, string(append(shown, '}')), nil
}
