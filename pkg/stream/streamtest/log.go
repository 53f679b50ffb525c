// Package streamtest has what tests of readers need: an in-memory position log, a publisher that
// puts it into a real Redis as the relay does, and the suite that every way of reading must pass.
// For tests only.
package streamtest

import (
	"context"
	"fmt"
	"sync"

	"google.golang.org/grpc"

	"github.com/sametick/sametick/pkg/errs"
	"github.com/sametick/sametick/pkg/event"
	"github.com/sametick/sametick/pkg/stream"
	relayv1 "github.com/sametick/sametick/proto/gen/go/sametick/relay/v1"
)

// Log is a position log in memory. It implements stream.Log, and LogService through Register. Safe
// for concurrent use.
type Log struct {
	relayv1.UnimplementedLogServiceServer

	mu     sync.Mutex
	shards [event.Shards]shard
	down   bool
	reads  int
}

type shard struct {
	entries []stream.Entry
	head    int64
}

// NewLog makes an empty log.
func NewLog() *Log { return &Log{} }

// Append gives an event of the organisation the next position of its shard. Its text, which may be
// empty, is in the envelope.
func (l *Log) Append(org int64, aggregateType, action string, aggregateID int64, text string) stream.Entry {
	return l.AppendPayload(org, aggregateType, event.TypeOf(aggregateType, action), aggregateID, fmt.Sprintf(`{"record_name":%q}`, text))
}

// AppendPayload is Append for an event with a payload of its own, which is JSON.
func (l *Log) AppendPayload(org int64, aggregateType, eventType string, aggregateID int64, payload string) stream.Entry {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := &l.shards[event.ShardOf(org)]
	s.head++
	e := stream.Entry{
		Position: s.head, OrgID: org, EventType: eventType, AggregateType: aggregateType,
		AggregateID: aggregateID, Traceparent: fmt.Sprintf("00-%032x-%016x-01", s.head, org),
		Envelope: fmt.Appendf(nil, `{"id":%d,"org_id":%d,"aggregate_type":%q,"aggregate_id":%d,"event_type":%q,"payload":%s,"occurred_at":"2026-04-12T14:30:00.000Z"}`,
			s.head*event.Shards+int64(event.ShardOf(org)), org, aggregateType, aggregateID, eventType, payload),
	}
	s.entries = append(s.entries, e)
	return e
}

// Jump leaves out n positions, as the relay does past a stream that is ahead of Postgres.
func (l *Log) Jump(shard int, n int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.shards[shard].head += n
}

// DropBefore is retention: positions before `position` are gone.
func (l *Log) DropBefore(shard int, position int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := &l.shards[shard]
	s.entries = s.entries[index(s.entries, position-1):]
}

// Rewind restores an older state: a shard ends at a position again.
func (l *Log) Rewind(shard int, position int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := &l.shards[shard]
	s.entries, s.head = s.entries[:index(s.entries, position):index(s.entries, position)], position
}

// SetDown makes Read fail, or work again.
func (l *Log) SetDown(down bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.down = down
}

// Reads counts the calls of Read so far.
func (l *Log) Reads() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.reads
}

// Entries gives a copy of what the log holds after a position, of one organisation or (0) of all.
func (l *Log) Entries(shard int, after, org int64) []stream.Entry {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := &l.shards[shard]
	var out []stream.Entry
	for _, e := range s.entries[index(s.entries, after):] {
		if org == 0 || e.OrgID == org {
			out = append(out, e)
		}
	}
	return out
}

// Head is the newest position of a shard.
func (l *Log) Head(shard int) int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.shards[shard].head
}

// index finds the first entry after a position.
func index(list []stream.Entry, after int64) int {
	for i := range list {
		if list[i].Position > after {
			return i
		}
	}
	return len(list)
}

// window bounds how many positions one Read for an organisation walks, so that pages without entries
// occur in tests.
const window = 50

// readPage is the answer; Register and stream.Log give it in their own forms.
func (l *Log) readPage(shard int, after int64, limit int, org int64) (stream.Page, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.reads++
	if l.down {
		return stream.Page{}, errs.New(errs.Unavailable, "LOG_DOWN", "the log is down")
	}
	s := &l.shards[shard]
	p := stream.Page{Through: max(after, s.head), Head: s.head}
	if len(s.entries) > 0 {
		p.First = s.entries[0].Position
	}
	walked := 0
	for _, e := range s.entries[index(s.entries, after):] {
		if len(p.Entries) == limit || (org != 0 && walked == window) {
			return p, nil
		}
		walked++
		if org == 0 || e.OrgID == org {
			p.Entries = append(p.Entries, e)
		}
		p.Through = e.Position
	}
	p.Through = max(after, s.head)
	return p, nil
}

// Direct gives the log without gRPC between.
func (l *Log) Direct() stream.Log { return direct{l} }

type direct struct{ log *Log }

// Read reads.
func (d direct) Read(ctx context.Context, shard int, after int64, limit int, org int64) (stream.Page, error) {
	if err := ctx.Err(); err != nil {
		return stream.Page{}, err
	}
	return d.log.readPage(shard, after, limit, org)
}

// Register serves the log as LogService.
func (l *Log) Register(r grpc.ServiceRegistrar) { relayv1.RegisterLogServiceServer(r, l) }

// Read is LogService.Read.
func (l *Log) Read(_ context.Context, r *relayv1.ReadRequest) (*relayv1.ReadResponse, error) {
	p, err := l.readPage(int(r.GetShard()), r.GetAfter(), int(r.GetLimit()), r.GetOrgId())
	if err != nil {
		return nil, err
	}
	out := &relayv1.ReadResponse{Through: p.Through, Head: p.Head, First: p.First}
	for _, e := range p.Entries {
		out.Entries = append(out.Entries, &relayv1.Entry{
			Position: e.Position, OrgId: e.OrgID, EventType: e.EventType, AggregateType: e.AggregateType,
			AggregateId: e.AggregateID, Traceparent: e.Traceparent, Envelope: e.Envelope,
		})
	}
	return out, nil
}
