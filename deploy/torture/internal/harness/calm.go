package harness

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/redis/rueidis"

	"github.com/sametick/sametick/deploy/torture/internal/chaos"
	"github.com/sametick/sametick/deploy/torture/internal/follow"
	"github.com/sametick/sametick/deploy/torture/internal/judge"
	"github.com/sametick/sametick/pkg/event"
)

const (
	// quiet is how long nothing must move before what is missing counts as missing for good. It is
	// longer than any backoff of the services, and than a stopped client's way back.
	quiet = 20 * time.Second
	// quietDouble is the same for doubles, which never back off.
	quietDouble = 3 * time.Second
	// patience is the end of waiting, whatever moves.
	patience = 5 * time.Minute
	// promptly is how soon events must be in Redis while another transaction is open (P4).
	promptly = 5 * time.Second
)

// calm heals what the storm left and waits until everything has come through.
func (r *run) calm(ctx context.Context) error {
	r.say("healing and draining")
	if err := errors.Join(r.suite.start(ctx), r.suite.awaitReady(ctx)); err != nil {
		return err
	}
	if r.crowd != nil {
		r.crowd.Settle()
	}
	if err := r.load.Final(ctx); err != nil {
		return err
	}
	// Runs write events: they are through before the probe, which counts them, and what follows from it after it.
	for _, step := range []func(context.Context) error{r.drain, r.drainPrompts, r.drain, r.probe, r.drain, r.drainPrompts, r.drain, r.drainWebhooks} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	return nil
}

// state is how far everything has come.
type state struct{ events, positions, published int64 }

func (s state) complete() bool { return s.events == s.positions && s.positions == s.published }

// look asks Postgres and Redis.
func (r *run) look(ctx context.Context, conn *pgx.Conn, redis rueidis.Client) (s state, err error) {
	if err := conn.QueryRow(ctx, `SELECT (SELECT count(*) FROM sametick.events), (SELECT count(*) FROM sametick.positions)`).Scan(&s.events, &s.positions); err != nil {
		return s, fmt.Errorf("count events: %w", err)
	}
	for shard := range event.Shards {
		newest, err := redis.Do(ctx, redis.B().Xrevrange().Key(judge.StreamKey(shard)).End("+").Start("-").Count(1).Build()).AsXRange()
		if err != nil {
			return s, fmt.Errorf("read the end of a stream: %w", err)
		}
		var position int64
		if len(newest) > 0 {
			if _, err := fmt.Sscanf(newest[0].ID, "%d-", &position); err != nil {
				return s, fmt.Errorf("end of a stream: %w", err)
			}
		}
		s.published += position
	}
	return s, nil
}

// drain waits until each event has a position and each position is in Redis, or nothing moves.
func (r *run) drain(ctx context.Context) error {
	conn, err := r.servers.Postgres(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(ctx) }()
	redis, err := r.servers.Redis()
	if err != nil {
		return err
	}
	defer redis.Close()
	still := quiet
	if r.o.Relay != Real {
		still = quietDouble
	}
	return settle(ctx, still, func() (any, bool, error) {
		s, err := r.look(ctx, conn, redis)
		return s, s.complete(), err
	})
}

// settle looks until the look is complete, or has not changed for a while, or patience ends.
func settle(ctx context.Context, still time.Duration, look func() (seen any, complete bool, err error)) error {
	var (
		end   = time.Now().Add(patience)
		moved = time.Now()
		last  any
	)
	for {
		seen, complete, err := look()
		if err != nil || complete {
			return err
		}
		if seen != last {
			last, moved = seen, time.Now()
		}
		if time.Since(moved) > still || time.Now().After(end) {
			return nil // what is missing is the judge's to count
		}
		chaos.Pause(ctx, 200*time.Millisecond)
		if ctx.Err() != nil {
			return fmt.Errorf("wait for the end: %w", ctx.Err())
		}
	}
}

// probe holds a transaction open, writes others, and counts those that are not in Redis promptly.
func (r *run) probe(ctx context.Context) error {
	v := &judge.Verdict{What: "beside an open transaction (P4)"}
	r.report.Verdicts = append(r.report.Verdicts, v)
	redis, err := r.servers.Redis()
	if err != nil {
		return err
	}
	defer redis.Close()
	return r.load.Hold(ctx, orgs()[0], func() error {
		before, err := r.lengths(ctx, redis)
		if err != nil {
			return err
		}
		if err := r.load.Final(ctx); err != nil {
			return err
		}
		v.Checked = int64(len(orgs()))
		end := time.Now().Add(promptly)
		for {
			now, err := r.lengths(ctx, redis)
			if err != nil {
				return err
			}
			if now-before >= v.Checked {
				return nil
			}
			if time.Now().After(end) {
				v.Lost = v.Checked - (now - before)
				v.First = append(v.First, fmt.Sprintf("%d of %d events were not in Redis %s after their commit, while another transaction was open", v.Lost, v.Checked, promptly))
				return nil
			}
			chaos.Pause(ctx, 20*time.Millisecond)
		}
	})
}

// lengths sums what all streams hold.
func (r *run) lengths(ctx context.Context, redis rueidis.Client) (sum int64, err error) {
	for shard := range event.Shards {
		n, err := redis.Do(ctx, redis.B().Xlen().Key(judge.StreamKey(shard)).Build()).AsInt64()
		if err != nil {
			return 0, fmt.Errorf("length of a stream: %w", err)
		}
		sum += n
	}
	return sum, nil
}

// awaitClients waits until each client has what there is for it, and inquires into those that do not get it.
func (r *run) awaitClients(ctx context.Context, clients *judge.Clients) error {
	targets := map[*follow.Life]int64{}
	var behind []follow.Place
	err := settle(ctx, quiet, func() (any, bool, error) {
		var sum int64
		behind = behind[:0]
		for _, p := range r.crowd.Places() {
			target, known := targets[p.Life]
			if !known {
				target = clients.Target(*p.Life)
				targets[p.Life] = target
			}
			sum += p.Last
			if p.Last >= 0 && p.Last < target {
				behind = append(behind, p)
			}
		}
		return sum, len(behind) == 0, nil
	})
	if err == nil {
		r.inquire(ctx, behind)
	}
	return err
}
