package double

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/redis/rueidis"

	"github.com/sametick/sametick/pkg/event"
)

// page is how many events a double takes at a time.
const page = 2000

// stepOf gives what a kind of double does again and again; nil for an unknown kind.
func stepOf(kind string) func(context.Context, *session) error {
	switch kind {
	case "right":
		return func(ctx context.Context, s *session) error {
			return s.sequence(ctx, `WHERE NOT EXISTS (SELECT FROM sametick.positions p WHERE p.event_id = e.id) ORDER BY e.id`, 0, nil)
		}
	case "wrong-id":
		return func(ctx context.Context, s *session) error {
			return s.sequence(ctx, `WHERE e.id > (SELECT id FROM torture.double_cursor) ORDER BY e.id LIMIT $1`, page, last)
		}
	case "wrong-xmin":
		return func(ctx context.Context, s *session) error {
			return s.sequence(ctx, `WHERE (e.txid, e.id) > (SELECT txid, id FROM torture.double_cursor)
				AND e.txid < pg_snapshot_xmin(pg_current_snapshot()) ORDER BY e.txid, e.id LIMIT $1`, page, last)
		}
	case "wrong-direct":
		return direct
	default:
		return nil
	}
}

// last is the cursor behind a list.
func last(list []stored) stored { return list[len(list)-1] }

// sequence gives the next positions to the events of a query, moves the cursor in the same
// transaction, and publishes. The right double takes all that is visible, since a part of a snapshot
// may hold an event and not one that an entity had before it; a limit of 0 stands for that.
func (s *session) sequence(ctx context.Context, where string, limit int, cursor func([]stored) stored) error {
	var args []any
	if limit > 0 {
		args = append(args, limit)
	}
	s.gate.pass()
	err := pgx.BeginFunc(ctx, s.conn, func(tx pgx.Tx) error {
		// Replicas take turns: each kind of double is wrong in its own way only.
		if _, err := tx.Exec(ctx, `SELECT pg_advisory_xact_lock(1)`); err != nil {
			return fmt.Errorf("take a turn: %w", err)
		}
		list, err := s.read(ctx, where, args...)
		if err != nil || len(list) == 0 {
			return err
		}
		return s.claim(ctx, tx, list, cursor)
	})
	if err != nil {
		return err
	}
	for shard := range event.Shards {
		if err := s.publish(ctx, shard); err != nil {
			return err
		}
	}
	return nil
}

// claim writes positions after the heads of the shards.
func (s *session) claim(ctx context.Context, tx pgx.Tx, list []stored, cursor func([]stored) stored) error {
	var (
		heads [event.Shards]int64
		shard int
		head  int64
	)
	rows, err := tx.Query(ctx, `SELECT n, coalesce((SELECT position FROM sametick.positions WHERE shard = n ORDER BY position DESC LIMIT 1), 0)
		FROM generate_series(0, $1) n`, event.Shards-1)
	if err != nil {
		return fmt.Errorf("read the heads: %w", err)
	}
	if _, err := pgx.ForEachRow(rows, []any{&shard, &head}, func() error { heads[shard] = head; return nil }); err != nil {
		return fmt.Errorf("read the heads: %w", err)
	}
	shards, positions, ids := make([]int16, len(list)), make([]int64, len(list)), make([]int64, len(list))
	for i := range list {
		heads[list[i].shard]++
		shards[i], positions[i], ids[i] = int16(list[i].shard), heads[list[i].shard], list[i].ID
	}
	if _, err := tx.Exec(ctx, `INSERT INTO sametick.positions SELECT * FROM unnest($1::smallint[], $2::bigint[], $3::bigint[])`, shards, positions, ids); err != nil {
		return fmt.Errorf("write positions: %w", err)
	}
	if cursor == nil {
		return nil
	}
	at := cursor(list)
	if _, err := tx.Exec(ctx, `UPDATE torture.double_cursor SET txid = $1::text::xid8, id = $2`, strconv.FormatUint(at.txid, 10), at.ID); err != nil {
		return fmt.Errorf("move the cursor: %w", err)
	}
	return nil
}

