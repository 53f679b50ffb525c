package pg

import (
	"context"
	"errors"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/sametick/sametick/pkg/backoff"
	"github.com/sametick/sametick/pkg/errs"
)

// Beginner begins transactions: a pool or a connection.
type Beginner interface {
	BeginTx(ctx context.Context, o pgx.TxOptions) (pgx.Tx, error)
}

// Execer executes a statement: a transaction, a connection or a pool.
type Execer interface {
	Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error)
}

// TxOptions of InTx.
type TxOptions struct {
	pgx.TxOptions
	// Org, if not 0, is the organisation the transaction sees (WithOrg).
	Org int64
	// Retries is how often a transaction that lost to another (serialization failure, deadlock) is
	// run again from its beginning. The function must then have no effects but the transaction's.
	Retries int
}

// ErrCommitUnknown says that the connection broke during COMMIT, so the transaction may or may not be
// committed. It is never retried here; only an idempotent caller may.
var ErrCommitUnknown = errs.New(errs.Unavailable, "COMMIT_UNKNOWN", "the outcome of the change is unknown")

// rollbackTimeout bounds the ROLLBACK after the caller's context has ended.
const rollbackTimeout = 2 * time.Second

var lost = backoff.Policy{Base: 5 * time.Millisecond, Cap: 200 * time.Millisecond}

// InTx runs fn in a transaction and commits it; any error or panic of fn rolls back. Errors of
// Postgres come back translated (Translate); an *errs.Error of fn comes back as it is.
func InTx(ctx context.Context, db Beginner, o TxOptions, fn func(tx pgx.Tx) error) error {
	for attempt := 1; ; attempt++ {
		err := once(ctx, db, o, fn)
		if err == nil || attempt > o.Retries || !Retryable(err) {
			return Translate(err)
		}
		t := time.NewTimer(lost.Next(attempt))
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return Translate(ctx.Err())
		}
	}
}

func once(ctx context.Context, db Beginner, o TxOptions, fn func(tx pgx.Tx) error) error {
	tx, err := db.BeginTx(ctx, o.TxOptions)
	if err != nil {
		return err
	}
	defer func() { // after Commit this does nothing
		c, cancel := context.WithTimeout(context.WithoutCancel(ctx), rollbackTimeout)
		defer cancel()
		_ = tx.Rollback(c) // a connection that cannot roll back is closed, which rolls back
	}()
	if o.Org != 0 {
		if err := WithOrg(ctx, tx, o.Org); err != nil {
			return err
		}
	}
	if err := fn(tx); err != nil {
		return err
	}
	err = tx.Commit(ctx)
	if err == nil || knownCommit(err) {
		return err
	}
	return ErrCommitUnknown.WithCause(err)
}

// knownCommit reports whether a COMMIT that failed with err has certainly not happened: the server
// said so, or was never asked.
func knownCommit(err error) bool {
	return answered(err) || pgconn.SafeToRetry(err) || errors.Is(err, pgx.ErrTxClosed) || errors.Is(err, pgx.ErrTxCommitRollback)
}

// WithOrg makes row-level security show one organisation until the transaction ends. It is
// transaction-local, so it works behind a transaction-pooling proxy and cannot leak to the next user
// of the connection.
func WithOrg(ctx context.Context, tx Execer, org int64) error {
	_, err := tx.Exec(ctx, "SELECT set_config('sametick.org_id', $1, true)", strconv.FormatInt(org, 10))
	return Translate(err)
}
