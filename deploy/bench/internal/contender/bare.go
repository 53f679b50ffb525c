package contender

import (
	"context"
	"encoding/binary"
	"fmt"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/redis/rueidis"
	"golang.org/x/sync/errgroup"

	"github.com/sametick/sametick/pkg/event"
)

// page is how many rows the bare loop reads at once: with fewer the round trips show, with more
// nothing is gained.
const page = 5000

// The columns are those that outbox-relay reads. The cursor is wrong on purpose: this is the least
// work that a relay can do, and it loses what commits late.
const bareSQL = `SELECT id, org_id, shard, aggregate_type, aggregate_id, event_type, payload, trace_context, occurred_at
  FROM sametick.events WHERE id > $1 ORDER BY id LIMIT $2`

// runBare reads a page and appends it, in turn: `id > last` and a pipelined XADD, no bookkeeping.
func runBare(ctx context.Context, t Target) error {
	return bare(ctx, t, func(ctx context.Context, read func() ([]entry, error), write func([]entry) error) error {
		for ctx.Err() == nil {
			entries, err := read()
			if err == nil {
				err = write(entries)
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
}

// runBareAhead is runBare that reads the next page while Redis takes this one.
func runBareAhead(ctx context.Context, t Target) error {
	return bare(ctx, t, func(ctx context.Context, read func() ([]entry, error), write func([]entry) error) error {
		group, ctx := errgroup.WithContext(ctx)
		pages := make(chan []entry)
		group.Go(func() error {
			defer close(pages)
			for {
				entries, err := read()
				if err != nil {
					return err
				}
				select {
				case pages <- entries:
				case <-ctx.Done():
					return nil
				}
			}
		})
		group.Go(func() error {
			for entries := range pages {
				if err := write(entries); err != nil {
					return err
				}
			}
			return nil
		})
		return group.Wait()
	})
}

type loop func(ctx context.Context, read func() ([]entry, error), write func([]entry) error) error

func bare(ctx context.Context, t Target, run loop) error {
	conn, err := pgx.Connect(ctx, t.DatabaseURL)
	if err != nil {
		return fmt.Errorf("connect to Postgres: %w", err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	client, err := dial(t.RedisURL)
	if err != nil {
		return err
	}
	defer client.Close()
	var last int64
	read := func() ([]entry, error) {
		for {
			entries, err := readPage(ctx, conn, &last)
			if len(entries) > 0 || err != nil {
				return entries, err
			}
			select {
			case <-time.After(time.Millisecond):
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		}
	}
	write := func(entries []entry) error {
		commands := make(rueidis.Commands, len(entries))
		for i := range entries {
			commands[i] = entries[i].xadd(client, "*")
		}
		for _, reply := range client.DoMulti(ctx, commands...) {
			if err := reply.Error(); err != nil {
				return fmt.Errorf("append to a stream: %w", err)
			}
		}
		return nil
	}
	return run(ctx, read, write)
}

// readPage takes the rows from their wire form: a reflecting Scan would make the yardstick slower.
func readPage(ctx context.Context, conn *pgx.Conn, last *int64) ([]entry, error) {
	rows, err := conn.Query(ctx, bareSQL, *last, page)
	if err != nil {
		return nil, fmt.Errorf("read a page: %w", err)
	}
	defer rows.Close()
	entries := make([]entry, 0, page)
	for rows.Next() {
		v := rows.RawValues()
		e := event.Event{
			ID: wireInt(v[0]), OrgID: wireInt(v[1]), AggregateType: string(v[3]), AggregateID: wireInt(v[4]),
			EventType: string(v[5]), Payload: v[6], OccurredAt: timestamp(v[8]),
		}
		*last = e.ID
		entries = append(entries, entry{
			shard: int(binary.BigEndian.Uint16(v[2])), org: strconv.FormatInt(e.OrgID, 10), eventType: e.EventType,
			aggregateType: e.AggregateType, aggregateID: strconv.FormatInt(e.AggregateID, 10),
			envelope: e.AppendJSON(make([]byte, 0, 192+len(e.Payload))),
		})
	}
	return entries, rows.Err()
}

func wireInt(wire []byte) int64 { return int64(binary.BigEndian.Uint64(wire)) }

// timestamp reads a binary timestamptz: microseconds since 2000-01-01 UTC.
func timestamp(wire []byte) time.Time {
	const y2000 = 946684800_000000
	return time.UnixMicro(y2000 + wireInt(wire))
}
