package latency

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/redis/rueidis"
)

// FollowRedis reads the streams from their ends with a blocked XREAD, until ctx ends, and tells the
// clock what arrives. Ready is closed when it knows the ends.
func FollowRedis(ctx context.Context, client rueidis.Client, keys []string, clock *Clock, ready chan<- struct{}) error {
	conn, release := client.Dedicate()
	defer release()
	ids := make([]string, len(keys))
	at := map[string]int{}
	for i, key := range keys {
		at[key], ids[i] = i, "0-0"
		last, err := conn.Do(ctx, conn.B().Xrevrange().Key(key).End("+").Start("-").Count(1).Build()).AsXRange()
		if err != nil {
			return fmt.Errorf("read the end of %s: %w", key, err)
		}
		if len(last) > 0 {
			ids[i] = last[0].ID
		}
	}
	close(ready)
	for ctx.Err() == nil {
		read := conn.B().Xread().Count(1000).Block(200).Streams().Key(keys...).Id(ids...).Build()
		streams, err := conn.Do(ctx, read).AsXRead()
		now := time.Now()
		if rueidis.IsRedisNil(err) || ctx.Err() != nil {
			continue
		}
		if err != nil {
			return fmt.Errorf("read the streams: %w", err)
		}
		for key, entries := range streams {
			for _, e := range entries {
				ids[at[key]] = e.ID
				id, err := eventID([]byte(e.FieldValues["e"]))
				if err != nil {
					return err
				}
				clock.Arrived(id, now)
			}
		}
	}
	return nil
}

// FollowSSE reads an organisation's stream until ctx ends and tells the clock what arrives. Ready is
// sent one value when the stream is open.
func FollowSSE(ctx context.Context, url, token string, clock *Clock, ready chan<- struct{}) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return fmt.Errorf("open a stream: %w", err)
	}
	req.Header.Set("Authorization", "Bearer "+token)
	// A connection of its own, as each client has.
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return fmt.Errorf("open a stream: %w", err)
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("open a stream: %s answers %s", url, resp.Status)
	}
	ready <- struct{}{}
	lines := bufio.NewReaderSize(resp.Body, 64<<10)
	for {
		line, err := lines.ReadSlice('\n')
		now := time.Now()
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read a stream: %w", err)
		}
		data, ok := bytes.CutPrefix(line, []byte("data:"))
		if !ok {
			continue
		}
		id, err := eventID(bytes.TrimSpace(data))
		if err != nil {
			return err
		}
		clock.Arrived(id, now)
	}
}

// eventID takes the id from the head of an event's JSON, where the specification shows it; a whole
// parse in the reader would be measured too.
func eventID(envelope []byte) (int64, error) {
	rest, ok := bytes.CutPrefix(envelope, []byte(`{"id":`))
	digits, _, found := bytes.Cut(rest, []byte(","))
	id, err := strconv.ParseInt(string(digits), 10, 64)
	if !ok || !found || err != nil {
		return 0, fmt.Errorf("not an event: %.80q", envelope)
	}
	return id, nil
}
