// Command webhook-worker schedules and sends webhooks; see internal/app.
package main

import (
	"context"
	"os"

	"github.com/sametick/sametick/services/webhook-worker/internal/app"
)

func main() { os.Exit(app.Run(context.Background(), os.Args[1:], os.Getenv, os.Stderr)) }
