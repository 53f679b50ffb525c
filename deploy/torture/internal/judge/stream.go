package judge

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/redis/rueidis"

	"github.com/sametick/sametick/deploy/torture/internal/envelope"
	"github.com/sametick/sametick/pkg/event"
)

// StreamKey is where Redis keeps a shard's stream.
func StreamKey(shard int) string { return fmt.Sprintf("sametick:{%d}:events", shard) }

// Streams judges P6 and P7: each stream holds the positions from its first to the head of the log,
// each once, each with the log's event and its bytes. An event that has no position must be in a
// stream all the same: no relay may excuse a loss by keeping no log.
func Streams(ctx context.Context, client rueidis.Client, f *Facts, l *Log) (*Verdict, error) {
	b := NewStreamJudge(f, l)
	for shard := range event.Shards {
		from := "-"
		for {
			entries, err := client.Do(ctx, client.B().Xrange().Key(StreamKey(shard)).Start(from).End("+").Count(1000).Build()).AsXRange()
			if err != nil {
				return nil, fmt.Errorf("read the stream of shard %d: %w", shard, err)
			}
			for _, e := range entries {
				b.Add(shard, e.ID, e.FieldValues)
				from = "(" + e.ID
			}
			if len(entries) < 1000 {
				break
			}
		}
		b.EndShard(shard)
	}
	return b.Finish(), nil
}

// StreamJudge judges the entries of all streams, shard after shard in the order of Redis.
type StreamJudge struct {
	facts *Facts
	log   *Log
	v     *Verdict
	order *order
	seen  []bool
	first [event.Shards]int64
	last  int64
}

// NewStreamJudge starts with the first entry of the first shard.
func NewStreamJudge(f *Facts, l *Log) *StreamJudge {
	return &StreamJudge{
		facts: f, log: l, order: newOrder(f), seen: make([]bool, f.Len()),
		v: &Verdict{What: "Redis streams (P6 P7)"},
	}
}

// Add takes the next entry of a shard.
func (s *StreamJudge) Add(shard int, id string, fields map[string]string) {
	v := s.v
	v.Checked++
	position, ok := positionOf(id)
	if !ok {
		v.note(&v.Foreign, "shard %d: entry %s has no position as its id", shard, id)
	} else {
		if s.first[shard] == 0 {
			s.first[shard] = position
		} else if missing := position - s.last - 1; missing > 0 {
			v.note(&v.Gaps, "shard %d: the stream lacks the %d positions before %d", shard, missing, position)
		}
		s.last = position
	}
	data := []byte(fields["e"])
	i := s.facts.find(envelope.EventID(data))
	if i < 0 {
		v.note(&v.Foreign, "shard %d: entry %s is of no known event: %.100q", shard, id, data)
		return
	}
	s.checkContent(shard, id, position, i, data, fields)
	if s.seen[i] {
		v.note(&v.Twice, "%s is in the stream again at %s", s.facts.describe(i), id)
		return
	}
	s.seen[i] = true
	s.order.check(v, i, "at stream entry "+id)
}

// checkContent compares an entry with the log and with the event that it claims to be.
func (s *StreamJudge) checkContent(shard int, id string, position int64, i int, data []byte, fields map[string]string) {
	v, a := s.v, &s.facts.list[i]
	if at := s.log.fact(shard, position); at != int32(i) {
		v.note(&v.Foreign, "%s is stream entry %s, the log has it at position %d", s.facts.describe(i), id, s.log.at[i])
		return
	}
	e := s.facts.entities[a.entity]
	if a.Hash != envelope.Hash(data) || fields["o"] != strconv.FormatInt(e.OrgID, 10) || fields["t"] != s.facts.kinds[a.kind] ||
		fields["a"] != e.Type || fields["i"] != strconv.FormatInt(e.ID, 10) {
		v.note(&v.Foreign, "%s differs in the stream: %v", s.facts.describe(i), fields)
	}
}

// EndShard ends a shard.
func (s *StreamJudge) EndShard(shard int) {
	head := s.log.Head(shard)
	if missing := head - s.last; missing > 0 {
		s.v.note(&s.v.Gaps, "shard %d: the stream ends at %d, the log at %d", shard, s.last, head)
	}
	s.last = 0
}

// Finish notes the events that should be in a stream and are not.
func (s *StreamJudge) Finish() *Verdict {
	for i, seen := range s.seen {
		shard := s.facts.list[i].shard
		if at := s.log.at[i]; !seen && (at == 0 || s.first[shard] == 0 || at >= s.first[shard]) {
			s.v.note(&s.v.Lost, "%s (position %d) is not in the stream", s.facts.describe(i), at)
		}
	}
	return s.v
}

// positionOf reads a stream id of the form <position>-0.
func positionOf(id string) (int64, bool) {
	number, ok := strings.CutSuffix(id, "-0")
	if !ok {
		return 0, false
	}
	position, err := strconv.ParseInt(number, 10, 64)
	return position, err == nil && position > 0
}
