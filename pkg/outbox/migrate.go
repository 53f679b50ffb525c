package outbox

import (
	"context"
	"embed"
	"fmt"
	"io/fs"
	"log/slog"

	"github.com/sametick/sametick/pkg/pg"
)

//go:embed migrations/*.sql
var migrations embed.FS

// SchemaTable is where the version of the shared tables is kept.
const SchemaTable = "sametick.schema_core"

// Migrations are the shared tables' migrations, for goose.
func Migrations() fs.FS {
	sub, err := fs.Sub(migrations, "migrations")
	if err != nil { // the directory is embedded above
		panic(err)
	}
	return sub
}

// Migrate brings the shared tables to this package's version. Many may run it at once, and while the
// services work: see pg.Migrate. The role of url must be able to make roles (superuser, or CREATEROLE).
func Migrate(ctx context.Context, url string, log *slog.Logger) error {
	if err := pg.Migrate(ctx, url, Migrations(), SchemaTable, log); err != nil {
		return fmt.Errorf("migrate the shared tables: %w", err)
	}
	return nil
}

// CheckSchema errs while the shared tables are older than this package needs.
func CheckSchema(ctx context.Context, db pg.RowQuerier) error {
	need, err := pg.NewestVersion(Migrations())
	if err != nil {
		return fmt.Errorf("read the migrations: %w", err)
	}
	return pg.CheckSchema(ctx, db, SchemaTable, need)
}
