package feed_test

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sametick/sametick/pkg/event"
	"github.com/sametick/sametick/services/webhook-worker/internal/delivery"
	"github.com/sametick/sametick/services/webhook-worker/internal/schedule"
)

// changed changes an endpoint as the API does, with its event.
func (s *stage) changed(org, id int64, action, set string) {
	s.t.Helper()
	if set != "" {
		s.exec("UPDATE sametick.webhook_endpoints SET version = version + 1, "+set+" WHERE id = $1", id)
	}
	s.log.Append(org, delivery.EndpointType, action, id, "")
	s.publish()
}

// What waits for an endpoint that is archived or disabled is cancelled; what comes while it is disabled is not sent.
func TestClosedWhileWaiting(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	s.setAnswer(func(g got) int { return 500 })
	s.endpoint(1, 1, "")
	s.endpoint(1, 2, "event_types = '{task.*}'")
	s.emit(1, 20)
	s.work("a", options{})
	eventually(t, "both have failed", func() bool { return s.count("webhook_queue WHERE attempts > 0 AND endpoint_id = 1") > 0 })
	s.changed(1, 1, "post_archive", "archived_at = now()")
	s.changed(1, 2, delivery.ActionDisabled, "enabled = false")
	eventually(t, "all is cancelled", func() bool { return s.count("webhook_queue") == 0 })
	require.Equal(t, 21, s.count("webhook_attempts WHERE endpoint_id = 1 AND outcome = 'cancelled'"), "its own and the creation of the other")
	require.Equal(t, 20, s.count("webhook_attempts WHERE endpoint_id = 2 AND outcome = 'cancelled'"))
	require.Positive(t, s.count("webhook_attempts WHERE attempt = 0 AND cause = 'archived'"))
	require.Positive(t, s.count("webhook_attempts WHERE attempt = 0 AND cause = 'disabled'"))
	s.emit(1, 5)
	s.setAnswer(func(g got) int { return 200 })
	s.changed(1, 2, delivery.ActionEnabled, "enabled = true")
	s.emit(1, 3)
	eventually(t, "it goes on", func() bool { return s.count("webhook_attempts WHERE outcome = 'delivered'") == 3 })
	require.Zero(t, s.count("webhook_queue"))
}

// What is restored gets what comes after that and nothing else, also when all of its story is read late. The control is
// one that does not wait for the event that it was restored by.
func TestRestored(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	restored := func(id int64, wait bool) {
		e := s.log.Append(1, delivery.EndpointType, delivery.ActionRestored, id, "")
		eventID, err := schedule.EventID(e.Envelope)
		require.NoError(t, err)
		from := any(nil)
		if wait {
			from = -eventID
		}
		s.exec("UPDATE sametick.webhook_endpoints SET archived_at = NULL, from_position = $2 WHERE id = $1", id, from)
	}
	for id := range int64(3) {
		s.endpoint(1, id+1, "event_types = '{task.*}'")
	}
	s.emit(1, 3)
	for id := range int64(3) {
		s.changed(1, id+1, "post_archive", "archived_at = now()")
	}
	s.emit(1, 5)
	restored(1, true)
	restored(2, false)
	s.emit(1, 7)
	s.work("a", options{})
	sent := func(id int) int {
		return s.count("webhook_attempts WHERE endpoint_id = $1 AND outcome = 'delivered'", id)
	}
	eventually(t, "what came after", func() bool { return sent(1) >= 7 && sent(2) >= 15 })
	restored(3, true) // by a worker that follows
	s.emit(1, 2)
	eventually(t, "it goes on", func() bool { return sent(1) == 9 && sent(2) == 17 && sent(3) == 2 })
	require.Zero(t, s.count("webhook_queue"))
	s.changed(1, 3, "post_archive", "archived_at = now()")
	s.emit(1, 1)
	restored(3, true) // a second time
	s.emit(1, 4)
	eventually(t, "once more", func() bool { return sent(3) == 6 })
	require.Zero(t, s.count("webhook_queue"))
}

