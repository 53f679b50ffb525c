// Package suite runs the whole of Sametick on one machine: Postgres and Redis (pkg/devstack), the
// migrations, a demo organisation and every service as a process of its own. `make up` is its
// command; the end-to-end tests and the benches start the same thing on free ports.
package suite

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"

	"github.com/sametick/sametick/pkg/devstack"
)

// Options of Up.
type Options struct {
	// Root is the checkout that services are built from.
	Root string
	// Dir keeps everything that survives: data, secrets, logs. Root/.dev for `make up`.
	Dir string
	// Ports gives each service its ports; DefaultPorts for `make up`, FreePorts for tests.
	Ports map[string]Ports
	// Getenv reads DATABASE_URL, REDIS_URL and LOG_LEVEL.
	Getenv func(string) string
	// Settings of a private Postgres.
	Settings map[string]string
	// BinDir has the services' binaries; empty means that Up builds them into Dir/bin.
	BinDir string
	// Extra is environment for a service, by its name, over what the suite sets.
	Extra map[string][]string
	// Log tells a person what is going on, in lines; nil discards it.
	Log io.Writer
}

// Suite is a running Sametick. Its methods are for one goroutine.
type Suite struct {
	// URL is api-gateway's, Token a demo API key with every scope.
	URL, Token string
	// DatabaseURL has the superuser (or the user of the environment's DATABASE_URL).
	DatabaseURL, RedisURL string
	// Secrets are what the services share.
	Secrets Secrets

	o        Options
	lock     *os.File
	stack    *devstack.Stack
	services []*service
	died     chan *service
}

// Up starts everything and waits until it is ready. What it started is stopped again when it fails;
// its errors say what to do.
func Up(ctx context.Context, o Options) (_ *Suite, err error) {
	if o.Log == nil {
		o.Log = io.Discard
	}
	s := &Suite{o: o, died: make(chan *service, len(Names()))}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Down())
		}
	}()
	for _, step := range []func(context.Context) error{
		s.takeDir, s.checkPorts, s.loadSecrets, s.build, s.startStores, s.migrate, s.bootstrap, s.startServices, s.writeEnv,
	} {
		if err := step(ctx); err != nil {
			return nil, err
		}
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
	}
	return s, nil
}

// Died gives the name and last words of a service that ended by itself; nil error never.
func (s *Suite) Died(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case dead := <-s.died:
		return fmt.Errorf("%s ended: %w\n%s", dead.name, dead.exit(), dead.log.last())
	}
}

// Down stops the services in the reverse order of their start, each with SIGTERM so that it drains,
// then the stores. It may be called on a suite that is half up, and twice.
func (s *Suite) Down() error {
	var errs []error
	for _, svc := range slices.Backward(s.services) {
		errs = append(errs, svc.stop())
	}
	s.services = nil
	if s.stack != nil {
		errs = append(errs, s.stack.Stop())
		s.stack = nil
	}
	if s.lock != nil {
		errs = append(errs, s.lock.Close())
		s.lock = nil
	}
	return errors.Join(errs...)
}

// takeDir makes the directory and holds it: two suites on the same data would fight for it.
func (s *Suite) takeDir(context.Context) error {
	if err := os.MkdirAll(filepath.Join(s.o.Dir, "log"), 0o755); err != nil {
		return fmt.Errorf("cannot make %s: %w: make the checkout writable, or free space", s.o.Dir, err)
	}
	name := filepath.Join(s.o.Dir, "lock")
	f, err := os.OpenFile(name, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return fmt.Errorf("cannot write to %s: %w: make it writable, or free space", s.o.Dir, err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		pid, _ := io.ReadAll(f)
		_ = f.Close()
		return fmt.Errorf("the suite already runs here, as process %s: use it (`source %s`), or stop it with Ctrl-C there",
			pid, filepath.Join(s.o.Dir, "env"))
	}
	s.lock = f
	if err := f.Truncate(0); err != nil {
		return fmt.Errorf("cannot write to %s: %w: free space", s.o.Dir, err)
	}
	if _, err := fmt.Fprintf(f, "%d", os.Getpid()); err != nil {
		return fmt.Errorf("cannot write to %s: %w: free space", s.o.Dir, err)
	}
	return nil
}

// foreign reads the URL of a store that somebody else runs. One that a shell has sourced from our own env
// file names the private server, which we have to start.
func (s *Suite) foreign(name, own string) string {
	if url := s.getenv(name); url != own {
		return url
	}
	return ""
}

func (s *Suite) startStores(ctx context.Context) error {
	databaseURL, redisURL := s.foreign("DATABASE_URL", s.Secrets.OwnDatabaseURL), s.foreign("REDIS_URL", s.Secrets.OwnRedisURL)
	stack, err := devstack.Start(ctx, devstack.Options{
		Dir: s.o.Dir, Settings: s.o.Settings, Log: s.o.Log,
		DatabaseURL: databaseURL, RedisURL: redisURL,
	})
	if err != nil {
		return err
	}
	s.stack, s.DatabaseURL, s.RedisURL = stack, stack.DatabaseURL, stack.RedisURL
	if databaseURL == "" {
		s.Secrets.OwnDatabaseURL = s.DatabaseURL
	}
	if redisURL == "" {
		s.Secrets.OwnRedisURL = s.RedisURL
	}
	return s.saveSecrets()
}

// migrate runs the owners' migrations as the superuser, then lets the services' roles in.
func (s *Suite) migrate(ctx context.Context) error {
	s.say("migrating the database")
	for _, name := range []string{"outbox-relay", "api-gateway", "webhook-worker", "prompt-worker"} {
		if _, err := s.runOnce(ctx, name, s.DatabaseURL, "migrate"); err != nil {
			return err
		}
	}
	return s.setRolePasswords(ctx)
}

// bootstrap makes the demo organisation, once per database.
func (s *Suite) bootstrap(ctx context.Context) error {
	out, err := s.runOnce(ctx, "api-gateway", s.roleURL("sametick_api"), "bootstrap",
		"--org", "Demo", "--email", s.Secrets.Email, "--password-env", "SAMETICK_DEMO_PASSWORD")
	if err != nil {
		return err
	}
	var made struct {
		APIKey string `json:"api_key"`
	}
	if err := json.Unmarshal(out, &made); err != nil {
		return fmt.Errorf("api-gateway bootstrap answered %q: %w", out, err)
	}
	if made.APIKey != "" {
		s.Secrets.APIKey = made.APIKey
		if err := s.saveSecrets(); err != nil {
			return err
		}
	}
	if s.Secrets.APIKey == "" {
		return fmt.Errorf("this database has the demo user %s already, but %s does not know its API key: use another database, or restore that file",
			s.Secrets.Email, s.secretsFile())
	}
	s.Token = s.Secrets.APIKey
	return nil
}

// runOnce runs a subcommand of a service to its end and gives its standard output.
func (s *Suite) runOnce(ctx context.Context, name, databaseURL string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, s.binary(name), args...)
	cmd.Env = append(s.environment(name), "DATABASE_URL="+databaseURL, "SAMETICK_DEMO_PASSWORD="+s.Secrets.Password)
	out, err := cmd.Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return nil, fmt.Errorf("%s %s: %w: %s", name, args[0], err, readable(lastLines(exit.Stderr, 5)))
	}
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", name, args[0], err)
	}
	return out, nil
}

func (s *Suite) getenv(name string) string {
	if s.o.Getenv == nil {
		return ""
	}
	return s.o.Getenv(name)
}

func (s *Suite) say(format string, args ...any) { _, _ = fmt.Fprintf(s.o.Log, format+"\n", args...) }
