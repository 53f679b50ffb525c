// Command with-services runs a command with a Postgres and a Redis of its own: their URLs are in
// DATABASE_URL and REDIS_URL, unless these were set already. It exits with the command's code, or 128
// and the number of the signal that ended it.
//
//	go run ./deploy/dev/cmd/with-services -- go test ./...
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"syscall"

	"github.com/sametick/sametick/pkg/devstack"
	"github.com/sametick/sametick/pkg/pgtest"
)

func main() {
	os.Exit(run(os.Args[1:], os.Getenv, os.Stderr))
}

// interrupted is a shell's code for what Ctrl-C ended.
const interrupted = 128 + int(syscall.SIGINT)

func run(args []string, getenv func(string) string, stderr io.Writer) int {
	if len(args) > 0 && args[0] == "--" {
		args = args[1:]
	}
	if len(args) == 0 {
		_, _ = fmt.Fprintln(stderr, "usage: with-services -- COMMAND [ARGUMENT …]")
		return 2
	}
	wanted := []os.Signal{os.Interrupt, syscall.SIGTERM, syscall.SIGHUP}
	ctx, cancel := signal.NotifyContext(context.Background(), wanted...)
	defer cancel()
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, wanted...)
	defer signal.Stop(signals)

	var stack *devstack.Stack
	err := devstack.InScratch("services", func(dir string) (err error) {
		stack, err = devstack.Start(ctx, devstack.Options{
			Dir: dir, Settings: pgtest.FastSettings(), Fresh: true, Log: stderr,
			DatabaseURL: getenv("DATABASE_URL"), RedisURL: getenv("REDIS_URL"),
		})
		return err
	})
	if err != nil {
		_, _ = fmt.Fprintln(stderr, "with-services:", err)
		if ctx.Err() != nil {
			return interrupted
		}
		return 1
	}
	code := interrupted // before the command began
	if ctx.Err() == nil {
		code = command(stack, args, signals, stderr)
	}
	if err := stack.Stop(); err != nil {
		_, _ = fmt.Fprintln(stderr, "with-services:", err)
		return max(code, 1)
	}
	return code
}

// command runs the command to its end and passes signals on.
func command(stack *devstack.Stack, args []string, signals <-chan os.Signal, stderr io.Writer) int {
	cmd := exec.Command(args[0], args[1:]...) //nolint:noctx // what the user asks for; ended by its own decision
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), "DATABASE_URL="+stack.DatabaseURL, "REDIS_URL="+stack.RedisURL)
	if err := cmd.Start(); err != nil {
		_, _ = fmt.Fprintln(stderr, "with-services:", err)
		return 127
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	for {
		select {
		case s := <-signals:
			if s != os.Interrupt || !onTerminal() {
				_ = cmd.Process.Signal(s) // it may have ended
			}
		case err := <-ended:
			return exitCode(err, stderr)
		}
	}
}

// onTerminal: a terminal sends Ctrl-C to all of its foreground group, so the command has it already,
// and many take a second one for "at once".
func onTerminal() bool {
	tty, err := os.Open("/dev/tty")
	if err != nil {
		return false
	}
	return tty.Close() == nil
}

func exitCode(err error, stderr io.Writer) int {
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0
	case !errors.As(err, &exit):
		_, _ = fmt.Fprintln(stderr, "with-services:", err)
		return 1
	}
	if status, ok := exit.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		return 128 + int(status.Signal())
	}
	return exit.ExitCode()
}
