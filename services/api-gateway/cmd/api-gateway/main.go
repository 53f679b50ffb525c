// Command api-gateway serves the suite's API: records, history and identity, over gRPC and REST.
package main

import (
	"context"
	"os"

	"github.com/sametick/sametick/services/api-gateway/internal/app"
)

func main() {
	os.Exit(app.Run(context.Background(), app.Process{Args: os.Args[1:], Getenv: os.Getenv, In: os.Stdin, Out: os.Stdout, Err: os.Stderr}))
}
