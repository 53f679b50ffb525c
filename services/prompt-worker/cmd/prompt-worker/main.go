// Command prompt-worker reviews writes and runs prompts; see internal/app.
package main

import (
	"context"
	"os"

	"github.com/sametick/sametick/services/prompt-worker/internal/app"
)

func main() { os.Exit(app.Run(context.Background(), os.Args[1:], os.Getenv, os.Stderr)) }
