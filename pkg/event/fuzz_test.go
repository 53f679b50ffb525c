package event_test

import (
	"encoding/json"
	"regexp"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/sametick/sametick/pkg/event"
)

// FuzzPattern compares patterns with the regular expressions that they stand for.
func FuzzPattern(f *testing.F) {
	for _, seed := range [][2]string{{"task.post_create", "task.post_create"}, {"task.*", "task.post_update"}, {"*.post_create", "a.b"}, {"*", "a.b.c"},
		{"*.*", "."}, {"*.*.*", "a.b"}, {"ta*.x", "task.x"}, {".", "."}, {"a.", "a."}, {"TASK.*", "TASK.x"}, {"a.b.c", "a.b.c"}, {"9a.b", "9a.b"}} {
		f.Add(seed[0], seed[1])
	}
	word := `(?:[a-z_][a-z0-9_]{0,62}|\*)`
	form := regexp.MustCompile(`^(?:\*|` + word + `\.` + word + `)$`)
	f.Fuzz(func(t *testing.T, pattern, eventType string) {
		p, ok := event.ParsePattern(pattern)
		if ok != form.MatchString(pattern) || strings.HasSuffix(pattern, "\n") && ok {
			t.Fatalf("%q is taken: %v", pattern, ok)
		}
		if !ok {
			return
		}
		if pattern == "*" {
			pattern = "*.*"
		}
		parts := strings.Split(pattern, ".")
		if parts[0] == "*" {
			parts[0] = `[^.]*`
		}
		if parts[1] == "*" {
			parts[1] = `(?s:.*)`
		}
		if want := regexp.MustCompile(`\A` + parts[0] + `\.` + parts[1] + `\z`).MatchString(eventType); p.Match(eventType) != want {
			t.Fatalf("%q matches %q: %v", pattern, eventType, !want)
		}
	})
}

// FuzzAppendJSON: whatever a name holds, an event is the JSON that encoding/json reads back the same.
func FuzzAppendJSON(f *testing.F) {
	f.Add(int64(1), "task", "task.post_create", `{"a":1}`, int64(1775998200000))
	f.Add(int64(-1), "a\"b\\", "\x00\u2028<", `null`, int64(0))
	f.Add(int64(1<<62), "\xff", "", `[1e400]`, int64(253402300799999))
	f.Fuzz(func(t *testing.T, id int64, aggregate, eventType, payload string, ms int64) {
		if !json.Valid([]byte(payload)) || ms < -62135596800000 || ms > 253402300799999 {
			return
		}
		e := event.Event{ID: id, OrgID: id, AggregateType: aggregate, AggregateID: id, EventType: eventType, Payload: json.RawMessage(payload), OccurredAt: time.UnixMilli(ms)}
		text := e.AppendJSON(nil)
		var got struct {
			ID            int64           `json:"id"`
			AggregateType string          `json:"aggregate_type"`
			EventType     string          `json:"event_type"`
			Payload       json.RawMessage `json:"payload"`
			OccurredAt    time.Time       `json:"occurred_at"`
		}
		if err := json.Unmarshal(text, &got); err != nil {
			t.Fatalf("%q: %v", text, err)
		}
		same := func(got, want string) bool { return utf8.ValidString(got) && (got == want || !utf8.ValidString(want)) }
		if got.ID != id || !same(got.AggregateType, aggregate) || !same(got.EventType, eventType) || got.OccurredAt.UnixMilli() != ms ||
			strings.TrimSpace(payload) != strings.TrimSpace(string(got.Payload)) {
			t.Fatalf("%q gives %+v", text, got)
		}
	})
}

// FuzzShardOf: a shard is one of those that there are.
func FuzzShardOf(f *testing.F) {
	for _, org := range []int64{0, 1, -1, 1 << 31, 1<<63 - 1, -1 << 63} {
		f.Add(org)
	}
	f.Fuzz(func(t *testing.T, org int64) {
		if s := event.ShardOf(org); s < 0 || s >= event.Shards || s != event.ShardOf(org) {
			t.Fatalf("shard %d", s)
		}
	})
}
