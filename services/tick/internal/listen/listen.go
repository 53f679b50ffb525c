// Package listen delivers events to a local server as webhook-worker delivers them to an endpoint: the same body,
// headers and signature. It does not retry: who develops a receiver wants to see each failure.
package listen

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"github.com/sametick/sametick/services/tick/internal/tail"
)

// timeout bounds one delivery, as in webhook-worker.
const timeout = 15 * time.Second

// Forwarder delivers to one address.
type Forwarder struct {
	// Secret is what the receiver verifies with: whsec_….
	Secret string
	url    string
	signer *standardwebhooks.Webhook
	client http.Client
}

// New makes a forwarder to an http:// or https:// address. An empty secret means a new one.
func New(address, secret string) (*Forwarder, error) {
	u, err := url.Parse(address)
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" {
		return nil, fmt.Errorf("--forward %q is no address: write http://127.0.0.1:3000/webhooks", address)
	}
	if secret == "" {
		b := make([]byte, 32)
		_, _ = rand.Read(b) // never fails (crypto/rand, Go 1.24)
		secret = "whsec_" + base64.StdEncoding.EncodeToString(b)
	}
	signer, err := standardwebhooks.NewWebhook(secret)
	if err != nil {
		return nil, fmt.Errorf("--secret is none: want whsec_ and base64")
	}
	f := &Forwarder{Secret: secret, url: address, signer: signer}
	f.client = http.Client{Timeout: timeout, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	return f, nil
}

// Deliver sends one event, whose JSON is raw, and gives the status of the answer.
func (f *Forwarder) Deliver(ctx context.Context, e tail.Event, raw string) (int, error) {
	body, err := json.Marshal(struct {
		Type      string          `json:"type"`
		Timestamp string          `json:"timestamp"`
		Data      json.RawMessage `json:"data"`
	}{e.EventType, e.OccurredAt.UTC().Format("2006-01-02T15:04:05.000Z07:00"), json.RawMessage(raw)})
	if err != nil {
		return 0, fmt.Errorf("event %d: %w", e.ID, err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, f.url, bytes.NewReader(body))
	if err != nil {
		return 0, err
	}
	id, now := fmt.Sprintf("msg_%d_0", e.ID), time.Now() // 0: of no endpoint
	signature, err := f.signer.Sign(id, now, body)
	if err != nil {
		return 0, fmt.Errorf("sign event %d: %w", e.ID, err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", "tick")
	req.Header.Set("webhook-id", id)
	req.Header.Set("webhook-timestamp", strconv.FormatInt(now.Unix(), 10))
	req.Header.Set("webhook-signature", signature)
	res, err := f.client.Do(req)
	if err != nil {
		return 0, err
	}
	defer func() { _ = res.Body.Close() }()
	_, _ = io.Copy(io.Discard, io.LimitReader(res.Body, 64<<10)) // the connection is used again
	return res.StatusCode, nil
}