// publish adds what the log has beyond the end of the shard's stream.
func (s *session) publish(ctx context.Context, shard int) error {
	key := fmt.Sprintf("sametick:{%d}:events", shard)
	for {
		s.gate.pass()
		newest, err := s.redis.Do(ctx, s.redis.B().Xrevrange().Key(key).End("+").Start("-").Count(1).Build()).AsXRange()
		if err != nil {
			return fmt.Errorf("read the end of a stream: %w", err)
		}
		end, after := "0-0", int64(0)
		if len(newest) > 0 {
			end = newest[0].ID
			number, _, _ := strings.Cut(end, "-")
			if after, err = strconv.ParseInt(number, 10, 64); err != nil {
				return fmt.Errorf("end of a stream: %w", err)
			}
		}
		list, err := s.read(ctx, `JOIN sametick.positions p ON p.event_id = e.id WHERE p.shard = $1 AND p.position > $2 ORDER BY p.position LIMIT $3`, shard, after, page)
		if err != nil {
			return err
		}
		if err := s.extend(ctx, key, end, after, list); err != nil {
			return err
		}
		if len(list) < page {
			return nil
		}
	}
}

// extendScript adds entries only to a stream that still ends where it was seen to end: what emptied or
// shortened it meanwhile must not leave a hole. KEYS[1] the stream; ARGV[1] its end, ARGV[2] the
// position before the first entry, then six field values an entry (e o t a i c).
const extendScript = `
local newest = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)
if (newest[1] and newest[1][1] or '0-0') ~= ARGV[1] then return 0 end
local n = 0
for i = 3, #ARGV, 6 do
  n = n + 1
  redis.call('XADD', KEYS[1], string.format('%d-0', ARGV[2] + n),
    'e', ARGV[i], 'o', ARGV[i+1], 't', ARGV[i+2], 'a', ARGV[i+3], 'i', ARGV[i+4], 'c', ARGV[i+5])
end
return n`

// extend adds the events after a position; when the stream moved meanwhile it does nothing, and the
// next round looks again.
func (s *session) extend(ctx context.Context, key, end string, after int64, list []stored) error {
	if len(list) == 0 {
		return nil
	}
	s.gate.pass()
	args := []string{end, strconv.FormatInt(after, 10)}
	for i := range list {
		e := &list[i]
		args = append(args, string(e.AppendJSON(nil)), strconv.FormatInt(e.OrgID, 10), e.EventType, e.AggregateType,
			strconv.FormatInt(e.AggregateID, 10), e.trace)
	}
	if err := s.redis.Do(ctx, s.redis.B().Eval().Script(extendScript).Numkeys(1).Key(key).Arg(args...).Build()).Error(); err != nil {
		return fmt.Errorf("extend a stream: %w", err)
	}
	return nil
}

// direct sends each event to its stream by its id, and remembers that it was sent.
func direct(ctx context.Context, s *session) error {
	list, err := s.read(ctx, `WHERE NOT EXISTS (SELECT FROM torture.double_sent p WHERE p.event_id = e.id) ORDER BY e.id LIMIT $1`, page)
	if err != nil || len(list) == 0 {
		return err
	}
	s.gate.pass()
	var (
		ids      = make([]int64, len(list))
		commands = make(rueidis.Commands, len(list))
	)
	for i := range list {
		e := &list[i]
		ids[i] = e.ID
		commands[i] = s.redis.B().Xadd().Key(fmt.Sprintf("sametick:{%d}:events", e.shard)).Id(strconv.FormatInt(e.ID, 10)+"-0").FieldValue().
			FieldValue("e", string(e.AppendJSON(nil))).FieldValue("o", strconv.FormatInt(e.OrgID, 10)).FieldValue("t", e.EventType).
			FieldValue("a", e.AggregateType).FieldValue("i", strconv.FormatInt(e.AggregateID, 10)).Build()
	}
	for _, reply := range s.redis.DoMulti(ctx, commands...) {
		err := reply.Error()
		if _, refused := rueidis.IsRedisErr(err); err != nil && !refused {
			return fmt.Errorf("add to a stream: %w", err)
		}
		// What Redis refused is taken for "already there": the mistake this double is made of.
	}
	s.gate.pass()
	if _, err := s.conn.Exec(ctx, `INSERT INTO torture.double_sent SELECT unnest($1::bigint[]) ON CONFLICT DO NOTHING`, ids); err != nil {
		return fmt.Errorf("remember what was sent: %w", err)
	}
	return nil
}
