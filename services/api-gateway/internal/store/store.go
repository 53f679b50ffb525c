// Package store keeps records, identity and history in PostgreSQL. Its statements are written by hand
// for pgx, because what they cost is round trips: each call is one or two pipelined batches. Rules live in
// packages records, identity and events; the tables that producers and relay share in pkg/outbox.
package store

import (
	"context"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/sametick/sametick/pkg/errs"
	"github.com/sametick/sametick/pkg/outbox"
	"github.com/sametick/sametick/pkg/pg"
	"github.com/sametick/sametick/services/api-gateway/internal/records"
)

// Store is the database. Safe for concurrent use.
type Store struct {
	pool *pgxpool.Pool
	// aside has the connections of what a call must write although its transaction fails: from a pool of its own,
	// since the call may hold one of the other, and who holds a connection must not wait for another.
	aside *pgxpool.Pool
	ids   *ids
}

// New makes a store on two pools, which stay the caller's. They may be the same where no unit is used.
func New(pool, aside *pgxpool.Pool) *Store {
	return &Store{pool: pool, aside: aside, ids: newIDs(pool)}
}

const setOrg = `SELECT set_config('sametick.org_id', $1, true)`

// rollbackTimeout bounds the ROLLBACK after the caller's context has ended.
const rollbackTimeout = 2 * time.Second

// batch makes a batch that acts for one organisation. Without BEGIN it is one transaction all the same:
// Postgres runs everything up to the protocol's Sync in one implicit transaction (PostgreSQL
// documentation, 55.2.4, Pipelining), which saves two statements of five.
func batch(orgID int64) *pgx.Batch {
	b := &pgx.Batch{}
	b.Queue(setOrg, strconv.FormatInt(orgID, 10))
	return b
}

// beginBatch is batch for a write that may have been reviewed.
func beginBatch(call records.Call) *pgx.Batch {
	b := &pgx.Batch{}
	queueBegin(b, call)
	return b
}

// queueBegin makes what follows act for the caller's organisation, if the hooks are still those that reviewed it.
func queueBegin(b *pgx.Batch, call records.Call) {
	if call.ReviewSet != nil {
		b.Queue(`SELECT sametick.begin_write($1, $2)`, call.OrgID, *call.ReviewSet)
		return
	}
	b.Queue(setOrg, strconv.FormatInt(call.OrgID, 10))
}

// transaction makes a batch that begins an explicit transaction and acts for one organisation.
func transaction(orgID int64, begin string) *pgx.Batch {
	b := &pgx.Batch{}
	b.Queue(begin)
	b.Queue(setOrg, strconv.FormatInt(orgID, 10))
	return b
}

type batcher interface {
	SendBatch(ctx context.Context, b *pgx.Batch) pgx.BatchResults
}

// send sends a batch and passes over the results of its first skip statements; the rest is read's.
// Nothing counts before Close has seen the end of the transaction.
func send(ctx context.Context, c batcher, b *pgx.Batch, skip int, read func(pgx.BatchResults) error) error {
	if unit := unitOf(ctx); unit != nil { // also for what only reads: it sees what the unit has written
		join(b)
		c = unit
	}
	results := c.SendBatch(ctx, b)
	err := func() error {
		for range skip {
			if _, err := results.Exec(); err != nil {
				return err
			}
		}
		return read(results)
	}()
	if closeErr := results.Close(); err == nil {
		err = closeErr
	}
	return err
}

// write sends a batch that changes something in one implicit transaction.
func (s *Store) write(ctx context.Context, b *pgx.Batch, read func(pgx.BatchResults) error) error {
	if unit := unitOf(ctx); unit != nil {
		return outcome(send(ctx, unit, b, 1, read))
	}
	c, err := s.pool.Acquire(ctx)
	if err != nil {
		return pg.Translate(err)
	}
	defer c.Release()
	return outcome(send(ctx, c, b, 1, read))
}

// outcome translates an error of what commits. When no answer came, it may have been committed.
func outcome(err error) error {
	translated := pg.Translate(err)
	switch errs.KindOf(translated) {
	case errs.Unavailable, errs.Canceled, errs.DeadlineExceeded:
		if !pgconn.SafeToRetry(err) && !errs.HasReason(translated, "STATEMENT_TIMEOUT") {
			return pg.ErrCommitUnknown.WithCause(err)
		}
	}
	return translated
}

// read sends a batch that only reads, in one snapshot.
func (s *Store) read(ctx context.Context, orgID int64, queue func(*pgx.Batch), read func(pgx.BatchResults) error) error {
	b := transaction(orgID, "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
	queue(b)
	b.Queue("COMMIT")
	err := s.connected(ctx, func(c *pgxpool.Conn) error { return send(ctx, c, b, 2, read) })
	return pg.Translate(err)
}

// connected runs fn on one connection and rolls back what it may have left open: a pool would have to
// drop such a connection.
func (s *Store) connected(ctx context.Context, fn func(*pgxpool.Conn) error) error {
	if unit := unitOf(ctx); unit != nil {
		return fn(unit)
	}
	c, err := s.pool.Acquire(ctx)
	if err != nil {
		return err
	}
	defer c.Release()
	defer func() {
		if c.Conn().IsClosed() || c.Conn().PgConn().TxStatus() == 'I' {
			return
		}
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), rollbackTimeout)
		defer cancel()
		_, _ = c.Exec(ctx, "ROLLBACK") // a connection that cannot is closed, which rolls back
	}()
	return fn(c)
}

// commit sends what ends an open transaction.
func commit(ctx context.Context, c batcher, b *pgx.Batch) error {
	b.Queue("COMMIT")
	return outcome(send(ctx, c, b, 0, func(pgx.BatchResults) error { return nil }))
}

// queueEvents queues the events of a change and its audit entry.
func queueEvents(b *pgx.Batch, call records.Call, list ...outbox.Event) error {
	args, err := outbox.Args(outbox.Context{ActorID: call.ActorID, RequestID: call.RequestID, IP: call.IP,
		UserAgent: call.UserAgent, Traceparent: call.Traceparent}, list...)
	if err != nil {
		return err
	}
	b.Queue(outbox.Statement, args...)
	return nil
}
