// Command outbox-relay gives events their positions and publishes them; see internal/app.
package main

import (
	"context"
	"os"

	"github.com/sametick/sametick/services/outbox-relay/internal/app"
)

func main() { os.Exit(app.Run(context.Background(), os.Args[1:], os.Getenv, os.Stderr)) }
