package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/redis/rueidis"
	"golang.org/x/sync/errgroup"

	"github.com/sametick/sametick/deploy/bench/internal/backlog"
	"github.com/sametick/sametick/deploy/bench/internal/contender"
	"github.com/sametick/sametick/deploy/bench/internal/rig"
)

const (
	legDrain = "drain of a backlog"
	// What other programs on the machine disturb less than the rate.
	legOwnCost      = "processor time of a drain: the relay"
	legPostgresCost = "processor time of a drain: Postgres"
	legRedisCost    = "processor time of a drain: Redis"
	legBacklog      = "drain by size of the backlog"
	// smallBacklog is what the large ones are held against.
	smallBacklog = "200000"
)

// contendArg makes this program run one contender, as a child of itself.
const contendArg = "contend"

func contend(ctx context.Context, args []string) error {
	if len(args) != 3 {
		return errors.New("contend NAME DATABASE_URL REDIS_URL")
	}
	for _, c := range contender.All() {
		if c.Name == args[0] && c.Run != nil {
			err := c.Run(ctx, contender.Target{DatabaseURL: args[1], RedisURL: args[2]})
			if ctx.Err() != nil { // being stopped is how it ends
				return nil
			}
			return err
		}
	}
	return fmt.Errorf("no contender is called %q", args[0])
}

// dataset is a database with committed events.
type dataset struct {
	url    string
	pool   *pgxpool.Pool
	events int
}

// load makes a database with n events.
func (b *bench) load(ctx context.Context, name string, n int) (*dataset, error) {
	url, err := b.rig.Database(ctx, name, "outbox-relay")
	if err != nil {
		return nil, err
	}
	pool, err := pgxpool.New(ctx, url)
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", name, err)
	}
	_, _ = fmt.Fprintf(b.log, "  committing %d events\n", n)
	if err := backlog.Load(ctx, pool, n); err != nil {
		pool.Close()
		return nil, err
	}
	return &dataset{url: url, pool: pool, events: n}, nil
}

// drains measures every contender over the same backlog, in rounds whose order rotates.
func (b *bench) drains(ctx context.Context) error {
	data, err := b.load(ctx, "drain", b.events)
	if err != nil {
		return err
	}
	defer data.pool.Close()
	contenders := slices.DeleteFunc(contender.All(), func(c contender.Contender) bool {
		return len(b.only) > 0 && !slices.Contains(b.only, c.Name)
	})
	for _, c := range contenders {
		if c.Load != nil {
			if err := c.Load(ctx, data.pool); err != nil {
				return fmt.Errorf("%s: %w", c.Name, err)
			}
		}
	}
	// The first pass warms caches and hint bits and is thrown away.
	for round := range b.rounds + 1 {
		for i := range contenders {
			c := contenders[(i+round)%len(contenders)]
			d, err := b.drain(ctx, data, c)
			if err != nil {
				return fmt.Errorf("%s: %w", c.Name, err)
			}
			_, _ = fmt.Fprintf(b.log, "  round %d %s: %.0f events/s; processor µs an event: itself %.1f, Postgres %.1f, Redis %.1f\n",
				round, c.Name, d.rate, d.own, d.postgres, d.redis)
			if round > 0 {
				b.report.Add(legDrain, c.Name, "events/s", d.rate)
				b.report.Add(legOwnCost, c.Name, "µs an event", d.own)
				b.report.Add(legPostgresCost, c.Name, "µs an event", d.postgres)
				b.report.Add(legRedisCost, c.Name, "µs an event", d.redis)
			}
		}
	}
	return nil
}

// drained is what one drain came to.
type drained struct {
	rate float64 // events/s, steady
	// Processor time in µs an event, from the start of the process.
	own, postgres, redis float64
}

// drain lets one contender move the whole backlog.
func (b *bench) drain(ctx context.Context, data *dataset, c contender.Contender) (d drained, err error) {
	if err := c.Reset(ctx, data.pool); err != nil {
		return d, fmt.Errorf("reset: %w", err)
	}
	if err := b.rig.Settle(ctx); err != nil {
		return d, err
	}
	postgres, redis, err := b.rig.ServersCPU()
	if err != nil {
		return d, err
	}
	p, err := b.startContender(ctx, data, c)
	if err != nil {
		return d, err
	}
	defer func() { err = errors.Join(err, p.Stop()) }()
	group, ctx := errgroup.WithContext(ctx)
	if b.profile > 0 && c.Run == nil {
		group.Go(func() error {
			if err := p.Ready(ctx); err != nil {
				return err
			}
			return p.Profile(ctx, b.profile, filepath.Join(b.out, "outbox-relay.pprof"))
		})
	}
	rate, err := b.rate(ctx, p, data.events)
	if err == nil {
		d, err = b.cost(p, data.events, postgres, redis)
	}
	d.rate = rate
	return d, p.Blame(errors.Join(err, group.Wait()))
}

