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

// Schema is a service's own tables, which stand on the shared ones.
type Schema struct {
	// Files has the migrations in its directory "migrations", for goose.
	Files embed.FS
	// Table is where their version is kept.
	Table string
}

func (s Schema) own() (fs.FS, error) { return fs.Sub(s.Files, "migrations") }

// Migrate brings the shared tables and the service's own to their newest versions. url is an administrator's; see
// pg.Migrate.
func (s Schema) Migrate(ctx context.Context, url string, log *slog.Logger) error {
	if err := Migrate(ctx, url, log); err != nil {
		return err
	}
	own, err := s.own()
	if err != nil {
		return err
	}
	return pg.Migrate(ctx, url, own, s.Table, log)
}

// Check errs while the database does not answer or its schema is older than this program needs.
func (s Schema) Check(ctx context.Context, db pg.RowQuerier) error {
	if err := CheckSchema(ctx, db); err != nil {
		return err
	}
	own, err := s.own()
	if err != nil {
		return err
	}
	need, err := pg.NewestVersion(own)
	if err != nil {
		return err
	}
	return pg.CheckSchema(ctx, db, s.Table, need)
}

// Fingerprint gives the text of every migration that Migrate runs: what a database template is made of.
func (s Schema) Fingerprint() ([][]byte, error) {
	own, err := s.own()
	if err != nil {
		return nil, err
	}
	var texts [][]byte
	for _, source := range []fs.FS{Migrations(), own} {
		names, err := fs.Glob(source, "*.sql")
		if err != nil {
			return nil, err
		}
		for _, name := range names {
			text, err := fs.ReadFile(source, name)
			if err != nil {
				return nil, err
			}
			texts = append(texts, text)
		}
	}
	return texts, nil
}
