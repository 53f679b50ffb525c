// Package redisconn is the suite's way to Redis: one client (rueidis) with bounded waits. Keys and
// commands live with the packages that own them.
package redisconn

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/redis/rueidis"

	"github.com/sametick/sametick/pkg/backoff"
	"github.com/sametick/sametick/pkg/errs"
)

// Options of a client.
type Options struct {
	// Name is shown in CLIENT LIST.
	Name string
	// Log gets one line per failed attempt to connect; nil for none.
	Log *slog.Logger
	// Configure, if set, changes the client's options last.
	Configure func(*rueidis.ClientOption)
}

const (
	dialTimeout = 3 * time.Second
	// writeTimeout also bounds the wait for the reply of a command that does not block.
	writeTimeout = 5 * time.Second
)

var reconnect = backoff.Policy{Base: 50 * time.Millisecond, Cap: 2 * time.Second}

// Open connects, and goes on trying while Redis does not answer: a process starts without Redis and
// is unready until then. It errs only when the URL is wrong or ctx ends. The client reconnects by
// itself afterwards. Errors and logs never contain the URL, which has a password.
func Open(ctx context.Context, url string, o Options) (rueidis.Client, error) {
	opt, err := options(url, o)
	if err != nil {
		return nil, err
	}
	for attempt := 1; ; attempt++ {
		c, err := rueidis.NewClient(opt)
		if err == nil {
			return c, nil
		}
		if o.Log != nil {
			o.Log.WarnContext(ctx, "redis does not answer, trying again", "addresses", opt.InitAddress, "attempt", attempt, "error", err)
		}
		t := time.NewTimer(reconnect.Next(attempt))
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return nil, errs.New(errs.Unavailable, "REDIS_UNAVAILABLE", "redis does not answer").WithCause(errors.Join(ctx.Err(), err))
		}
	}
}

func options(url string, o Options) (rueidis.ClientOption, error) {
	opt, err := rueidis.ParseURL(url)
	if err != nil {
		return opt, errors.New("redisconn: the Redis URL does not parse") // the cause quotes the URL
	}
	if opt.Dialer.Timeout == 0 {
		opt.Dialer.Timeout = dialTimeout
	}
	if opt.ConnWriteTimeout == 0 {
		opt.ConnWriteTimeout = writeTimeout
	}
	if o.Name != "" {
		opt.ClientName = o.Name
	}
	opt.DisableCache = true // nothing here is cached by the client, and CLIENT TRACKING costs a round trip
	if o.Configure != nil {
		o.Configure(&opt)
	}
	return opt, nil
}

// Ping errs while Redis does not answer: a readiness check.
func Ping(ctx context.Context, c rueidis.Client) error {
	return c.Do(ctx, c.B().Ping().Build()).Error()
}
