package outbox

import (
	"context"
	"embed"
	"fmt"
	"io/fs"
	"log/slog"

	"github.com/sametick/sametick/pkg/pg"
)

// VersionTable keeps the version of the core schema.
const VersionTable = "sametick.schema_core"

//go:embed migrations/*.sql
var files embed.FS

// Migrations gives the core migrations, goose files in the root; they change with the schema, so tests
// name their templates by them.
func Migrations() fs.FS {
	sub, err := fs.Sub(files, "migrations")
	if err != nil { // a constant, valid path
		panic(err)
	}
	return sub
}

// Migrate brings the tables, roles and functions that the suite shares to the newest version. It
// may run in many processes at once. url needs a superuser, or a role that may create roles and
// owns the database.
func Migrate(ctx context.Context, url string, log *slog.Logger) error {
	if err := pg.Migrate(ctx, url, Migrations(), VersionTable, log); err != nil {
		return fmt.Errorf("core schema: %w", err)
	}
	return nil
}

// SchemaVersion is the version of the core schema that this code needs.
func SchemaVersion() (int64, error) { return pg.NewestVersion(Migrations()) } //nolint:wrapcheck // says all

// CheckSchema errs while the database's core schema is older than this code needs: a readiness check.
func CheckSchema(ctx context.Context, db pg.RowQuerier) error {
	need, err := SchemaVersion()
	if err != nil {
		return err
	}
	return pg.CheckSchema(ctx, db, VersionTable, need) //nolint:wrapcheck // says all
}
