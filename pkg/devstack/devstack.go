// Package devstack runs a private Postgres and Redis for development and tests on a machine where
// nothing is configured: as processes of the caller, in a directory of the caller's, on loopback,
// behind a generated password. They end with the caller, even when it is killed. The servers' programs
// are found on the machine, else run by Docker, else installed by the system's package manager, else
// the error names the command to run.
//
// Only tests, deploy/ and pkg/pgtest and pkg/redistest import it; no service does.
package devstack

import (
	"context"
	"errors"
	"io"
	"path/filepath"
)

// Options says where a stack lives and what it takes from the environment.
type Options struct {
	// Dir holds the data and survives the stack: the next Start goes on with it.
	Dir string
	// Settings and Fresh are Postgres', see PostgresOptions.
	Settings map[string]string
	Fresh    bool
	// DatabaseURL and RedisURL, when set, name servers to use instead of starting them.
	DatabaseURL, RedisURL string
	// Log gets one line for each thing that takes time; nil discards them.
	Log io.Writer
}

// Stack is a running Postgres and Redis.
type Stack struct {
	// DatabaseURL has a superuser, RedisURL database 0.
	DatabaseURL, RedisURL string

	postgres *Postgres
	redis    *Redis
}

// Start starts what the options do not name. It is for one process at a time per Dir: a second one gets
// ErrInUse, with the first one's pid.
func Start(ctx context.Context, o Options) (*Stack, error) {
	if o.Log == nil {
		o.Log = io.Discard
	}
	s := &Stack{DatabaseURL: o.DatabaseURL, RedisURL: o.RedisURL}
	if s.DatabaseURL == "" {
		p, err := StartPostgres(ctx, PostgresOptions{Dir: filepath.Join(o.Dir, "postgres"), Settings: o.Settings, Fresh: o.Fresh, Log: o.Log})
		if err != nil {
			return nil, err
		}
		s.postgres, s.DatabaseURL = p, p.URL
	}
	if s.RedisURL == "" {
		r, err := StartRedis(ctx, RedisOptions{Dir: filepath.Join(o.Dir, "redis"), Log: o.Log})
		if err != nil {
			return nil, errors.Join(err, s.Stop())
		}
		s.redis, s.RedisURL = r, r.URL
	}
	return s, nil
}

// Stop ends what Start started and waits for it: Redis first, then Postgres with a fast shutdown.
func (s *Stack) Stop() error {
	var errs []error
	if s.redis != nil {
		errs = append(errs, s.redis.Stop())
	}
	if s.postgres != nil {
		errs = append(errs, s.postgres.Stop())
	}
	return errors.Join(errs...)
}
