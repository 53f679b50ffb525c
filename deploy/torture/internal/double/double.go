// Package double holds relays and workers that are made for the judge, none of them for use: those that are right
// and slow, and those that are wrong in the ways in which their kind usually is. A judge that passes a wrong
// one is no judge. Relays:
//
//	right        reads what has no position, by anti-join. Clean.
//	wrong-id     a cursor on event ids (`id > last`): an event that commits after a greater id was read
//	             is never read. Lost positions and stream entries.
//	wrong-xmin   a cursor on (txid, id) below the low-water mark pg_snapshot_xmin: loses nothing, but an
//	             early transaction id with a late commit comes before what committed first (out of
//	             order), and one open transaction holds up everything (probe of P4).
//	wrong-direct no position log: XADD with the event id as stream id, and a refused id taken for
//	             "already there". Late commits are lost, positions do not exist.
//
// Workers of webhooks: see worker.go. There is a gateway too, which is right.
package double

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/redis/rueidis"

	"github.com/sametick/sametick/pkg/event"
)

// Schema makes what the doubles remember; superuser's statement.
const Schema = `CREATE TABLE torture.double_cursor (one boolean PRIMARY KEY DEFAULT true CHECK (one), txid xid8 NOT NULL DEFAULT '0', id bigint NOT NULL DEFAULT 0);
INSERT INTO torture.double_cursor DEFAULT VALUES;
CREATE TABLE torture.double_sent (event_id bigint PRIMARY KEY);
CREATE INDEX ON sametick.positions (event_id)`

// Servers gives connections.
type Servers interface {
	Postgres(ctx context.Context) (*pgx.Conn, error)
	Redis() (rueidis.Client, error)
}

// Kinds are the names of the doubles.
func Kinds() []string { return []string{"right", "wrong-id", "wrong-xmin", "wrong-direct"} }

// Replica is a double. Killing it drops it between any two statements; it has the methods of a process.
type Replica struct {
	name    string
	step    func(context.Context, *session) error
	servers Servers

	mu     sync.Mutex
	cancel context.CancelFunc
	done   chan struct{}
	gate   gate
}

// New prepares a relay of a kind.
func New(name, kind string, servers Servers) (*Replica, error) {
	step := stepOf(kind)
	if step == nil {
		return nil, fmt.Errorf("there is no relay %q", kind)
	}
	return &Replica{name: name, step: step, servers: servers}, nil
}

// Name is the replica's.
func (r *Replica) Name() string { return r.name }

// Start starts it, unless it runs.
func (r *Replica) Start(context.Context) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.cancel != nil {
		return nil
	}
	ctx, cancel := context.WithCancel(context.Background())
	r.cancel, r.done = cancel, make(chan struct{})
	go func() {
		defer close(r.done)
		r.run(ctx)
	}()
	return nil
}

// Kill ends it wherever it is.
func (r *Replica) Kill() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.cancel == nil {
		return
	}
	r.cancel()
	r.gate.open()
	<-r.done
	r.cancel = nil
}

// Pause holds it before its next statement.
func (r *Replica) Pause() { r.gate.shut() }

// Continue lets it go on.
func (r *Replica) Continue() { r.gate.open() }

// Terminate is Kill: a double has no manners.
func (r *Replica) Terminate(time.Duration) error {
	r.Kill()
	return nil
}

// run connects and steps until ctx ends; any error is answered by beginning anew.
func (r *Replica) run(ctx context.Context) {
	for ctx.Err() == nil {
		if err := r.session(ctx); err != nil {
			pause(ctx, 100*time.Millisecond)
		}
	}
}

func (r *Replica) session(ctx context.Context) (err error) {
	conn, err := r.servers.Postgres(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, conn.Close(context.WithoutCancel(ctx))) }()
	client, err := r.servers.Redis()
	if err != nil {
		return err
	}
	defer client.Close()
	s := &session{conn: conn, redis: client, gate: &r.gate}
	for ctx.Err() == nil {
		if err := r.step(ctx, s); err != nil {
			return err
		}
		pause(ctx, 10*time.Millisecond)
	}
	return nil
}

// session is what a double works with.
type session struct {
	conn  *pgx.Conn
	redis rueidis.Client
	gate  *gate
}

// stored is an event as read from Postgres.
type stored struct {
	event.Event
	shard int
	txid  uint64
	trace string
}

// read runs a query of id, txid, shard, org_id, aggregate_type, aggregate_id, event_type, payload,
// occurred_at, trace_context.
func (s *session) read(ctx context.Context, where string, args ...any) ([]stored, error) {
	s.gate.pass()
	rows, err := s.conn.Query(ctx, `SELECT e.id, e.txid, e.shard, e.org_id, e.aggregate_type, e.aggregate_id, e.event_type,
		e.payload::text, e.occurred_at, e.trace_context FROM sametick.events e `+where, args...)
	if err != nil {
		return nil, fmt.Errorf("read events: %w", err)
	}
	list, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (e stored, err error) {
		var payload string
		err = row.Scan(&e.ID, &e.txid, &e.shard, &e.OrgID, &e.AggregateType, &e.AggregateID, &e.EventType, &payload, &e.OccurredAt, &e.trace)
		e.Payload = []byte(payload)
		return e, err
	})
	if err != nil {
		return nil, fmt.Errorf("read events: %w", err)
	}
	return list, nil
}

func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}