// An endpoint that answers 410 is disabled at once, with its event; so is one that has failed for five days.
func TestDisabledByTheWorker(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	s.setAnswer(func(g got) int {
		if g.endpoint == 1 {
			return 410
		}
		return 500
	})
	s.endpoint(1, 1, "")
	s.endpoint(2, 2, "failing_since = now() - interval '5 days 1 minute'")
	s.endpoint(3, 3, "failing_since = now() - interval '4 days 23 hours'")
	s.work("a", options{})
	s.emit(1, 1)
	s.emit(2, 1)
	s.emit(3, 1)
	eventually(t, "both are disabled", func() bool { return s.count("webhook_endpoints WHERE NOT enabled") == 2 })
	eventually(t, "the third has failed", func() bool { return s.count("webhook_attempts WHERE endpoint_id = 3") == 1 })
	require.Equal(t, 1, s.count("webhook_endpoints WHERE id = 1 AND disabled_reason = 'gone' AND disabled_at IS NOT NULL AND version = 2"))
	require.Equal(t, 1, s.count("webhook_endpoints WHERE id = 2 AND disabled_reason = 'failing'"))
	require.Equal(t, 1, s.count("webhook_endpoints WHERE id = 3 AND enabled"))
	require.Equal(t, 2, s.count(`events WHERE event_type = 'webhook_endpoint.disabled' AND payload->'changes'->'enabled'->'after' = 'false'`))
	require.Equal(t, 1, s.count("webhook_attempts WHERE endpoint_id = 1 AND outcome = 'failed' AND cause = 'gone' AND attempt = 1 AND status = 410"))
	s.changed(2, 2, delivery.ActionDisabled, "")
	eventually(t, "what waited is cancelled", func() bool { return s.count("webhook_queue WHERE endpoint_id = 2") == 0 })
}

// A success ends the time of failing, a failure begins it.
func TestFailingSince(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	s.endpoint(1, 1, "failing_since = now() - interval '1 day'")
	s.work("a", options{})
	s.emit(1, 1)
	eventually(t, "healthy", func() bool { return s.count("webhook_endpoints WHERE failing_since IS NULL") == 1 })
	s.setAnswer(func(got) int { return 500 })
	s.emit(1, 1)
	eventually(t, "failing", func() bool { return s.count("webhook_endpoints WHERE failing_since IS NOT NULL") == 1 })
	require.Equal(t, 1, s.count("webhook_queue WHERE attempts = 1 AND cause = 'status' AND due_at > now()"))
	require.Equal(t, 1, s.count("webhook_attempts a WHERE outcome = 'retrying' AND next_at = (SELECT due_at FROM sametick.webhook_queue)"))
}

// A filter that cannot tell ends the delivery in sight; what it reads and the event lacks means no.
func TestFilterThatCannotTell(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	s.endpoint(1, 1, "filter = 'event.payload.amount > 10'")
	for _, payload := range []string{`{"amount": 20}`, `{"amount": 5}`, `{"amount": "many"}`, `{}`} {
		s.log.AppendPayload(1, "invoice", "invoice.post_create", 1, payload)
	}
	s.publish()
	s.work("a", options{})
	eventually(t, "one is sent", func() bool { return s.count("webhook_attempts WHERE outcome = 'delivered'") == 1 })
	require.Equal(t, 1, s.count("webhook_attempts WHERE outcome = 'failed' AND cause = 'filter' AND attempt = 0 AND error <> ''"))
	require.Equal(t, 2, s.count("webhook_attempts"))
}

// The API changes the queue by hand, and says so by an event: a delivery is due at once, another is gone; a test is for
// its endpoint alone.
func TestByHand(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	s.endpoint(1, 1, "")
	s.endpoint(1, 2, "event_types = '{webhook_endpoint.*}'")
	s.backlog(1, 1, 2, "due_at = now() + interval '1 hour', attempts = 3")
	s.work("a", options{})
	s.emit(1, 1)
	eventually(t, "it works", func() bool {
		return s.count("webhook_attempts WHERE endpoint_id = 1 AND event_type = 'task.post_update'") == 1
	})
	require.Equal(t, 2, s.count("webhook_queue"))
	s.exec("UPDATE sametick.webhook_queue SET due_at = now() WHERE id = (SELECT min(id) FROM sametick.webhook_queue)")
	s.exec("DELETE FROM sametick.webhook_queue WHERE id = (SELECT max(id) FROM sametick.webhook_queue)")
	s.changed(1, 1, delivery.ActionRedeliveryRequested, "")
	eventually(t, "sent", func() bool { return s.count("webhook_attempts WHERE attempt = 4 AND outcome = 'delivered'") == 1 })
	s.changed(1, 1, delivery.ActionTest, "")
	eventually(t, "tested", func() bool { return s.count("webhook_attempts WHERE trigger = 'test'") == 1 })
	eventually(t, "the other has the redelivery", func() bool {
		return s.count("webhook_attempts WHERE endpoint_id = 2 AND event_type = 'webhook_endpoint.redelivery_requested'") == 1
	})
	require.Zero(t, s.count("webhook_attempts WHERE endpoint_id = 2 AND event_type = 'webhook_endpoint.test'"))
	require.Zero(t, s.count("webhook_queue"))
}

