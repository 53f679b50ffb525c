package store

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sametick/sametick/pkg/errs"
	"github.com/sametick/sametick/pkg/pg"
	"github.com/sametick/sametick/services/outbox-relay/internal/sequence"
)

const connectTimeout = 5 * time.Second

// ReasonClaimLost is the reason of Claim's error when another relay has claimed the batch.
const ReasonClaimLost = "CLAIM_LOST"

// Session polls and claims. It is one session of Postgres and never changes to another: a cursor in
// memory must not outlive the server it was taken from (see internal/sequence). For one goroutine.
type Session struct {
	conn    *pgx.Conn
	decode  decoder
	life    context.Context
	release func() bool
	until   time.Time // the connection's deadline
}

// OpenSession connects; the end of ctx ends the session. The plans of the polls are fixed by switching off what must never be chosen
// (a scan of the table, or a sort of more than is wanted) instead of trusting statistics, which lag behind an outbox:
// so one generic plan serves, and an idle poll costs no planning.
func OpenSession(ctx context.Context, url string) (*Session, error) {
	conn, err := connect(ctx, url, "outbox-relay sequence", map[string]string{
		"plan_cache_mode": "force_generic_plan",
		"enable_seqscan":  "off", "enable_bitmapscan": "off", "enable_sort": "off", "jit": "off",
		"statement_timeout": "0",
	})
	if err != nil {
		return nil, err
	}
	// Positions are for ever: their commit waits for the disk whatever the server's default is.
	const durable = `SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'`
	if _, err := conn.Exec(ctx, durable); err != nil {
		_ = conn.Close(ctx)
		return nil, pg.Translate(err)
	}
	s := &Session{conn: conn, life: ctx}
	s.release = context.AfterFunc(ctx, func() { _ = conn.PgConn().Conn().SetDeadline(time.Unix(1, 0)) })
	return s, nil
}

// statementPatience, or up to twice that, ends the wait for a server that is not heard of any more.
const statementPatience = 30 * time.Second

// statement gives the context for one statement. It cannot be cancelled, which saves pgx a watching goroutine for each
// poll (a quarter of an idle relay's cost); the session's own end and statementPatience do that. The deadline
// is moved seldom, since each move wakes the poller of the network.
func (s *Session) statement() (context.Context, error) {
	now := time.Now()
	if until := now.Add(2 * statementPatience); until.Sub(s.until) > statementPatience {
		if err := s.conn.PgConn().Conn().SetDeadline(until); err != nil {
			return nil, err
		}
		s.until = until
	}
	// Looked at last: the end of life has set a deadline of its own, which must not be moved.
	return context.WithoutCancel(s.life), s.life.Err()
}

// Close ends the session. A statement under way is given up.
func (s *Session) Close() {
	s.release()
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = s.conn.Close(ctx)
}

const (
	// The timeline is that of the WAL in use: the control file has a promotion's only from its first checkpoint
	// on, which may be minutes later, and a failover must be seen at once. Works on a primary only, as claims do.
	identitySQL = `
SELECT system_identifier, ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::int FROM pg_control_system()`

	cursorSQL = `
SELECT batch, snapshot::text, paging::text, coalesce(page_after, 0), max_id, base_id, positions, system_identifier, timeline, claimed_at
  FROM sametick.relay_batches ORDER BY batch DESC LIMIT 1`

	// Bounds at distances that double reach back to the ledger's beginning in 40 probes of its key.
	boundsSQL = `
SELECT b.claim_xid::text::bigint, b.max_id
  FROM generate_series(40, 0, -1) k
 CROSS JOIN LATERAL (SELECT claim_xid, max_id FROM sametick.relay_batches WHERE batch <= $1 - (1::bigint << k) + 1 ORDER BY batch DESC LIMIT 1) b`

	currentSQL = `
SELECT pg_current_snapshot()::text,
  coalesce((SELECT e.txid::text::bigint FROM sametick.events e WHERE e.id > $1 ORDER BY e.txid DESC LIMIT 1), 0)`
)

// Load reads the ledger's cursor and bounds. It errs with sequence.ReasonXidsWentBack when this
// cluster cannot go on from there.
func (s *Session) Load() (sequence.Cursor, []sequence.Bound, error) {
	ctx, err := s.statement()
	if err != nil {
		return sequence.Cursor{}, nil, err
	}
	now, err := identity(ctx, s.conn)
	if err != nil {
		return sequence.Cursor{}, nil, err
	}
	c, bounds, err := load(ctx, s.conn, now)
	if err != nil {
		return c, nil, err
	}
	var (
		text   string
		newest uint64
	)
	floor := sequence.New(c, bounds, 1).Next().Floor
	if err := s.conn.QueryRow(ctx, currentSQL, floor).Scan(&text, &newest); err != nil {
		return c, nil, pg.Translate(err)
	}
	current, err := sequence.ParseSnapshot(text)
	if err != nil {
		return c, nil, err
	}
	return c, bounds, sequence.CheckIdentity(c, now, current, newest)
}

// querier is a session or a pool.
type querier interface {
	pg.RowQuerier
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
}

func load(ctx context.Context, db querier, now sequence.Identity) (sequence.Cursor, []sequence.Bound, error) {
	c, _, err := cursor(ctx, db, now)
	if err != nil {
		return c, nil, err
	}
	rows, err := db.Query(ctx, boundsSQL, c.Batch)
	if err != nil {
		return c, nil, pg.Translate(err)
	}
	bounds, err := pgx.CollectRows(rows, func(r pgx.CollectableRow) (b sequence.Bound, err error) {
		err = r.Scan(&b.Xid, &b.MaxID)
		return b, err
	})
	return c, bounds, pg.Translate(err)
}

func identity(ctx context.Context, db pg.RowQuerier) (id sequence.Identity, err error) {
	err = db.QueryRow(ctx, identitySQL).Scan(&id.SystemIdentifier, &id.Timeline)
	return id, pg.Translate(err)
}

// cursor reads the newest row of the ledger, or the first cursor while there is none.
func cursor(ctx context.Context, db pg.RowQuerier, now sequence.Identity) (c sequence.Cursor, claimed time.Time, err error) {
	var (
		snapshot  string
		paging    *string
		positions []int64
	)
	err = pg.Translate(db.QueryRow(ctx, cursorSQL).Scan(&c.Batch, &snapshot, &paging, &c.PageAfter, &c.MaxID, &c.BaseID, &positions,
		&c.Claimed.SystemIdentifier, &c.Claimed.Timeline, &claimed))
	if errs.KindOf(err) == errs.NotFound {
		return sequence.First(now), time.Time{}, nil
	}
	if err != nil {
		return c, claimed, err
	}
	if c.Snapshot, err = sequence.ParseSnapshot(snapshot); err != nil {
		return c, claimed, err
	}
	if paging != nil {
		p, err := sequence.ParseSnapshot(*paging)
		if err != nil {
			return c, claimed, err
		}
		c.Paging = &p
	}
	c.Identity = now
	if copy(c.Positions[:], positions) != len(c.Positions) {
		return c, claimed, fmt.Errorf("ledger row %d has %d positions", c.Batch, len(positions))
	}
	return c, claimed, nil
}
