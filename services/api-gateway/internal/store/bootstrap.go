package store

import (
	"context"

	"github.com/jackc/pgx/v5"

	"github.com/sametick/sametick/pkg/auth"
	"github.com/sametick/sametick/pkg/errs"
	"github.com/sametick/sametick/pkg/pg"
	"github.com/sametick/sametick/services/api-gateway/internal/identity"
	"github.com/sametick/sametick/services/api-gateway/internal/records"
)

// Bootstrap implements identity.Founder: one transaction, one at a time for each address.
func (s *Store) Bootstrap(ctx context.Context, f identity.Founding) (org, user int64, made bool, err error) {
	err = pg.InTx(ctx, s.pool, pg.TxOptions{}, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, `SELECT pg_advisory_xact_lock(hashtextextended('sametick.bootstrap ' || lower($1), 0))`, f.Email); err != nil {
			return err
		}
		there, err := s.FindUser(ctx, f.Email)
		switch errs.KindOf(err) {
		case errs.OK:
			org, user = there.OrgID, there.ID
			return nil
		case errs.NotFound:
		default:
			return err
		}
		made = true
		org, user, err = s.found(ctx, tx, f)
		return err
	})
	return org, user, made, err
}

// found writes an organisation, the administrator's role, the first user, who has it, and an API key.
func (s *Store) found(ctx context.Context, tx pgx.Tx, f identity.Founding) (org, user int64, err error) {
	var drawn [4]int64
	for i := range drawn {
		if drawn[i], err = s.ids.next(ctx); err != nil {
			return 0, 0, err
		}
	}
	org, user = drawn[0], drawn[1]
	call := records.Call{OrgID: org, ActorID: &user}
	b := batch(org)
	for _, r := range []records.Record{{Type: "organization", ID: org, Name: f.Org}, {Type: "role", ID: drawn[3], Name: identity.AdministratorRole},
		{Type: "user", ID: user, Name: f.Email}} {
		r.Attributes = []byte("{}")
		if err := queueCreate(b, call, r, records.Names{}); err != nil {
			return 0, 0, err
		}
	}
	b.Queue(insertCredentials, org, user, f.Email, f.PasswordHash)
	b.Queue(insertRole, org, drawn[3], auth.AllScopes(), true)
	b.Queue(insertUserRoles, org, user, []int64{drawn[3]})
	key := identity.APIKey{ID: drawn[2], UserID: &user, Name: "bootstrap", Prefix: identity.KeyPrefix(f.KeySecret), Scopes: auth.ScopesOf(auth.AllScopes()...)}
	if err := queueKey(b, call, key, auth.HashSecret(f.KeySecret)); err != nil {
		return 0, 0, err
	}
	return org, user, tx.SendBatch(ctx, b).Close()
}
