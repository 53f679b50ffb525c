package store

import (
	"context"
	"errors"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/sametick/sametick/pkg/idempotency"
	"github.com/sametick/sametick/pkg/pg"
)

// A unit is a transaction that several calls of the store work in, one after the other. It travels in the
// context: connected, write and send look for it.
type unitKey struct{}

func unitOf(ctx context.Context) *pgxpool.Conn {
	c, _ := ctx.Value(unitKey{}).(*pgxpool.Conn)
	return c
}

// join leaves out a batch's own BEGIN and COMMIT, which are the unit's.
func join(b *pgx.Batch) {
	for _, q := range b.QueuedQueries {
		if strings.HasPrefix(q.SQL, "BEGIN") || q.SQL == "COMMIT" {
			q.SQL = "SELECT"
		}
	}
}

// Once does what was claimed, in one transaction with the claim and its answer. When it was done before, it gives
// that call's request hash and answer instead. An error of do leaves no claim.
func (s *Store) Once(ctx context.Context, claim idempotency.Claim, do func(ctx context.Context) (answer []byte, err error)) (requestHash, answer []byte, err error) {
	err = s.connected(ctx, func(c *pgxpool.Conn) error {
		b := transaction(claim.OrgID, "BEGIN")
		b.Queue(idempotency.InsertClaim, claim.OrgID, claim.Caller, claim.KeyHash, claim.RequestHash)
		var ours bool
		err := send(ctx, c, b, 2, func(results pgx.BatchResults) error {
			err := results.QueryRow().Scan(&ours)
			if errors.Is(err, pgx.ErrNoRows) {
				return nil
			}
			return err
		})
		if err != nil {
			return err
		}
		if !ours {
			return c.QueryRow(ctx, idempotency.FindAnswer, claim.OrgID, claim.Caller, claim.KeyHash).Scan(&requestHash, &answer)
		}
		kept, err := do(context.WithValue(ctx, unitKey{}, c))
		if err != nil {
			return err
		}
		b = &pgx.Batch{}
		b.Queue(idempotency.KeepAnswer, claim.OrgID, claim.Caller, claim.KeyHash, kept)
		b.Queue("COMMIT")
		return outcome(send(ctx, c, b, 0, func(pgx.BatchResults) error { return nil }))
	})
	return requestHash, answer, pg.Translate(err)
}

// ForgetKeys ends some keys that are too old to be asked for.
func (s *Store) ForgetKeys(ctx context.Context) error {
	_, err := s.pool.Exec(ctx, idempotency.ForgetSome)
	return pg.Translate(err)
}
