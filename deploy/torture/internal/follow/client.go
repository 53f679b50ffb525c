package follow

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/sametick/sametick/deploy/torture/internal/envelope"
)

// client lives one Life.
type client struct {
	crowd *Crowd
	life  *Life
	rng   *rand.Rand
	rec   *recorder
	// last is the Last-Event-ID, -1 before the first id.
	last  atomic.Int64
	where whereabouts
	slow  bool
	// leaveAfter events the client hangs up and comes back.
	leaveAfter int
}

// live connects again and again until ctx ends, as an EventSource does, but at once. Once the crowd
// is told to settle, it reads as fast as it can and stays. It fails at an answer that it may not get.
func (c *client) live(ctx context.Context) error {
	for ctx.Err() == nil {
		err := c.connect(ctx)
		if fatal, ok := errors.AsType[*refusedError](err); ok {
			return fatal
		}
		c.crowd.reconnects.Add(1)
		wait := time.Duration(c.rng.IntN(400)) * time.Millisecond
		if !c.crowd.settling() && c.rng.IntN(10) == 0 {
			wait += time.Duration(c.rng.IntN(5000)) * time.Millisecond
		}
		pause(ctx, wait)
	}
	return nil
}

// refusedError is an answer that no healthy client may get, whatever chaos reigns.
type refusedError struct{ text string }

func (e *refusedError) Error() string { return e.text }

// connect opens one connection and reads it to its end.
func (c *client) connect(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	query := c.life.Filter.Values()
	gateway := c.crowd.options.Gateways[c.rng.IntN(len(c.crowd.options.Gateways))]
	target := gateway + "/api/events/stream"
	ctx = c.where.trace(ctx, gateway)
	defer c.where.disconnected()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, target, nil)
	if err != nil {
		return fmt.Errorf("make a request: %w", err)
	}
	token, err := c.crowd.options.Token(c.life.OrgID)
	if err != nil {
		return &refusedError{err.Error()}
	}
	if c.crowd.options.Header || c.rng.IntN(2) == 0 {
		req.Header.Set("Authorization", "Bearer "+token)
	} else {
		query.Set("token", token)
	}
	c.resume(req, query.Set)
	req.URL.RawQuery = query.Encode()
	resp, err := c.crowd.http.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }() // the connection is thrown away anyhow
	switch {
	case resp.StatusCode == http.StatusTooManyRequests || resp.StatusCode >= 500:
		return fmt.Errorf("%s", resp.Status)
	case resp.StatusCode != http.StatusOK:
		body, _ := io.ReadAll(io.LimitReader(resp.Body, 500)) // for the message only
		return &refusedError{fmt.Sprintf("%s: %s with Last-Event-ID %d was answered %s: %s", c.life.Name, target, c.last.Load(), resp.Status, body)}
	}
	return c.read(ctx, bufio.NewReaderSize(resp.Body, c.bufferSize()))
}

func (c *client) bufferSize() int {
	if c.slow {
		return 512
	}
	return 1 << 15
}

// resume sets the id in one of the three ways that the gateway takes.
func (c *client) resume(req *http.Request, set func(key, value string)) {
	last := c.last.Load()
	if last < 0 {
		return
	}
	id := strconv.FormatInt(last, 10)
	switch c.rng.IntN(3) {
	case 0:
		set("last_event_id", id)
	case 1:
		set("lastEventId", id)
	default:
		req.Header.Set("Last-Event-ID", id)
	}
}

// read takes blocks until the stream ends or the client has enough of it.
func (c *client) read(ctx context.Context, r *bufio.Reader) error {
	c.leaveAfter = 20 + c.rng.IntN(3000)
	until := time.Now().Add(time.Duration(500+c.rng.IntN(20000)) * time.Millisecond)
	var b block
	for n := 0; ; n++ {
		if err := readBlock(r, &b); err != nil {
			return err
		}
		c.where.hear(&b)
		if err := c.take(&b); err != nil {
			return err
		}
		if c.crowd.settling() {
			continue
		}
		if n >= c.leaveAfter || time.Now().After(until) {
			return nil
		}
		if c.slow {
			pause(ctx, 40*time.Millisecond)
		}
	}
}

// take writes one block down.
func (c *client) take(b *block) error {
	rec, ok, err := recordOf(b)
	if err != nil {
		return &refusedError{c.life.Name + ": " + err.Error()}
	}
	if !ok {
		return nil
	}
	if err := c.rec.write(rec); err != nil {
		return &refusedError{err.Error()}
	}
	switch rec.Kind {
	case Delivery:
		c.crowd.delivered.Add(1)
	case Mark:
		c.crowd.marks.Add(1)
	case Reset:
		return nil
	}
	c.last.Store(rec.Position)
	c.crowd.sawPosition(c.life.OrgID, rec.Position)
	return nil
}

// recordOf turns a block into a record; false when it says nothing (a heartbeat, a retry).
func recordOf(b *block) (Record, bool, error) {
	if b.event == "reset" {
		var reset struct {
			FirstPosition int64 `json:"first_position"`
		}
		err := json.Unmarshal(b.data, &reset)
		return Record{Kind: Reset, Position: reset.FirstPosition}, true, err
	}
	if b.event != "" {
		return Record{}, false, fmt.Errorf("an event has the unknown name %q", b.event)
	}
	if !b.hasID {
		if b.hasData {
			return Record{}, false, fmt.Errorf("an event came without an id: %.100q", b.data)
		}
		return Record{}, false, nil
	}
	position, err := strconv.ParseInt(b.id, 10, 64)
	if err != nil || position < 0 {
		return Record{}, false, fmt.Errorf("an id is no position: %.40q", b.id)
	}
	if !b.hasData {
		return Record{Kind: Mark, Position: position}, true, nil
	}
	return Record{Kind: Delivery, Position: position, EventID: envelope.EventID(b.data), Hash: envelope.Hash(b.data)}, true, nil
}

// receiveBuffer is what the kernel keeps for a client, so that a slow reader is slow at the gateway's end too.
const receiveBuffer = 8 << 10

// newHTTPClient makes connections that are not shared and have small receive buffers. They are made small before
// the connection is, so that the window is never taken back: Linux sends into a window that has shrunk below a segment
// by its probe timer alone, 16 KiB at a time, 200 ms apart or (the timer doubles) up to two minutes, and a client that
// reads all the time hangs.
func newHTTPClient() *http.Client {
	dialer := &net.Dialer{Timeout: 2 * time.Second, Control: func(_, _ string, conn syscall.RawConn) error {
		var failed error
		err := conn.Control(func(fd uintptr) {
			failed = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, receiveBuffer)
		})
		return errors.Join(err, failed)
	}}
	return &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true, DisableCompression: true, ResponseHeaderTimeout: 10 * time.Second, DialContext: dialer.DialContext,
	}}
}

func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}
