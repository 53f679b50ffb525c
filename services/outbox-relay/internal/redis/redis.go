// Package redis is the relay's half in Redis: it adds groups to the streams and reads their ends.
// What the answers mean is decided in internal/publish.
package redis

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/redis/rueidis"

	"github.com/sametick/sametick/pkg/errs"
	"github.com/sametick/sametick/pkg/event"
	"github.com/sametick/sametick/services/outbox-relay/internal/publish"
	"github.com/sametick/sametick/services/outbox-relay/internal/sequence"
)

// Streams writes and reads the streams. Safe for concurrent use, though one publisher uses it.
type Streams struct {
	open   func(ctx context.Context) (rueidis.Client, error)
	pubsub bool

	mu     sync.Mutex
	opened rueidis.Client
}

// wait bounds every call: a Redis that does not answer must show as an error.
const wait = 5 * time.Second

// New uses open at the first need and until it succeeds, so that a relay starts and sequences without
// Redis. pubsub also sends each event to the channel of its organisation.
func New(open func(ctx context.Context) (rueidis.Client, error), pubsub bool) *Streams {
	return &Streams{open: open, pubsub: pubsub}
}

// Close closes the client, if there is one.
func (s *Streams) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.opened != nil {
		s.opened.Close()
	}
}

func (s *Streams) client(ctx context.Context) (rueidis.Client, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.opened != nil {
		return s.opened, nil
	}
	c, err := s.open(ctx)
	if err != nil {
		return nil, fmt.Errorf("connect to Redis: %w", err)
	}
	if c.Mode() == rueidis.ClientModeCluster {
		c.Close()
		return nil, errs.New(errs.FailedPrecondition, ReasonCluster,
			"this Redis runs in cluster mode, which outbox-relay does not support: give it a single primary in REDIS_URL")
	}
	s.opened = c
	return c, nil
}

// ReasonCluster is the reason of the error of every call when Redis runs in cluster mode: one connection
// sends the transactions of all shards, and a cluster has them in several places.
const ReasonCluster = "REDIS_CLUSTER"

// startWait is how long a start waits to learn what Redis is.
const startWait = time.Second

// Check errs when Redis runs in cluster mode. A Redis that does not answer is no error: it may come later, and is
// refused then.
func (s *Streams) Check(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startWait)
	defer cancel()
	if _, err := s.client(ctx); errs.HasReason(err, ReasonCluster) {
		return err
	}
	return nil
}

// Key names the stream of a shard. The braces keep it in one slot of a cluster.
func Key(shard int) string { return "sametick:{" + strconv.Itoa(shard) + "}:events" }

// Channel is where an organisation's events are also sent.
func Channel(orgID int64) string { return "sametick:org:" + strconv.FormatInt(orgID, 10) }

// refusedPrefix is how Redis answers an ID that is not greater than the stream's last. There is no
// error code for it, so text it is; any other error of XADD is an error here.
const refusedPrefix = "ERR The ID specified in XADD is equal or smaller"

// Add sends all groups at once, one transaction each, on a connection of their own. On an error
// nothing is known of any group.
func (s *Streams) Add(ctx context.Context, groups []publish.Group) ([]publish.Reply, error) {
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	client, err := s.client(ctx)
	if err != nil {
		return nil, err
	}
	c, release := client.Dedicate()
	defer release()
	var cmds rueidis.Commands
	ends := make([]int, len(groups)) // where the EXEC of a group is
	for i := range groups {
		cmds = s.transaction(c, cmds, &groups[i])
		ends[i] = len(cmds) - 1
	}
	results := c.DoMulti(ctx, cmds...)
	replies := make([]publish.Reply, len(groups))
	for i, at := range ends {
		if err := results[at].Error(); err != nil {
			return nil, fmt.Errorf("publish to shard %d: %w", groups[i].Shard, firstError(results, at, err))
		}
		r, err := s.reply(&groups[i], results[at])
		if err != nil {
			return nil, fmt.Errorf("publish to shard %d: %w", groups[i].Shard, err)
		}
		replies[i] = r
	}
	return replies, nil
}

// firstError finds what a transaction was refused for; EXEC itself only says that it was.
func firstError(results []rueidis.RedisResult, at int, otherwise error) error {
	for i := range at {
		if err := results[i].Error(); err != nil {
			return err
		}
	}
	return otherwise
}

func (s *Streams) transaction(c rueidis.DedicatedClient, cmds rueidis.Commands, g *publish.Group) rueidis.Commands {
	key := Key(g.Shard)
	cmds = append(cmds, c.B().Multi().Build(), c.B().Xrevrange().Key(key).End("+").Start("-").Count(1).Build())
	for i := range g.Events {
		e := &g.Events[i]
		envelope := rueidis.BinaryString(e.Envelope)
		b := c.B().Xadd().Key(key).Id(strconv.FormatInt(e.Position, 10)+"-0").FieldValue().
			FieldValue("e", envelope).FieldValue("o", strconv.FormatInt(e.OrgID, 10)).FieldValue("t", e.EventType).
			FieldValue("a", e.AggregateType).FieldValue("i", strconv.FormatInt(e.AggregateID, 10))
		if e.Traceparent != "" {
			b = b.FieldValue("c", e.Traceparent)
		}
		cmds = append(cmds, b.Build())
	}
	if s.pubsub {
		for i := range g.Events {
			if e := &g.Events[i]; e.Position > g.Announce {
				cmds = append(cmds, c.B().Publish().Channel(Channel(e.OrgID)).Message(rueidis.BinaryString(e.Envelope)).Build())
			}
		}
	}
	return append(cmds, c.B().Exec().Build())
}

