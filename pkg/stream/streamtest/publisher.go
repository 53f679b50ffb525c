package streamtest

import (
	"context"
	"strconv"
	"testing"

	"github.com/redis/rueidis"

	"github.com/sametick/sametick/pkg/event"
	"github.com/sametick/sametick/pkg/redisconn"
	"github.com/sametick/sametick/pkg/stream"
)

// Server is a Redis that can crash; redistest.New gives one.
type Server interface {
	Kill() error
	Start(ctx context.Context) error
}

// Publisher puts a Log into a Redis, in the form of the relay. For one goroutine.
type Publisher struct {
	log    *Log
	url    string
	server Server
	client rueidis.Client
	done   [event.Shards]int64
}

// NewPublisher publishes into a server, at the same URL after a crash, until the test ends.
func NewPublisher(t testing.TB, log *Log, url string, server Server) *Publisher {
	t.Helper()
	p := &Publisher{log: log, url: url, server: server}
	if err := p.connect(t.Context()); err != nil {
		t.Fatalf("streamtest: %v", err)
	}
	t.Cleanup(func() { p.client.Close() })
	return p
}

func (p *Publisher) connect(ctx context.Context) (err error) {
	p.client, err = redisconn.Open(ctx, p.url, redisconn.Options{})
	return err
}

// Redis gives the reader's side of the server, closed when the test ends.
func (p *Publisher) Redis(t testing.TB) *stream.Redis {
	t.Helper()
	r := stream.NewRedis(func(ctx context.Context) (rueidis.Client, error) {
		return redisconn.Open(ctx, p.url, redisconn.Options{})
	})
	t.Cleanup(r.Close)
	return r
}

// Publish adds what the log holds and the streams do not.
func (p *Publisher) Publish(ctx context.Context) error {
	for shard := range event.Shards {
		for _, e := range p.log.Entries(shard, p.done[shard], 0) {
			add := p.client.B().Xadd().Key(stream.Key(shard)).Id(strconv.FormatInt(e.Position, 10)+"-0").FieldValue().
				FieldValue("e", rueidis.BinaryString(e.Envelope)).FieldValue("o", strconv.FormatInt(e.OrgID, 10)).
				FieldValue("t", e.EventType).FieldValue("a", e.AggregateType).FieldValue("i", strconv.FormatInt(e.AggregateID, 10)).
				FieldValue("c", e.Traceparent).Build()
			if err := p.client.Do(ctx, add).Error(); err != nil {
				return err
			}
			p.done[shard] = e.Position
		}
	}
	return nil
}

// Flush empties Redis. What comes next is published with a hole before it, until Refill.
func (p *Publisher) Flush(ctx context.Context) error {
	return p.client.Do(ctx, p.client.B().Flushall().Build()).Error()
}

// Refill deletes every stream and publishes the newest `keep` entries of each anew.
func (p *Publisher) Refill(ctx context.Context, keep int) error {
	for shard := range event.Shards {
		if err := p.client.Do(ctx, p.client.B().Del().Key(stream.Key(shard)).Build()).Error(); err != nil {
			return err
		}
		all := p.log.Entries(shard, 0, 0)
		p.done[shard] = 0
		if n := len(all) - keep; n > 0 {
			p.done[shard] = all[n-1].Position
		}
	}
	return p.Publish(ctx)
}

// Trim leaves the newest `keep` entries of each stream.
func (p *Publisher) Trim(ctx context.Context, keep int) error {
	for shard := range event.Shards {
		cmd := p.client.B().Xtrim().Key(stream.Key(shard)).Maxlen().Exact().Threshold(strconv.Itoa(keep)).Build()
		if err := p.client.Do(ctx, cmd).Error(); err != nil {
			return err
		}
	}
	return nil
}

// Puncture takes single entries out of the streams, every third.
func (p *Publisher) Puncture(ctx context.Context) error {
	for shard := range event.Shards {
		for i, e := range p.log.Entries(shard, 0, 0) {
			if i%3 != 1 {
				continue
			}
			cmd := p.client.B().Xdel().Key(stream.Key(shard)).Id(strconv.FormatInt(e.Position, 10) + "-0").Build()
			if err := p.client.Do(ctx, cmd).Error(); err != nil {
				return err
			}
		}
	}
	return nil
}

// Restart crashes the server; it comes back empty.
func (p *Publisher) Restart(ctx context.Context) error {
	if err := p.server.Kill(); err != nil {
		return err
	}
	if err := p.server.Start(ctx); err != nil {
		return err
	}
	p.client.Close() // it has connections that do not know yet that they are dead
	return p.connect(ctx)
}
