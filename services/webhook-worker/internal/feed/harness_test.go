package feed_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/sametick/sametick/pkg/condition"
	"github.com/sametick/sametick/pkg/keyring"
	"github.com/sametick/sametick/pkg/pgtest"
	"github.com/sametick/sametick/pkg/redistest"
	"github.com/sametick/sametick/pkg/stream"
	"github.com/sametick/sametick/pkg/stream/streamtest"
	"github.com/sametick/sametick/services/webhook-worker/internal/delivery"
	"github.com/sametick/sametick/services/webhook-worker/internal/feed"
	"github.com/sametick/sametick/services/webhook-worker/internal/store"
	"github.com/sametick/sametick/services/webhook-worker/internal/workertest"
)

func TestMain(m *testing.M) { workertest.Main(m) }

// plain is a vault whose seals are no seals.
type plain struct{}

func (plain) Open(_ keyring.Owner, sealed []byte) ([]byte, error) { return sealed, nil }

// stage is a database, a log of events with its Redis, and a receiver.
type stage struct {
	t         testing.TB
	db        *pgtest.DB
	admin     *pgxpool.Pool
	log       *streamtest.Log
	publisher *streamtest.Publisher
	source    *stream.Source
	receiver  *httptest.Server

	mu  sync.Mutex
	got []got
	// answer gives the status of an answer; it may wait.
	answer func(g got) int
}

// got is one request that the receiver got.
type got struct {
	endpoint, delivery, event int64
	body                      string
}

func newStage(t testing.TB) *stage {
	s := &stage{t: t, db: workertest.Database(t), log: streamtest.NewLog(), answer: func(got) int { return 200 }}
	s.admin = s.db.Pool(t)
	server := redistest.New(t)
	s.publisher = streamtest.NewPublisher(t, s.log, server.URL, server)
	s.source = stream.New(stream.Options{Log: s.log.Direct(), Redis: s.publisher.Redis(t), Beat: 50 * time.Millisecond, PollEvery: 5 * time.Millisecond})
	s.receiver = httptest.NewServer(http.HandlerFunc(s.receive))
	t.Cleanup(s.receiver.Close)
	return s
}

func (s *stage) receive(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	number := func(name string) int64 { n, _ := strconv.ParseInt(r.Header.Get(name), 10, 64); return n }
	g := got{number("endpoint"), number("delivery"), number("event"), string(body)}
	s.mu.Lock()
	s.got = append(s.got, g)
	answer := s.answer
	s.mu.Unlock()
	w.WriteHeader(answer(g))
}

func (s *stage) requests() []got {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]got(nil), s.got...)
}

func (s *stage) setAnswer(f func(got) int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answer = f
}

// endpoint makes an endpoint and its post_create event.
func (s *stage) endpoint(org, id int64, set string, args ...any) {
	s.t.Helper()
	_, err := s.admin.Exec(s.t.Context(), "INSERT INTO sametick.webhook_endpoints (org_id, id, url) VALUES ($1, $2, $3)", org, id, s.receiver.URL)
	require.NoError(s.t, err)
	if set != "" {
		s.exec("UPDATE sametick.webhook_endpoints SET "+set+" WHERE id = "+fmt.Sprint(id), args...)
	}
	s.exec("INSERT INTO sametick.webhook_secrets (org_id, endpoint_id, id, kind, sealed) VALUES ($1, $2, 1, 'v1', 'whsec_x')", org, id)
	s.log.Append(org, delivery.EndpointType, "post_create", id, "")
}

func (s *stage) exec(sql string, args ...any) {
	s.t.Helper()
	_, err := s.admin.Exec(s.t.Context(), sql, args...)
	require.NoError(s.t, err)
}

func (s *stage) count(sql string, args ...any) (n int) {
	s.t.Helper()
	require.NoError(s.t, s.admin.QueryRow(s.t.Context(), "SELECT count(*) FROM sametick."+sql, args...).Scan(&n))
	return n
}

// emit appends n events of tasks and publishes.
func (s *stage) emit(org int64, n int) {
	s.t.Helper()
	for i := range n {
		s.log.AppendPayload(org, "task", "task.post_update", int64(i+1), `{"a": [1, 2],  "b": "x  y"}`)
	}
	s.publish()
}

func (s *stage) publish() {
	s.t.Helper()
	require.NoError(s.t, s.publisher.Publish(s.t.Context()))
}

// worker is a replica.
type worker struct {
	engine           *delivery.Engine
	stats            *delivery.Stats
	feed             *feed.Feed
	endTake, endWork context.CancelFunc
	done             chan struct{}
	once             sync.Once
}

