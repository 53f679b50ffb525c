// Package app puts prompt-worker together: configuration, subcommands, servers and loops.
package app

import (
	"context"
	"fmt"
	"io"
	"log/slog"

	"github.com/sametick/sametick/pkg/config"
	"github.com/sametick/sametick/pkg/keyring"
	"github.com/sametick/sametick/pkg/pg"
	"github.com/sametick/sametick/pkg/telemetry"
	"github.com/sametick/sametick/services/prompt-worker/internal/prompting"
	"github.com/sametick/sametick/services/prompt-worker/internal/store"
)

const name = "prompt-worker"

const usage = `usage: prompt-worker [command]

  (none)      review writes and run prompts
  migrate     bring the database to the newest schema (DATABASE_URL: an administrator's)
  re-encrypt  seal all secrets anew under the first of ENCRYPTION_KEYS

`

// Run is the program: it gives the exit code.
func Run(ctx context.Context, args []string, getenv func(string) string, stderr io.Writer) int {
	command := ""
	if len(args) > 0 {
		command = args[0]
	}
	var err error
	switch command {
	case "-h", "-help", "--help", "help":
		c := defaults()
		_, _ = fmt.Fprint(stderr, usage+config.Help(name, &c))
		return 0
	case "":
		c := defaults()
		if err = config.Load(&c, getenv); err == nil {
			log := telemetry.NewLogger(stderr, name, c.LogLevel)
			if err = serve(ctx, &c, getenv, log); err != nil {
				log.ErrorContext(ctx, "ended with an error", "error", err)
				return 1
			}
			return 0
		}
	case "migrate":
		var c struct{ config.Postgres }
		if err = config.Load(&c, getenv); err == nil {
			err = store.Schema().Migrate(ctx, c.DatabaseURL.Reveal(), telemetry.NewLogger(stderr, name, slog.LevelInfo))
		}
	case "re-encrypt":
		err = reencrypt(ctx, getenv, stderr)
	default:
		_, _ = fmt.Fprintf(stderr, "%s: there is no command %q\n\n%s", name, command, usage)
		return 2
	}
	if err != nil {
		_, _ = fmt.Fprintln(stderr, err)
		return 2
	}
	return 0
}

func reencrypt(ctx context.Context, getenv func(string) string, stderr io.Writer) error {
	var c struct {
		config.Postgres
		keyring.Config
	}
	if err := config.Load(&c, getenv); err != nil {
		return err
	}
	ring, err := c.Ring()
	if err != nil {
		return err
	}
	pool, err := pg.Open(ctx, c.DatabaseURL.Reveal(), pg.Options{AppName: name, Pooled: c.DatabasePooled})
	if err != nil {
		return err
	}
	defer pool.Close()
	n, err := store.New(pool, prompting.Limits{}).Reseal(ctx, ring)
	if err == nil {
		telemetry.NewLogger(stderr, name, slog.LevelInfo).InfoContext(ctx, "sealed anew", "secrets", n)
	}
	return err
}
