package stream

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/redis/rueidis"
)

// Key names the Redis stream of a shard. The braces keep it in one slot of a cluster.
func Key(shard int) string { return "sametick:{" + strconv.Itoa(shard) + "}:events" }

// Redis reads the streams that the relay publishes. Safe for concurrent use.
type Redis struct {
	open func(context.Context) (rueidis.Client, error)
	// opening is held by the one that connects, so that the others can give up waiting by their context.
	opening chan struct{}

	mu     sync.Mutex
	opened rueidis.Client
	closed bool
}

// NewRedis connects by open at the first need and until that succeeds, so that reading goes on, from
// the log, when a process starts while Redis is away.
func NewRedis(open func(context.Context) (rueidis.Client, error)) *Redis {
	return &Redis{open: open, opening: make(chan struct{}, 1)}
}

// Close closes the client. Calls after it fail.
func (r *Redis) Close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.opened != nil && !r.closed {
		r.opened.Close()
	}
	r.closed = true
}

// Ping errs while Redis does not answer.
func (r *Redis) Ping(ctx context.Context) error {
	c, err := r.client(ctx)
	if err != nil {
		return err
	}
	return c.Do(ctx, c.B().Ping().Build()).Error()
}

func (r *Redis) client(ctx context.Context) (rueidis.Client, error) {
	if c, err := r.have(); c != nil || err != nil {
		return c, err
	}
	select {
	case r.opening <- struct{}{}:
		defer func() { <-r.opening }()
	case <-ctx.Done():
		return nil, fmt.Errorf("connect to Redis: %w", ctx.Err())
	}
	if c, err := r.have(); c != nil || err != nil {
		return c, err
	}
	c, err := r.open(ctx)
	if err != nil {
		return nil, fmt.Errorf("connect to Redis: %w", err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		c.Close()
		return nil, rueidis.ErrClosing
	}
	r.opened = c
	return c, nil
}

func (r *Redis) have() (rueidis.Client, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return nil, rueidis.ErrClosing
	}
	return r.opened, nil
}

// wait gives what follows the positions, by shard, as soon as there is something in one of the
// streams; nothing when block has passed. One command on one connection, whatever the number of
// shards. It may outlast ctx by the time of a connection attempt.
func (r *Redis) wait(ctx context.Context, after map[int]int64, count int64, block time.Duration) (map[int][]Entry, error) {
	c, err := r.client(ctx)
	if err != nil {
		return nil, err
	}
	keys, ids, shards := make([]string, 0, len(after)), make([]string, 0, len(after)), make(map[string]int, len(after))
	for shard, position := range after {
		keys, ids = append(keys, Key(shard)), append(ids, strconv.FormatInt(position, 10)+"-0")
		shards[Key(shard)] = shard
	}
	got, err := c.Do(ctx, c.B().Xread().Count(count).Block(max(block.Milliseconds(), 1)).Streams().Key(keys...).Id(ids...).Build()).AsXReadSlices()
	if rueidis.IsRedisNil(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	out := make(map[int][]Entry, len(got))
	for key, list := range got {
		if shard, ok := shards[key]; ok {
			out[shard] = entries(list)
		}
	}
	return out, nil
}

// after gives what follows a position in the stream now.
func (r *Redis) after(ctx context.Context, shard int, position int64, count int) ([]Entry, error) {
	c, err := r.client(ctx)
	if err != nil {
		return nil, err
	}
	from := "(" + strconv.FormatInt(position, 10) + "-0"
	list, err := c.Do(ctx, c.B().Xrange().Key(Key(shard)).Start(from).End("+").Count(int64(count)).Build()).AsXRangeSlices()
	if err != nil {
		return nil, err
	}
	return entries(list), nil
}

// last gives the newest position of the stream, 0 when it is empty.
func (r *Redis) last(ctx context.Context, shard int) (int64, error) {
	c, err := r.client(ctx)
	if err != nil {
		return 0, err
	}
	list, err := c.Do(ctx, c.B().Xrevrange().Key(Key(shard)).End("+").Start("-").Count(1).Build()).AsXRangeSlices()
	if err != nil || len(list) == 0 {
		return 0, err
	}
	position, ok := positionOf(list[0].ID)
	if !ok {
		return 0, fmt.Errorf("stream: %q is no ID of ours", list[0].ID)
	}
	return position, nil
}

// entries decodes up to the first one that is not as the relay writes them: what follows is then a
// hole like any other.
func entries(list []rueidis.XRangeSlice) []Entry {
	out := make([]Entry, 0, len(list))
	for _, x := range list {
		e, ok := entry(x)
		if !ok {
			break
		}
		out = append(out, e)
	}
	return out
}

func entry(x rueidis.XRangeSlice) (Entry, bool) {
	position, ok := positionOf(x.ID)
	if !ok {
		return Entry{}, false
	}
	e := Entry{Position: position}
	var err, err2 error
	for _, f := range x.FieldValues {
		switch f.Field {
		case "e":
			e.Envelope = []byte(f.Value)
		case "o":
			e.OrgID, err = strconv.ParseInt(f.Value, 10, 64)
		case "t":
			e.EventType = f.Value
		case "a":
			e.AggregateType = f.Value
		case "i":
			e.AggregateID, err2 = strconv.ParseInt(f.Value, 10, 64)
		case "c":
			e.Traceparent = f.Value
		}
	}
	return e, err == nil && err2 == nil && len(e.Envelope) > 0 && e.OrgID > 0
}

func positionOf(id string) (int64, bool) {
	text, ok := strings.CutSuffix(id, "-0")
	position, err := strconv.ParseInt(text, 10, 64)
	return position, ok && err == nil && position > 0
}
