package store

import (
	"context"
	"embed"

	"github.com/sametick/sametick/pkg/outbox"
)

//go:embed migrations/*.sql
var migrations embed.FS

// Schema is this service's tables on top of the shared ones.
func Schema() outbox.Schema {
	return outbox.Schema{Files: migrations, Table: "sametick.schema_webhook"}
}

// CheckSchema errs while the database does not answer or its schema is older than this program needs.
func (s *Store) CheckSchema(ctx context.Context) error { return Schema().Check(ctx, s.pool) }
