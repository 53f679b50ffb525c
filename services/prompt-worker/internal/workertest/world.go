package workertest

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/sametick/sametick/pkg/condition"
	"github.com/sametick/sametick/pkg/pg"
	"github.com/sametick/sametick/pkg/pgtest"
	"github.com/sametick/sametick/pkg/stream"
	"github.com/sametick/sametick/pkg/stream/streamtest"
	"github.com/sametick/sametick/services/prompt-worker/internal/feed"
	"github.com/sametick/sametick/services/prompt-worker/internal/hooks"
	"github.com/sametick/sametick/services/prompt-worker/internal/prompting"
	"github.com/sametick/sametick/services/prompt-worker/internal/runs"
	"github.com/sametick/sametick/services/prompt-worker/internal/store"
)

// World is a database, a position log in memory and what replicas share.
type World struct {
	T     *testing.T
	DB    *pgtest.DB
	Admin *pgxpool.Pool
	Pool  *pgxpool.Pool
	Store *store.Store
	Log   *streamtest.Log
	// Redis has the stream's tail; nil reads all from the log.
	Redis *stream.Redis
	Call  hooks.Call
	// Forget makes Relay drop why events are there.
	Forget bool
	copied int64
}

// NewWorld begins one, with organisation 1.
func NewWorld(t *testing.T, orgBudget prompting.Limits) *World {
	t.Helper()
	db := Database(t)
	w := &World{T: t, Admin: db.Pool(t), DB: db, Log: streamtest.NewLog(), Call: hooks.Call{OrgID: 1}}
	var err error
	w.Pool, err = pg.Open(t.Context(), db.URLAs(t, Role), pg.Options{MaxConns: 10})
	require.NoError(t, err)
	t.Cleanup(w.Pool.Close)
	w.Store = store.New(w.Pool, orgBudget)
	return w
}

// Settings are of an async hook on everything that a task does, which asks for text.
func (w *World) Settings(change ...func(*hooks.Settings)) hooks.Settings {
	w.T.Helper()
	set := hooks.Settings{Name: "hook", Mode: hooks.ModeAsync, EventTypes: []string{"task.*"}, TemplateID: w.Template(), TemplateVersion: 1,
		ProviderID: w.Provider(), FailurePolicy: hooks.FailClosed, Enforcement: hooks.Enforce, Enabled: true, TimeoutMS: 1000}
	for _, c := range change {
		c(&set)
	}
	return set
}

// Template makes one.
func (w *World) Template() int64 {
	w.T.Helper()
	id, err := w.Store.NewID(w.T.Context())
	require.NoError(w.T, err)
	_, err = w.Store.CreateTemplate(w.T.Context(), w.Call, id, "template", "", prompting.Version{
		Messages:  []prompting.Message{{Role: prompting.RoleUser, Text: "Say something about {{ name }}."}},
		Variables: []prompting.Variable{{Name: "name", Path: "payload.record_name"}}})
	require.NoError(w.T, err)
	return id
}

// Provider makes one.
func (w *World) Provider() int64 {
	w.T.Helper()
	id, err := w.Store.NewID(w.T.Context())
	require.NoError(w.T, err)
	_, err = w.Store.CreateProvider(w.T.Context(), w.Call, hooks.Provider{ID: id, Name: "provider", Kind: "openai", DefaultModel: "m"})
	require.NoError(w.T, err)
	return id
}

// Hook makes one, and copies its events into the log.
func (w *World) Hook(change ...func(*hooks.Settings)) *hooks.Hook {
	w.T.Helper()
	id, err := w.Store.NewID(w.T.Context())
	require.NoError(w.T, err)
	h, err := w.Store.CreateHook(w.T.Context(), w.Call, id, w.Settings(change...))
	require.NoError(w.T, err)
	w.Relay()
	return h
}

// Task appends an event of a task to the log.
func (w *World) Task(id int64) stream.Entry {
	return w.Log.Append(w.Call.OrgID, "task", "post_create", id, fmt.Sprintf("task %d", id))
}