// backlog queues n deliveries of one event of its own.
func (s *stage) backlog(org, endpoint int64, n int, set string) {
	s.t.Helper()
	e := s.log.Append(org, "task", "pre_create", 1, "") // which nobody is subscribed to
	s.publish()
	s.exec(`INSERT INTO sametick.webhook_queue (id, org_id, shard, endpoint_id, event_id, position, event_type, due_at, created_at)
SELECT nextval('sametick.webhook_delivery_ids'), $1, sametick.shard_of($1), $2, $3, $4, 'task.pre_create', now(), now() FROM generate_series(1, $5)`,
		org, endpoint, e.Position, e.Position, n)
	if set != "" {
		s.exec("UPDATE sametick.webhook_queue SET "+set+" WHERE endpoint_id = $1", endpoint)
	}
}

// options of a worker; zero values are what tests mostly want.
type options struct {
	change  func(*delivery.Config)
	history func(delivery.History) delivery.History
	handle  func(f *feed.Feed) func(context.Context, pgx.Tx, stream.Batch) error
}

// attemptTimeout is long enough for a busy machine.
const attemptTimeout = 3 * time.Second

// work starts a replica.
func (s *stage) work(name string, o options) *worker {
	t := s.t
	w := &worker{stats: &delivery.Stats{}, done: make(chan struct{})}
	pool := pgtest.Pool(t, s.db.URLAs(t, workertest.Role))
	st := store.New(pool).Worker(plain{})
	compiler, err := condition.NewCompiler(100)
	require.NoError(t, err)
	log := slog.New(slog.NewTextHandler(t.Output(), nil))
	c := delivery.Config{
		Sender: s, Queue: &feed.Queue{Worker: st, Source: s.source}, History: st, Deadline: attemptTimeout,
		PerEndpoint: 8, PerOrg: 64, InAll: 128, MaxBytes: 1 << 20, Log: log, Stats: w.stats,
	}
	if o.history != nil {
		c.History = o.history(st)
	}
	if o.change != nil {
		o.change(&c)
	}
	w.engine = delivery.New(c)
	w.feed = &feed.Feed{Store: st, Engine: w.engine, Compiler: compiler, Log: log}
	w.feed.Replays = feed.NewReplays(st, s.source, w.engine, compiler, log)
	consumer := &stream.Consumer{Holder: name, DB: pool, Source: s.source, LeaseTTL: 2 * attemptTimeout, Log: log}
	w.feed.Wire(consumer)
	if o.handle != nil {
		consumer.Handle = o.handle(w.feed)
	}
	ctx := context.WithoutCancel(t.Context())
	work, endWork := context.WithCancel(ctx)
	take, endTake := context.WithCancel(work)
	w.endTake, w.endWork = endTake, endWork
	engineTake, stopEngine := context.WithCancel(work)
	go func() {
		defer close(w.done)
		var all, replays sync.WaitGroup
		all.Go(func() { _ = w.engine.Run(engineTake, work) })
		replays.Go(func() { _ = w.feed.Replays.Run(take, work) })
		_ = consumer.Run(take, work)
		replays.Wait()
		stopEngine()
		all.Wait()
	}()
	t.Cleanup(w.crash)
	return w
}

// stop drains as a deploy does; crash ends everything where it is, but for the leases, which go back.
func (w *worker) stop() { w.endTake(); <-w.done; w.endWork() }

func (w *worker) crash() { w.once.Do(func() { w.endWork(); <-w.done }) }

// Send posts to the endpoint's URL.
func (s *stage) Send(ctx context.Context, e *delivery.Endpoint, d *delivery.Delivery) delivery.Result {
	r := delivery.Result{Began: time.Now()}
	ctx, cancel := context.WithTimeout(ctx, attemptTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, e.URL, bytes.NewReader(d.Event))
	if err != nil {
		return delivery.Result{Cause: delivery.CauseProtocol, Error: err.Error(), Began: r.Began}
	}
	for name, n := range map[string]int64{"endpoint": e.ID, "delivery": d.ID, "event": d.EventID} {
		req.Header.Set(name, strconv.FormatInt(n, 10))
	}
	r.RequestHeaders = `{"Endpoint": ["` + req.Header.Get("Endpoint") + `"]}`
	res, err := s.receiver.Client().Do(req)
	r.Latency = time.Since(r.Began)
	if err != nil {
		r.Cause, r.Error = delivery.CauseTimeout, err.Error()
		return r
	}
	r.Body, _ = io.ReadAll(res.Body)
	_ = res.Body.Close()
	r.Status, r.ResponseHeaders = res.StatusCode, `{"Date": ["`+res.Header.Get("Date")+`"]}`
	switch {
	case r.Status == http.StatusGone:
		r.Cause = delivery.CauseGone
	case r.Status >= 300:
		r.Cause = delivery.CauseStatus
	}
	return r
}

func eventually(t testing.TB, what string, cond func() bool) {
	t.Helper()
	require.Eventually(t, cond, 2*time.Minute, 20*time.Millisecond, what) // a machine may be busy
}
