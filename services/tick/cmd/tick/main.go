// Command tick is Sametick's command line.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/sametick/sametick/services/tick/internal/app"
)

func main() {
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := app.Run(ctx, os.Args[1:], os.Environ(), os.Stdout, os.Stderr)
	cancel()
	os.Exit(code)
}