// reply reads the answers inside EXEC's: the last entry, then one for each event.
func (s *Streams) reply(g *publish.Group, exec rueidis.RedisResult) (r publish.Reply, err error) {
	list, err := exec.ToArray()
	if err != nil {
		return r, err
	}
	if len(list) < 1+len(g.Events) {
		return r, fmt.Errorf("EXEC has %d answers, want at least %d", len(list), 1+len(g.Events))
	}
	last, err := list[0].AsXRange()
	if wrongType(err) {
		return publish.Reply{Foreign: true}, nil
	}
	if err != nil {
		return r, err
	}
	if len(last) > 0 {
		position, ok := parse(last[0])
		r.Last, r.Foreign = position, !ok
	}
	for i := range g.Events {
		if err := list[1+i].Error(); err != nil {
			if !strings.HasPrefix(err.Error(), refusedPrefix) {
				return r, err
			}
			r.Refused++
		}
	}
	return r, nil
}

// wrongType tells whether a key holds something of another type.
func wrongType(err error) bool {
	refused, ok := rueidis.IsRedisErr(err)
	return ok && strings.HasPrefix(refused.Error(), "WRONGTYPE")
}

// parse gives an entry's position; false for an entry that no relay has written.
func parse(e rueidis.XRangeEntry) (int64, bool) {
	head, sub, _ := strings.Cut(e.ID, "-")
	position, err := strconv.ParseInt(head, 10, 64)
	_, ours := e.FieldValues["e"]
	return position, err == nil && sub == "0" && ours
}

// Tails reads the ends of all streams. A key that is no stream is a foreign tail: one bad key must
// not keep the other shards from being published.
func (s *Streams) Tails(ctx context.Context) (tails [event.Shards]publish.Tail, err error) {
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	c, err := s.client(ctx)
	if err != nil {
		return tails, err
	}
	cmds := make(rueidis.Commands, 0, 3*event.Shards)
	for i := range event.Shards {
		cmds = append(cmds,
			c.B().Xrevrange().Key(Key(i)).End("+").Start("-").Count(1).Build(),
			c.B().Xrange().Key(Key(i)).Start("-").End("+").Count(1).Build(),
			c.B().Xlen().Key(Key(i)).Build())
	}
	results := c.DoMulti(ctx, cmds...)
	for i := range tails {
		if tails[i], err = tail(results[3*i : 3*i+3]); err != nil {
			return tails, fmt.Errorf("read the ends of shard %d: %w", i, err)
		}
	}
	return tails, nil
}

// tail reads the answers of one shard: the newest entry, the oldest, the length.
func tail(answers []rueidis.RedisResult) (t publish.Tail, err error) {
	newest, err := answers[0].AsXRange()
	if wrongType(err) {
		return publish.Tail{Foreign: true}, nil
	}
	if err != nil {
		return t, err
	}
	oldest, err := answers[1].AsXRange()
	if err != nil {
		return t, err
	}
	if t.Length, err = answers[2].AsInt64(); err != nil {
		return t, err
	}
	if len(newest) == 0 || len(oldest) == 0 {
		return t, nil
	}
	var ours, oursToo bool
	t.Last, ours = parse(newest[0])
	t.First, oursToo = parse(oldest[0])
	t.Envelope, t.Foreign = []byte(newest[0].FieldValues["e"]), !ours || !oursToo
	return t, nil
}

// Clear deletes a stream.
func (s *Streams) Clear(ctx context.Context, shard int) error {
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	c, err := s.client(ctx)
	if err != nil {
		return err
	}
	if err := c.Do(ctx, c.B().Del().Key(Key(shard)).Build()).Error(); err != nil {
		return fmt.Errorf("delete the stream of shard %d: %w", shard, err)
	}
	return nil
}

// ownerKey holds the name of the database that the streams are of.
const ownerKey = "sametick:owner"

// Owner reads which database the streams are of; empty when nobody has said so.
func (s *Streams) Owner(ctx context.Context) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	c, err := s.client(ctx)
	if err != nil {
		return "", err
	}
	owner, err := c.Do(ctx, c.B().Get().Key(ownerKey).Build()).ToString()
	if rueidis.IsRedisNil(err) || wrongType(err) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("read the streams' owner: %w", err)
	}
	return owner, nil
}

// SetOwner notes which database the streams are of.
func (s *Streams) SetOwner(ctx context.Context, database string) error {
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	c, err := s.client(ctx)
	if err != nil {
		return err
	}
	if err := c.Do(ctx, c.B().Set().Key(ownerKey).Value(database).Build()).Error(); err != nil {
		return fmt.Errorf("note the streams' owner: %w", err)
	}
	return nil
}

// Trim drops entries before a position of each shard, or a little fewer: Redis drops whole nodes.
func (s *Streams) Trim(ctx context.Context, before sequence.Positions) error {
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	c, err := s.client(ctx)
	if err != nil {
		return err
	}
	cmds := make(rueidis.Commands, 0, event.Shards)
	for i, p := range before {
		cmds = append(cmds, c.B().Xtrim().Key(Key(i)).Minid().Almost().Threshold(strconv.FormatInt(p, 10)).Build())
	}
	for i, r := range c.DoMulti(ctx, cmds...) {
		if err := r.Error(); err != nil {
			return fmt.Errorf("trim the stream of shard %d: %w", i, err)
		}
	}
	return nil
}
