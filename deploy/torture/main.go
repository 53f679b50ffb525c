// Command torture puts the suite under everything that must not matter and judges what is left: see
// README.md beside it.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/sametick/sametick/deploy/torture/internal/harness"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := harness.Main(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}
