// Package client speaks to Sametick's REST API.
package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"syscall"
	"time"
)

// Client is safe for concurrent use.
type Client struct {
	// Base is the API's address, Token a bearer token or API key.
	Base, Token string
	HTTP        *http.Client
}

// New makes a client that keeps enough connections for concurrent importing.
func New(base, token string) *Client {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.MaxIdleConnsPerHost = 64
	return &Client{Base: strings.TrimSuffix(base, "/"), Token: token, HTTP: &http.Client{Transport: transport}}
}

// Error is an answer other than 2xx (RFC 9457).
type Error struct {
	Status   int               `json:"status"`
	Title    string            `json:"title"`
	Detail   string            `json:"detail"`
	Reason   string            `json:"reason"`
	Metadata map[string]string `json:"metadata"`
	Fields   []struct {
		Field       string `json:"field"`
		Description string `json:"description"`
	} `json:"errors"`
	RequestID string `json:"request_id"`
}

func (e *Error) Error() string {
	text := e.Detail
	if text == "" {
		text = e.Title
	}
	for _, f := range e.Fields {
		text += fmt.Sprintf("\n  %s: %s", f.Field, f.Description)
	}
	if e.Status == http.StatusUnauthorized {
		text += "\n  (the token comes from --token, SAMETICK_TOKEN or .dev/env)"
	}
	if e.RequestID != "" && e.Status >= http.StatusInternalServerError {
		text += " (request " + e.RequestID + ")"
	}
	return fmt.Sprintf("%d: %s", e.Status, text)
}

// Record is a record as the API shows it.
type Record struct {
	ID         int64           `json:"id"`
	Type       string          `json:"type"`
	Name       string          `json:"name"`
	Attributes json.RawMessage `json:"attributes"`
	Version    int64           `json:"version"`
	WorkflowID *int64          `json:"workflow_id"`
	StepID     *int64          `json:"step_id"`
	CreatedAt  time.Time       `json:"created_at"`
	UpdatedAt  time.Time       `json:"updated_at"`
	ArchivedAt *time.Time      `json:"archived_at"`
}

// NewRecord is what a record is made of.
type NewRecord struct {
	Type       string         `json:"-"`
	Name       string         `json:"name"`
	Attributes map[string]any `json:"attributes,omitempty"`
	WorkflowID int64          `json:"workflow_id,omitempty"`
}

// Create makes a record.
func (c *Client) Create(ctx context.Context, r NewRecord) (Record, error) {
	var made Record
	err := c.Do(ctx, http.MethodPost, "/api/records/"+url.PathEscape(r.Type), r, &made)
	return made, err
}

// timeout bounds one request: a server that hangs is said, not waited for.
const timeout = time.Minute

// Do sends body as JSON, if there is one, and decodes the answer into out. An answer other than 2xx is an
// *Error; no answer is an error that says where none came from.
func (c *Client) Do(ctx context.Context, method, path string, body, out any) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	res, err := c.send(ctx, method, path, body)
	if err != nil {
		return err
	}
	defer func() { _ = res.Body.Close() }()
	b, err := io.ReadAll(io.LimitReader(res.Body, 64<<20))
	if err != nil {
		return fmt.Errorf("read the answer of %s: %w", c.Base, err)
	}
	if res.StatusCode/100 != 2 {
		return problem(res, b)
	}
	if err := json.Unmarshal(b, out); err != nil {
		return fmt.Errorf("%s%s answered something else than JSON: %w", c.Base, path, err)
	}
	return nil
}

func (c *Client) send(ctx context.Context, method, path string, body any) (*http.Response, error) {
	var in io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return nil, fmt.Errorf("encode the request: %w", err)
		}
		in = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, c.Base+path, in)
	if err != nil {
		return nil, fmt.Errorf("the URL %q: %w", c.Base, err)
	}
	c.Authorize(req)
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	res, err := c.HTTP.Do(req)
	if err != nil {
		return nil, c.Unreachable(err)
	}
	return res, nil
}

// Authorize adds the token to a request.
func (c *Client) Authorize(req *http.Request) {
	req.Header.Set("Authorization", "Bearer "+c.Token)
	req.Header.Set("User-Agent", "tick")
}

// Unreachable explains why no answer came.
func (c *Client) Unreachable(err error) error {
	if errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("%s does not answer within %s: is the suite overloaded, or SAMETICK_URL a wrong one? (%w)", c.Base, timeout, err)
	}
	if errors.Is(err, syscall.ECONNREFUSED) {
		return fmt.Errorf("nothing answers at %s: is the suite running (`make up`), and is SAMETICK_URL right? (%w)", c.Base, err)
	}
	return fmt.Errorf("no answer from %s: %w", c.Base, err)
}

// Problem reads an answer other than 2xx.
func Problem(res *http.Response) *Error {
	b, _ := io.ReadAll(io.LimitReader(res.Body, 1<<20))
	return problem(res, b)
}

func problem(res *http.Response, body []byte) *Error {
	e := &Error{}
	if json.Unmarshal(body, e) != nil {
		e.Detail = strings.TrimSpace(string(body[:min(len(body), 300)]))
	}
	e.Status = res.StatusCode
	if e.Title == "" {
		e.Title = http.StatusText(res.StatusCode)
	}
	return e
}
