// Package app is the command line: its commands, their flags, and how answers are shown.
package app

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sametick/sametick/services/tick/internal/client"
)

// command is what all commands share.
type command struct {
	env            map[string]string
	stdout, stderr io.Writer
	url, token     string
	// localURL is what .dev/env says; tokenIsLocal that the token in env is from there as well.
	localURL     string
	tokenIsLocal bool
}

// Run executes one command line; it answers the exit code: 0 done, 1 failed, 130 interrupted.
func Run(ctx context.Context, args, environ []string, stdout, stderr io.Writer) int {
	c := &command{stdout: stdout, stderr: stderr}
	c.environment(environ)
	root := c.root()
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	switch {
	case err == nil:
		return 0
	case errors.Is(err, context.Canceled):
		return 130
	default:
		_, _ = fmt.Fprintln(stderr, "tick:", err)
		return 1
	}
}

func (c *command) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "tick",
		Short: "Sametick's command line",
		Long: `Sametick's command line.

It talks to the API at SAMETICK_URL with SAMETICK_TOKEN; below a checkout where
the suite has run, both come from .dev/env.`,
		SilenceUsage: true, SilenceErrors: true,
	}
	root.PersistentFlags().StringVar(&c.url, "url", "", "address of the API (SAMETICK_URL)")
	root.PersistentFlags().StringVar(&c.token, "token", "", "access token or API key (SAMETICK_TOKEN)")
	root.AddCommand(c.tail(), c.emit(), c.importCmd(), c.audit(), c.relay(), c.listen(), c.redeliver())
	return root
}

// api gives the client, or says what is missing.
func (c *command) api() (*client.Client, error) {
	url, token := c.url, c.token
	if url == "" {
		url = c.env["SAMETICK_URL"]
	}
	// A token that lies in .dev/env is for the suite that lies there, and goes to no other address.
	if token == "" && (!c.tokenIsLocal || url == c.localURL) {
		token = c.env["SAMETICK_TOKEN"]
	}
	if url == "" || token == "" {
		return nil, errors.New("where to, and as whom? Set SAMETICK_URL and SAMETICK_TOKEN, or --url and --token, or run it in a checkout where `make up` has run")
	}
	if !strings.Contains(url, "://") {
		return nil, fmt.Errorf("the URL %q has no scheme: write http://%s", url, url)
	}
	return client.New(url, token), nil
}

// environment takes the process' environment over what the nearest .dev/env says.
func (c *command) environment(environ []string) {
	c.env = map[string]string{}
	if dir, err := os.Getwd(); err == nil {
		for ; ; dir = filepath.Dir(dir) {
			if readEnv(filepath.Join(dir, ".dev", "env"), c.env) || dir == filepath.Dir(dir) {
				break
			}
		}
	}
	c.localURL, c.tokenIsLocal = c.env["SAMETICK_URL"], c.env["SAMETICK_TOKEN"] != ""
	for _, line := range environ {
		if name, value, ok := strings.Cut(line, "="); ok && value != "" {
			c.env[name] = value
			c.tokenIsLocal = c.tokenIsLocal && name != "SAMETICK_TOKEN"
		}
	}
}

// readEnv reads lines of the form export NAME='value', as the suite writes them.
func readEnv(file string, env map[string]string) bool {
	f, err := os.Open(file)
	if err != nil {
		return false
	}
	defer func() { _ = f.Close() }()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		name, value, ok := strings.Cut(strings.TrimPrefix(lines.Text(), "export "), "=")
		if ok {
			env[name] = strings.Trim(value, "'")
		}
	}
	return true
}