// A replay sends again, in order, what the endpoint would get, from a position on; a recovery what failed.
func TestReplays(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	s.emit(1, 1200)
	s.endpoint(1, 1, "event_types = '{task.*}', ordered = true")
	s.endpoint(1, 2, "filter = 'event.payload.a[0] > \"text\"'")
	s.emit(1, 1)
	s.work("a", options{})
	eventually(t, "it works", func() bool { return s.count("webhook_attempts WHERE endpoint_id = 1 AND outcome = 'delivered'") == 1 })
	eventually(t, "it failed", func() bool { return s.count("webhook_attempts WHERE endpoint_id = 2 AND cause = 'filter'") == 1 })
	shard := event.ShardOf(1)
	s.exec("INSERT INTO sametick.webhook_replays (org_id, id, shard, endpoint_id, kind, after, through) VALUES (1, 1, $1, 1, 'replay', 400, 1000)", shard)
	s.exec(`INSERT INTO sametick.webhook_replays (org_id, id, shard, endpoint_id, kind, after, through)
SELECT 1, 2, $1, 2, 'recover', 0, max(id) FROM sametick.webhook_attempts`, shard)
	s.changed(1, 1, delivery.ActionReplayRequested, "")
	eventually(t, "both are done", func() bool { return s.count("webhook_replays WHERE status = 'done'") == 2 })
	eventually(t, "all is sent", func() bool {
		return s.count("webhook_attempts WHERE trigger = 'replay' AND outcome = 'delivered'") == 600
	})
	eventually(t, "it is sent after all", func() bool {
		return s.count("webhook_attempts WHERE trigger = 'recover' AND outcome = 'delivered'") == 1
	})
	last := int64(0)
	for _, g := range s.requests() {
		if g.endpoint == 1 && g.event/16 <= 1000 { // see streamtest.Log
			require.Greater(t, g.event, last)
			last = g.event
		}
	}
	require.Zero(t, s.count("webhook_queue"))
}

// An event that retention has dropped ends its delivery.
func TestEventGone(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	s.endpoint(1, 1, "")
	s.backlog(1, 1, 3, "")
	s.emit(1, 1)
	shard := event.ShardOf(1)
	s.log.DropBefore(shard, 3)
	require.NoError(t, s.publisher.Flush(t.Context()))
	s.work("a", options{})
	eventually(t, "ended", func() bool {
		return s.count("webhook_attempts WHERE outcome = 'failed' AND cause = 'event_gone' AND attempt = 0") == 3
	})
	require.Zero(t, s.count("webhook_queue"))
}

// Memory stays bounded whatever waits, and 30,000 are worked off without holding up what is new elsewhere.
func TestLargeBacklog(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	s.endpoint(1, 1, "")
	s.endpoint(1, 2, "aggregate_types = '{note}'")
	s.backlog(1, 1, 30_000, "")
	var instant instantSender
	var ended atomic.Int64
	w := s.work("a", options{change: func(c *delivery.Config) {
		c.Sender, c.MaxBytes, c.Observe = instant, 20_000, func(*delivery.Outcome) { ended.Add(1) }
	}})
	s.log.Append(1, "note", "post_create", 1, "")
	s.publish()
	eventually(t, "what is new is sent", func() bool { return s.count("webhook_attempts WHERE endpoint_id = 2") == 1 })
	require.Positive(t, s.count("webhook_queue"))
	peak := int64(0)
	require.Eventually(t, func() bool {
		peak = max(peak, w.stats.Bytes.Load())
		return ended.Load() == 30_003 && w.stats.Unsaved.Load() == 0 // the first endpoint gets the other's creation and the note, too
	}, 5*time.Minute, 5*time.Millisecond)
	require.Zero(t, s.count("webhook_queue"))
	require.Less(t, peak, int64(20_000+4*256*250))
	require.Equal(t, 30_000, s.count("webhook_attempts WHERE endpoint_id = 1 AND event_type = 'task.pre_create' AND outcome = 'delivered'"))
}

