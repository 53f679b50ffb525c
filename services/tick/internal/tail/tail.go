// Package tail follows an organisation's events over SSE and reconnects by itself: each event is handed
// on once, in order, over any number of connections.
package tail

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"time"

	"github.com/sametick/sametick/services/tick/internal/client"
)

// Event is an event as the specification shows it.
type Event struct {
	ID            int64           `json:"id"`
	OrgID         int64           `json:"org_id"`
	AggregateType string          `json:"aggregate_type"`
	AggregateID   int64           `json:"aggregate_id"`
	EventType     string          `json:"event_type"`
	Payload       json.RawMessage `json:"payload"`
	OccurredAt    time.Time       `json:"occurred_at"`
}

// Handler is told what happens; its calls come from one goroutine.
type Handler struct {
	// Event gets each event and its JSON as it came.
	Event func(e Event, raw string) error
	// Notice gets what a person should know: a lost connection, a reset.
	Notice func(text string)
}

// Silence is how long a connection may say nothing before it counts as dead: the server sends a heartbeat
// every 30 s. A connection whose other end has vanished would be waited for without end otherwise.
const Silence = 95 * time.Second

// maxEvent bounds one event's size: more than the server ever sends.
const maxEvent = 16 << 20

// errFinal marks errors that connecting again does not cure.
var errFinal = errors.New("")

// Follow hands events on until ctx ends (nil) or the server refuses for good. from is the position to
// resume after, empty to begin with what comes next.
func Follow(ctx context.Context, c *client.Client, filter url.Values, from string, h Handler) error {
	wait, said := minWait, ""
	for {
		last, err := once(ctx, c, filter, from, h)
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, errFinal):
			return err
		case last != from:
			wait, said = minWait, ""
		}
		from = last
		if why := fmt.Sprint(reason(err)); why != said { // one line for an outage, not one for each try
			h.Notice("connection lost (" + why + "), reconnecting")
			said = why
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait/2 + rand.N(wait)):
			wait = min(wait*2, maxWait)
		}
	}
}

const (
	minWait = 200 * time.Millisecond
	maxWait = 10 * time.Second
)

func reason(err error) any {
	if err == nil {
		return "closed by the server"
	}
	return err
}

// once follows one connection to its end and gives the last position seen.
func once(ctx context.Context, c *client.Client, filter url.Values, from string, h Handler) (string, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	silence := time.AfterFunc(Silence, func() { cancel(errSilent) })
	defer silence.Stop()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.Base+"/api/events/stream?"+filter.Encode(), nil)
	if err != nil {
		return from, fmt.Errorf("%wthe URL %q: %w", errFinal, c.Base, err)
	}
	c.Authorize(req)
	req.Header.Set("Accept", "text/event-stream")
	if from != "" {
		req.Header.Set("Last-Event-ID", from)
	}
	res, err := c.HTTP.Do(req)
	if err != nil {
		return from, c.Unreachable(silent(ctx, err))
	}
	defer func() { _ = res.Body.Close() }()
	if res.StatusCode != http.StatusOK {
		refused := client.Problem(res)
		if refused.Status == http.StatusTooManyRequests || refused.Status >= http.StatusInternalServerError {
			return from, refused
		}
		return from, fmt.Errorf("%w%w", errFinal, refused)
	}
	err = messages(&heard{res.Body, silence}, func(m message) error {
		switch {
		case m.event == "reset":
			h.Notice("some events are no longer kept: " + m.data)
		case m.hasData:
			if err := deliver(m.data, h); err != nil {
				return err
			}
		}
		if m.id != "" {
			from = m.id
		}
		return nil
	})
	if err != nil {
		return from, fmt.Errorf("the stream broke: %w", silent(ctx, err))
	}
	return from, nil
}

var errSilent = fmt.Errorf("no heartbeat for %s", Silence)

// silent gives the reason of an error that came from the timer.
func silent(ctx context.Context, err error) error {
	if errors.Is(context.Cause(ctx), errSilent) {
		return errSilent
	}
	return err
}

// heard puts the timer off with each read that brings something.
type heard struct {
	r     io.Reader
	timer *time.Timer
}

func (h *heard) Read(p []byte) (int, error) {
	n, err := h.r.Read(p)
	if n > 0 {
		h.timer.Reset(Silence)
	}
	return n, err
}

func deliver(data string, h Handler) error {
	var event Event
	if err := json.Unmarshal([]byte(data), &event); err != nil {
		return fmt.Errorf("%wthe server sent something else than an event: %w", errFinal, err)
	}
	if err := h.Event(event, data); err != nil {
		return fmt.Errorf("%w%w", errFinal, err)
	}
	return nil
}
