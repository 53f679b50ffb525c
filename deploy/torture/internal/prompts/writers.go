package prompts

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"time"
)

// Reviewed is a type of records whose creation a review hook judges by a rule: what is named bad is refused.
type Reviewed struct {
	Type   string
	HookID int64
	// FailOpen is the hook's failure policy.
	FailOpen bool
}

// EventType is what the hook judges.
func (r *Reviewed) EventType() string { return r.Type + ".pre_create" }

// Rule is the hook's, in CEL.
const Rule = `after.name.endsWith(" bad")`

// Outcome is what a writer was told of a write.
type Outcome int

// The outcomes.
const (
	// Unknown: no answer, or one that says nothing, such as a database that is down.
	Unknown Outcome = iota
	// Created: it is there.
	Created
	// Rejected by its review.
	Rejected
	// Unavailable: its review could not be made, and so it was refused.
	Unavailable
)

// Write is one that was tried, once.
type Write struct {
	Type string
	// Name is no other write's.
	Name    string
	Bad     bool
	Outcome Outcome
}

// Writers create records of reviewed types through api-gateway.
type Writers struct {
	// URL and Token are api-gateway's; Types what they write.
	URL, Token string
	Types      []*Reviewed
	Think      time.Duration
	Seed       uint64

	client http.Client
	mu     sync.Mutex
	writes []Write
}

// Run writes by n writers until ctx ends. Whatever happens to a write, the next one is tried.
func (w *Writers) Run(ctx context.Context, n int) {
	w.client.Timeout = 8 * time.Second
	defer w.client.CloseIdleConnections()
	var all sync.WaitGroup
	for k := range n {
		rng := rand.New(rand.NewPCG(w.Seed, 1<<34+uint64(k)))
		all.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				v := Write{Type: w.Types[rng.IntN(len(w.Types))].Type, Bad: rng.IntN(2) == 0}
				v.Name = fmt.Sprintf("write %d-%d %s", k, i, map[bool]string{true: "bad", false: "good"}[v.Bad])
				w.try(ctx, &v)
				w.mu.Lock()
				w.writes = append(w.writes, v)
				w.mu.Unlock()
				wait(ctx, time.Duration(rng.Int64N(int64(2*w.Think)+1)))
			}
		})
	}
	all.Wait()
}

// Writes are those that were tried so far.
func (w *Writers) Writes() []Write {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]Write(nil), w.writes...)
}

// try makes one write. It is brought to its end, so that few outcomes stay unknown.
func (w *Writers) try(ctx context.Context, v *Write) {
	body, err := json.Marshal(map[string]string{"name": v.Name})
	if err != nil {
		return
	}
	req, err := http.NewRequestWithContext(context.WithoutCancel(ctx), http.MethodPost, w.URL+"/api/records/"+v.Type, bytes.NewReader(body))
	if err != nil {
		return
	}
	req.Header = http.Header{"Authorization": {"Bearer " + w.Token}, "Content-Type": {"application/json"}}
	resp, err := w.client.Do(req)
	if err != nil {
		return
	}
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxBody))
	if err = errors.Join(err, resp.Body.Close()); err != nil {
		return
	}
	switch {
	case resp.StatusCode == http.StatusOK || resp.StatusCode == http.StatusCreated:
		v.Outcome = Created
	case strings.Contains(string(text), "REVIEW_REJECTED"):
		v.Outcome = Rejected
	case strings.Contains(string(text), "REVIEW_UNAVAILABLE"):
		v.Outcome = Unavailable
	}
}

func wait(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}
