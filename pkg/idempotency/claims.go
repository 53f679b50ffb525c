package idempotency

import (
	"context"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sametick/sametick/pkg/pg"
)

// The statements of a claim, for stores with a transaction of their own making. Each begins with org_id, caller
// and key_hash.
const (
	// InsertClaim has request_hash too; it gives a row when the claim is ours. A row that another transaction has put
	// there and not yet committed is waited for; one of another day is taken over.
	InsertClaim = `INSERT INTO sametick.idempotency_keys AS k (org_id, caller, key_hash, request_hash) VALUES ($1, $2, $3, $4)
		ON CONFLICT (org_id, caller, key_hash) DO UPDATE SET request_hash = excluded.request_hash, answer = NULL, created_at = now()
		WHERE k.created_at < now() - interval '24 hours' RETURNING true`
	// FindAnswer gives request_hash and answer of who was first.
	FindAnswer = `SELECT request_hash, answer FROM sametick.idempotency_keys WHERE org_id = $1 AND caller = $2 AND key_hash = $3`
	// KeepAnswer has answer too.
	KeepAnswer = `UPDATE sametick.idempotency_keys SET answer = $4 WHERE org_id = $1 AND caller = $2 AND key_hash = $3`
	// ForgetSome ends some keys of any organisation that are too old to be asked for.
	ForgetSome = `SELECT sametick.forget_idempotency_keys(200)`
)

// DB is what Claims need: a pool.
type DB interface {
	pg.Beginner
	pg.Execer
}

// Claims is Once for a service whose changes are transactions by InTx.
type Claims struct {
	db   DB
	done func()
}

// NewClaims makes it. done is called after each call that may have committed something, as what the call itself told
// came before its commit; nil for nothing.
func NewClaims(db DB, done func()) *Claims { return &Claims{db: db, done: done} }

type unitKey struct{}

// Once implements Once.
func (c *Claims) Once(ctx context.Context, claim Claim, do func(context.Context) ([]byte, error)) (requestHash, kept []byte, err error) {
	if c.done != nil {
		defer c.done() // also after an error: its outcome may be unknown
	}
	err = pg.InTx(ctx, c.db, pg.TxOptions{Org: claim.OrgID}, func(tx pgx.Tx) error {
		var ours bool
		err := tx.QueryRow(ctx, InsertClaim, claim.OrgID, claim.Caller, claim.KeyHash, claim.RequestHash).Scan(&ours)
		if errors.Is(err, pgx.ErrNoRows) {
			return tx.QueryRow(ctx, FindAnswer, claim.OrgID, claim.Caller, claim.KeyHash).Scan(&requestHash, &kept)
		}
		if err != nil {
			return err
		}
		answer, err := do(context.WithValue(ctx, unitKey{}, tx))
		if err != nil {
			return err
		}
		_, err = tx.Exec(ctx, KeepAnswer, claim.OrgID, claim.Caller, claim.KeyHash, answer)
		return err
	})
	return requestHash, kept, err
}

// Forget implements Once. What is not forgotten now is later.
func (c *Claims) Forget(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	_, _ = c.db.Exec(ctx, ForgetSome)
}

// InTx is pg.InTx, inside of a call with a key in the transaction of its claim: for the same organisation and without
// retries of its own.
func InTx(ctx context.Context, db pg.Beginner, o pg.TxOptions, fn func(tx pgx.Tx) error) error {
	if tx, ok := ctx.Value(unitKey{}).(pgx.Tx); ok {
		return pg.Translate(fn(tx))
	}
	return pg.InTx(ctx, db, o, fn)
}
