// Command sse-gateway serves event streams; see internal/app.
package main

import (
	"context"
	"os"

	"github.com/sametick/sametick/services/sse-gateway/internal/app"
)

func main() { os.Exit(app.Run(context.Background(), os.Args[1:], os.Getenv, os.Stderr)) }
