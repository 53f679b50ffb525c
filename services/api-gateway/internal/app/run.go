package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"

	"github.com/sametick/sametick/pkg/config"
	"github.com/sametick/sametick/pkg/telemetry"
	"github.com/sametick/sametick/services/api-gateway/internal/store"
)

const service = "api-gateway"

// Process is what a program gets from its surroundings.
type Process struct {
	// Args are the arguments without the program's name.
	Args   []string
	Getenv func(string) string
	In     io.Reader
	// Out gets the results of subcommands, Err logs and errors.
	Out, Err io.Writer
}

const usage = `usage: api-gateway            serve until SIGTERM
       api-gateway migrate    bring the database to the newest schema (DATABASE_URL: an administrator's)
       api-gateway bootstrap  make an organisation, its first user and an API key; see bootstrap --help

`

// Run runs the program and gives its exit code: 0, 1 when something failed, 2 when it was called wrongly.
func Run(ctx context.Context, p Process) int {
	command := ""
	if len(p.Args) > 0 {
		command = p.Args[0]
	}
	var err error
	switch command {
	case "":
		c := defaults()
		if err = config.Load(&c, p.Getenv); err == nil {
			err = serve(ctx, &c, telemetry.NewLogger(p.Err, service, c.LogLevel), p.Getenv)
		}
	case "migrate":
		err = migrate(ctx, p)
	case "bootstrap":
		err = bootstrap(ctx, p)
	case "help", "-h", "--help":
		c := defaults()
		_, err = io.WriteString(p.Out, usage+config.Help(service, &c))
	default:
		_, _ = fmt.Fprintf(p.Err, "%s: unknown command %q\n%s", service, command, usage)
		return 2
	}
	var wrong *usageError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &wrong):
		_, _ = fmt.Fprintf(p.Err, "%s: %s\n", service, wrong.text)
		return 2
	default:
		_, _ = fmt.Fprintf(p.Err, "%s: %v\n", service, err)
		return 1
	}
}

// usageError is a call with wrong arguments.
type usageError struct{ text string }

// Error is the text.
func (e *usageError) Error() string { return e.text }

// migration is the environment of `api-gateway migrate`.
type migration struct{ config.Postgres }

func migrate(ctx context.Context, p Process) error {
	var c migration
	if err := config.Load(&c, p.Getenv); err != nil {
		return err
	}
	return store.Schema().Migrate(ctx, c.DatabaseURL.Reveal(), telemetry.NewLogger(p.Err, service, slog.LevelInfo))
}