// Relay copies what was recorded in the database into the log, as outbox-relay does with the stream.
func (w *World) Relay() {
	w.T.Helper()
	rows, err := w.Admin.Query(w.T.Context(), `SELECT id, org_id, aggregate_type, event_type, aggregate_id, payload FROM sametick.events WHERE id > $1 ORDER BY id`, w.copied)
	require.NoError(w.T, err)
	defer rows.Close()
	for rows.Next() {
		var org, id int64
		var typ, eventType string
		var payload json.RawMessage
		require.NoError(w.T, rows.Scan(&w.copied, &org, &typ, &eventType, &id, &payload))
		if w.Forget {
			payload = json.RawMessage(`{}`)
		}
		w.Log.AppendPayload(org, typ, eventType, id, string(payload))
	}
	require.NoError(w.T, rows.Err())
}

// Count counts by a statement.
func (w *World) Count(sql string, args ...any) (n int) {
	w.T.Helper()
	require.NoError(w.T, w.Admin.QueryRow(w.T.Context(), sql, args...).Scan(&n))
	return n
}

// Eventually waits for something.
func (w *World) Eventually(what string, cond func() bool) {
	w.T.Helper()
	require.Eventually(w.T, cond, 20*time.Second, 5*time.Millisecond, what)
}

// Replica is one worker: a consumer and an engine.
type Replica struct {
	Engine *runs.Engine
	Feed   *feed.Feed
	Stats  *runs.Stats
	kill   context.CancelFunc
	stop   context.CancelFunc
	done   sync.WaitGroup
}

// Free is a price table in which a token costs one.
type Free struct{}

// Cost implements runs.Prices.
func (Free) Cost(_ string, u prompting.Usage) (int64, bool) {
	return u.Input + u.Cached + u.Output, true
}

// Compiler makes one.
func Compiler(t testing.TB) *runs.Compiler {
	t.Helper()
	c, err := condition.NewWriteCompiler(1000)
	require.NoError(t, err)
	return runs.NewCompiler(c)
}

// Start runs a replica until Stop or Kill.
func (w *World) Start(holder string, m runs.Models, change ...func(*runs.Config)) *Replica {
	w.T.Helper()
	log := slog.New(slog.NewTextHandler(io.Discard, nil))
	r := &Replica{Stats: &runs.Stats{}}
	compiler := Compiler(w.T)
	c := runs.Config{
		Queue: w.Store, Executor: &runs.Executor{Models: m, Compiler: compiler, Prices: Free{}},
		PerHook: 64, PerOrg: 128, InAll: 256, MaxBytes: 16 << 20, Log: log, Stats: r.Stats,
	}
	for _, f := range change {
		f(&c)
	}
	r.Engine = runs.New(c)
	r.Feed = &feed.Feed{Store: w.Store, Compiler: compiler, MaxDepth: 3, Stats: &feed.Stats{}}
	source := stream.New(stream.Options{Log: w.Log.Direct(), Redis: w.Redis})
	consumer := feed.NewConsumer(r.Feed, r.Engine, feed.Options{DB: w.Pool, Source: source, Holder: holder, LeaseTTL: 500 * time.Millisecond, Log: log})
	work, kill := context.WithCancel(context.Background())
	take, stop := context.WithCancel(work)
	r.kill, r.stop = kill, stop
	r.done.Go(func() { _ = r.Engine.Run(take, work) })
	r.done.Go(func() { _ = consumer.Run(take, work) })
	w.T.Cleanup(r.Stop)
	return r
}

// Stop drains.
func (r *Replica) Stop() { r.stop(); r.done.Wait(); r.kill() }

// Abandon gives a function that ends the replica's work at once, whoever calls it, and then tells.
func (r *Replica) Abandon(told func()) func() { return func() { r.kill(); told() } }

// Kill breaks everything off: calls, transactions, and what would be persisted.
func (r *Replica) Kill() { r.kill(); r.done.Wait() }