// Rows that were taken off and cannot be vacuumed yet, because somebody holds a snapshot, are not passed again by every window.
func TestWindowsBesideASnapshot(t *testing.T) {
	t.Parallel()
	const backlog = 20_000
	passed := func(t *testing.T, change func(*delivery.Config)) (entries int) {
		t.Parallel()
		s := newStage(t)
		s.endpoint(1, 1, "")
		s.backlog(1, 1, backlog, "due_at = now() - interval '1 hour' + id * interval '1 millisecond'") // as batches have it
		s.exec("ANALYZE sametick.webhook_queue")
		holder, err := s.admin.Begin(t.Context())
		require.NoError(t, err)
		defer func() { require.NoError(t, holder.Rollback(context.WithoutCancel(t.Context()))) }()
		_, err = holder.Exec(t.Context(), "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM sametick.webhook_queue")
		require.NoError(t, err)
		w := s.work("a", options{change: func(c *delivery.Config) { c.Sender = instantSender{}; change(c) }})
		eventually(t, "sent", func() bool { return s.count("webhook_attempts WHERE outcome = 'delivered'") == backlog })
		w.stop() // backends that end tell their statistics
		eventually(t, "counted", func() bool {
			require.NoError(t, s.admin.QueryRow(t.Context(),
				"SELECT idx_tup_read FROM pg_stat_all_indexes WHERE indexrelname = 'webhook_queue_due_idx' AND schemaname = 'sametick'").Scan(&entries))
			return entries >= backlog
		})
		return entries
	}
	var onward, whole int
	t.Run("each", func(t *testing.T) {
		t.Run("onward", func(t *testing.T) { onward = passed(t, func(*delivery.Config) {}) })
		t.Run("control: from the first row on", func(t *testing.T) {
			whole = passed(t, func(c *delivery.Config) { c.Queue = wholeQueue{c.Queue} })
		})
	})
	require.Less(t, 3*onward, whole)
	t.Logf("%d entries passed, %d by windows from the first row on", onward, whole)
}

// wholeQueue reads every window from the first row on.
type wholeQueue struct{ delivery.Queue }

func (q wholeQueue) Load(ctx context.Context, w delivery.Want) (delivery.Window, error) {
	w.From = time.Time{}
	got, err := q.Queue.Load(ctx, w)
	got.Ahead = nil
	return got, err
}

// lookingQueue counts the windows for which all that waits was looked at.
type lookingQueue struct {
	delivery.Queue
	looked *atomic.Int64
}

func (q lookingQueue) Load(ctx context.Context, w delivery.Want) (delivery.Window, error) {
	if len(w.IDs) == 0 {
		q.looked.Add(1)
	}
	return q.Queue.Load(ctx, w)
}

// An ordered endpoint's backlog goes out in order, and is not sorted whole for each window.
func TestOrderedBacklog(t *testing.T) {
	t.Parallel()
	const backlog = 3000
	looked := func(t *testing.T, wrap func(delivery.Queue) delivery.Queue) int64 {
		s := newStage(t)
		s.endpoint(1, 1, "ordered = true")
		s.backlog(1, 1, backlog, "due_at = now() - random() * interval '1 hour'") // as after retries: due in another order
		var newest, looked atomic.Int64
		w := s.work("a", options{change: func(c *delivery.Config) {
			c.Sender, c.Queue = instantSender{}, wrap(lookingQueue{c.Queue, &looked})
			c.Observe = func(o *delivery.Outcome) {
				if last := newest.Swap(o.Delivery.ID); last >= o.Delivery.ID {
					t.Errorf("%d came after %d", o.Delivery.ID, last)
				}
			}
		}})
		eventually(t, "sent", func() bool { return s.count("webhook_attempts WHERE outcome = 'delivered'") == backlog })
		w.stop()
		require.Zero(t, s.count("webhook_queue"))
		return looked.Load()
	}
	t.Run("ids ahead", func(t *testing.T) {
		t.Parallel()
		require.LessOrEqual(t, looked(t, func(q delivery.Queue) delivery.Queue { return q }), int64(3), "at first and at last")
	})
	t.Run("control: none", func(t *testing.T) {
		t.Parallel()
		require.GreaterOrEqual(t, looked(t, func(q delivery.Queue) delivery.Queue { return wholeQueue{q} }), int64(backlog/512))
	})
}

// instantSender delivers without a receiver.
type instantSender struct{}

func (instantSender) Send(context.Context, *delivery.Endpoint, *delivery.Delivery) delivery.Result {
	return delivery.Result{Status: 200, Began: time.Now()}
}

// 20,000 that wait for a retry are not read while others are sent.
func TestWaitingRetriesAreNotRead(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	s.endpoint(1, 1, "")
	s.backlog(1, 1, 20_000, "due_at = now() + interval '10 hours', attempts = 5")
	s.exec("ANALYZE sametick.webhook_queue")
	read := func() (n int) {
		require.NoError(t, s.admin.QueryRow(t.Context(),
			"SELECT coalesce(seq_tup_read, 0) + coalesce(idx_tup_fetch, 0) FROM pg_stat_all_tables WHERE relname = 'webhook_queue' AND schemaname = 'sametick'").Scan(&n))
		return n
	}
	s.exec("SELECT pg_stat_reset()")
	w := s.work("a", options{})
	for range 20 {
		s.emit(1, 25)
	}
	eventually(t, "sent", func() bool { return s.count("webhook_attempts WHERE outcome = 'delivered'") == 500 })
	w.stop()
	pg := s.count("webhook_queue")
	require.Equal(t, 20_000, pg)
	require.Less(t, read()-2*pg, 500*6, "rows read")
}
