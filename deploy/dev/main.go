// Command dev is `make up`: the whole suite on this machine, until Ctrl-C.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"syscall"

	"github.com/sametick/sametick/deploy/suite"
)

func main() {
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer cancel()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "\nmake up:", err)
		os.Exit(1) //nolint:gocritic // cancel only frees memory
	}
}

// run keeps the suite up until ctx ends (no error) or a service does.
func run(ctx context.Context) error {
	root, err := os.Getwd()
	if err != nil {
		return fmt.Errorf("current directory: %w", err)
	}
	if _, err := os.Stat(filepath.Join(root, "go.work")); err != nil {
		return errors.New("run it from the top of the checkout")
	}
	offset, err := strconv.Atoi(env("PORT_OFFSET", "0"))
	if err != nil || offset < 0 || offset > 50000 {
		return fmt.Errorf("PORT_OFFSET=%s: give a number from 0 to 50000", os.Getenv("PORT_OFFSET"))
	}
	if offset == 10080-8080 || offset == 10080-8082 {
		return fmt.Errorf("PORT_OFFSET=%d: browsers refuse port 10080 (Fetch standard, 2.9); take another", offset)
	}
	s, err := suite.Up(ctx, suite.Options{
		Root: root, Dir: filepath.Join(root, ".dev"), Ports: suite.DefaultPorts(offset), Getenv: os.Getenv, Log: os.Stdout,
	})
	if err != nil {
		if ctx.Err() != nil {
			fmt.Println("stopped")
			return nil
		}
		return err
	}
	fmt.Printf(greeting, s.URL, s.Token, s.Secrets.Email, s.Secrets.Password)
	err = s.Died(ctx)
	fmt.Println("\nstopping")
	down := s.Down()
	if ctx.Err() != nil {
		return down
	}
	return errors.Join(err, down)
}

func env(name, otherwise string) string {
	if v := os.Getenv(name); v != "" {
		return v
	}
	return otherwise
}

const greeting = `
Sametick is up.

  URL    %s (the API's reference is at /api/docs)
  token  %s
  login  %s / %s

Try, in another terminal:

  source .dev/env
  go run ./services/tick/cmd/tick tail
  go run ./services/tick/cmd/tick emit task "Say hello"
  go run ./services/tick/cmd/tick listen --forward http://127.0.0.1:3000/
  curl "$SAMETICK_URL/api/events?aggregate_type=task&limit=10" -H "Authorization: Bearer $SAMETICK_TOKEN"

Webhooks may go to this machine here (http, loopback); elsewhere only public https addresses may be called.
Logs are in .dev/log. Ctrl-C stops everything; the data stays for the next time.
`
