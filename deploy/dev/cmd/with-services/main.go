// Command with-services runs a command with a Postgres and a Redis of its own: their URLs are in
// DATABASE_URL and REDIS_URL, unless these were set already. It exits with the command's code.
//
//	go run ./deploy/dev/cmd/with-services -- go test ./...
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/sametick/sametick/pkg/devstack"
	"github.com/sametick/sametick/pkg/pgtest"
)

func main() {
	os.Exit(run(os.Args[1:]))
}

func run(args []string) int {
	if len(args) > 0 && args[0] == "--" {
		args = args[1:]
	}
	if len(args) == 0 {
		fmt.Fprintln(os.Stderr, "usage: with-services -- COMMAND [ARGUMENT …]")
		return 2
	}
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer cancel()
	dir, err := os.MkdirTemp("", "sametick-services-")
	if err != nil {
		fmt.Fprintln(os.Stderr, "with-services:", err)
		return 1
	}
	defer func() { _ = os.RemoveAll(dir) }()
	if err := os.Chmod(dir, 0o755); err != nil {
		fmt.Fprintln(os.Stderr, "with-services:", err)
		return 1
	}
	stack, err := devstack.Start(ctx, devstack.Options{
		Dir: filepath.Join(dir, "stack"), Settings: pgtest.FastSettings(), Log: os.Stderr,
		DatabaseURL: os.Getenv("DATABASE_URL"), RedisURL: os.Getenv("REDIS_URL"),
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, "with-services:", err)
		return 1
	}
	code := command(ctx, stack, args)
	if err := stack.Stop(); err != nil {
		fmt.Fprintln(os.Stderr, "with-services:", err)
		return max(code, 1)
	}
	return code
}

// command runs the command to its end; an interrupt is passed on to it.
func command(ctx context.Context, stack *devstack.Stack, args []string) int {
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), "DATABASE_URL="+stack.DatabaseURL, "REDIS_URL="+stack.RedisURL)
	err := cmd.Run()
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit):
		return max(exit.ExitCode(), 1)
	default:
		fmt.Fprintln(os.Stderr, "with-services:", err)
		return 1
	}
}
