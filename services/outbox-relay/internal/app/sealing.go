package app

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/sametick/sametick/pkg/auditlog"
	"github.com/sametick/sametick/services/outbox-relay/internal/lead"
	"github.com/sametick/sametick/services/outbox-relay/internal/store"
)

// sealEvery is how often the leader looks for audit entries to seal.
const sealEvery = time.Second

// sealing gives the leader's chore of sealing the audit log; none without a key.
func sealing(ctx context.Context, c Config, pool *pgxpool.Pool, log *slog.Logger, stats *store.SealStats) []lead.Chore {
	if c.AuditSigningKey.Reveal() == "" {
		log.WarnContext(ctx, "AUDIT_SIGNING_KEY is not set: the audit log is not sealed, and who can write to the database can rewrite it unnoticed")
		return nil
	}
	signer, verifier, err := c.auditKeys()
	if err != nil { // Validate has read them
		log.ErrorContext(ctx, "the audit log is not sealed", "error", err)
		return nil
	}
	s := &store.Sealer{Pool: pool, Signer: signer, Verifier: verifier, Batch: store.SealBatch, Logger: log, Stats: stats}
	return []lead.Chore{{Name: "audit sealing", Every: sealEvery, Do: s.Run}}
}

// auditKeys reads the signing key, and what verifies it and its predecessors.
func (c *Config) auditKeys() (*auditlog.Signer, *auditlog.Verifier, error) {
	signer, err := auditlog.ParseSigner(c.AuditSigningKey.Reveal())
	if err != nil {
		return nil, nil, err
	}
	verifier, err := auditlog.NewVerifier(signer.PublicKey() + "," + c.AuditPublicKeys)
	return signer, verifier, err
}

// auditKey prints a new pair of keys, as lines for an environment file.
func auditKey(args []string, out io.Writer) int {
	if len(args) != 1 {
		_, _ = fmt.Fprint(out, "outbox-relay: audit-key takes one name, which heads are signed with: audit.example.com\n")
		return 2
	}
	private, public, err := auditlog.GenerateKey(args[0])
	if err != nil {
		_, _ = fmt.Fprintf(out, "outbox-relay: %v\n", err)
		return 2
	}
	_, _ = fmt.Fprintf(out, "AUDIT_SIGNING_KEY=%s\nAUDIT_PUBLIC_KEYS=%s\n", private, public)
	return 0
}
