package store

import (
	"context"
	"embed"
	"io/fs"
	"log/slog"

	"github.com/sametick/sametick/pkg/outbox"
	"github.com/sametick/sametick/pkg/pg"
)

//go:embed migrations/*.sql
var migrations embed.FS

// versions is where goose keeps this service's schema version.
const versions = "sametick.schema_prompt"

func files() (fs.FS, error) { return fs.Sub(migrations, "migrations") }

// Migrate brings the shared schema and this service's own to their newest versions. url is an
// administrator's; see pg.Migrate.
func Migrate(ctx context.Context, url string, log *slog.Logger) error {
	if err := outbox.Migrate(ctx, url, log); err != nil {
		return err
	}
	own, err := files()
	if err != nil {
		return err
	}
	return pg.Migrate(ctx, url, own, versions, log)
}

// CheckSchema errs while the database does not answer or its schema is older than this program needs.
func (s *Store) CheckSchema(ctx context.Context) error {
	if err := outbox.CheckSchema(ctx, s.pool); err != nil {
		return err
	}
	own, err := files()
	if err != nil {
		return err
	}
	need, err := pg.NewestVersion(own)
	if err != nil {
		return err
	}
	return pg.CheckSchema(ctx, s.pool, versions, need)
}

// Fingerprint gives the text of every migration that Migrate runs: what a database template is made of.
func Fingerprint() ([][]byte, error) {
	own, err := files()
	if err != nil {
		return nil, err
	}
	var texts [][]byte
	for _, source := range []fs.FS{outbox.Migrations(), own} {
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