// cost gives the processor time of a drain. The servers had used postgres and redis when it began.
func (b *bench) cost(p *rig.Process, events int, postgres, redis time.Duration) (d drained, err error) {
	own, err := p.CPU()
	if err != nil {
		return d, err
	}
	postgresNow, redisNow, err := b.rig.ServersCPU()
	micros := func(t time.Duration) float64 { return float64(t.Microseconds()) / float64(events) }
	return drained{own: micros(own), postgres: micros(postgresNow - postgres), redis: micros(redisNow - redis)}, err
}

func (b *bench) startContender(ctx context.Context, data *dataset, c contender.Contender) (*rig.Process, error) {
	if c.Run == nil {
		return b.startRelay(ctx, data.url)
	}
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find this program: %w", err)
	}
	return b.rig.Program(c.Name, exec.Command(self, contendArg, c.Name, data.url, b.rig.RedisURL)) //nolint:noctx // Stop ends it, gently
}

// startRelay starts the real outbox-relay, under the role it has in earnest.
func (b *bench) startRelay(ctx context.Context, databaseURL string) (*rig.Process, error) {
	url, err := b.rig.As(ctx, databaseURL, "sametick_relay")
	if err != nil {
		return nil, err
	}
	return b.rig.Service("outbox-relay", "DATABASE_URL="+url)
}

// rate watches the streams grow until all n events are there. It leaves the first tenth out: the
// process starts, connects and prepares its statements in it.
func (b *bench) rate(ctx context.Context, p *rig.Process, n int) (float64, error) {
	deadline := time.After(time.Minute + time.Duration(n)*time.Millisecond) // 1,000 events/s
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	var (
		first   int64
		started time.Time
	)
	for {
		have, err := b.streamed(ctx)
		now := time.Now()
		switch {
		case err != nil:
			return 0, err
		case have > int64(n):
			return 0, fmt.Errorf("%d entries for %d events: some were relayed twice", have, n)
		case have == int64(n) && started.IsZero():
			return 0, fmt.Errorf("%d events were relayed between two looks: too few to measure", n)
		case have == int64(n):
			return float64(have-first) / now.Sub(started).Seconds(), nil
		case started.IsZero() && have >= int64(n)/10:
			first, started = have, now
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return 0, ctx.Err()
		case <-deadline:
			return 0, fmt.Errorf("%d of %d events relayed when the time was up", have, n)
		}
		if err := p.Failure(); err != nil {
			return 0, err
		}
	}
}

// streamed counts the entries of all streams.
func (b *bench) streamed(ctx context.Context) (int64, error) {
	var commands rueidis.Commands
	for _, key := range contender.StreamKeys() {
		commands = append(commands, b.rig.Redis.B().Xlen().Key(key).Build())
	}
	var sum int64
	for _, reply := range b.rig.Redis.DoMulti(ctx, commands...) {
		n, err := reply.AsInt64()
		if err != nil {
			return 0, fmt.Errorf("count the streams: %w", err)
		}
		sum += n
	}
	return sum, nil
}

// backlogs drains backlogs of several sizes, in turn: the rate must not depend on it.
func (b *bench) backlogs(ctx context.Context) error {
	sizes := []string{smallBacklog, "1000000"}
	if b.long {
		sizes = append(sizes, "10000000")
	}
	ours := contender.All()[0]
	var sets []*dataset
	for _, size := range sizes {
		n, err := strconv.Atoi(size)
		if err != nil {
			return fmt.Errorf("size %q: %w", size, err)
		}
		data, err := b.load(ctx, "backlog_"+size, n)
		if err != nil {
			return err
		}
		defer data.pool.Close()
		sets = append(sets, data)
	}
	for round := range b.rounds + 1 {
		for i := range sets {
			at := (i + round) % len(sets)
			d, err := b.drain(ctx, sets[at], ours)
			if err != nil {
				return err
			}
			_, _ = fmt.Fprintf(b.log, "  round %d backlog %s: %.0f events/s\n", round, sizes[at], d.rate)
			if round > 0 {
				b.report.Add(legBacklog, sizes[at], "events/s", d.rate)
			}
		}
	}
	return nil
}
