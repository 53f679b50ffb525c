package rig

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"

	"github.com/jackc/pgx/v5"
	"github.com/redis/rueidis"

	"github.com/sametick/sametick/pkg/devstack"
)

// Servers are the private Postgres and Redis of a run. Postgres runs without fsync: it is the
// processes that crash here, never the machine.
type Servers struct {
	PostgresURL, RedisURL string

	mu       sync.Mutex // a server is in one pair of hands at a time
	postgres *devstack.Postgres
	redis    *devstack.Redis
}

// StartServers starts both with their data under dir.
func StartServers(ctx context.Context, dir string) (*Servers, error) {
	postgres, err := devstack.StartPostgres(ctx, devstack.PostgresOptions{
		Dir: filepath.Join(dir, "postgres"),
		Settings: map[string]string{
			"fsync": "off", "full_page_writes": "off", "deadlock_timeout": "200ms", "log_min_messages": "warning",
		},
	})
	if err != nil {
		return nil, err
	}
	redis, err := devstack.StartRedis(ctx, devstack.RedisOptions{Dir: filepath.Join(dir, "redis")})
	if err != nil {
		return nil, errors.Join(err, postgres.Stop())
	}
	return &Servers{PostgresURL: postgres.URL, RedisURL: redis.URL, postgres: postgres, redis: redis}, nil
}

// Stop ends both.
func (s *Servers) Stop() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	_ = s.redis.Continue() // it may not be stopped
	return errors.Join(s.redis.Stop(), s.postgres.Stop())
}

// CrashPostgres stops it at once (immediate mode), does between, and starts it again: it recovers
// from its log.
func (s *Servers) CrashPostgres(ctx context.Context, between func()) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.postgres.Kill(); err != nil {
		return err
	}
	between()
	return s.postgres.Start(ctx)
}

// CrashRedis kills it, does between, and starts it empty.
func (s *Servers) CrashRedis(ctx context.Context, between func()) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.redis.Kill(); err != nil {
		return err
	}
	between()
	return s.redis.Start(ctx)
}

// FreezeRedis stops it with SIGSTOP, does between, and lets it go on.
func (s *Servers) FreezeRedis(between func()) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.redis.Pause(); err != nil {
		return err
	}
	between()
	return s.redis.Continue()
}

// Postgres connects as superuser.
func (s *Servers) Postgres(ctx context.Context) (*pgx.Conn, error) {
	conn, err := pgx.Connect(ctx, s.PostgresURL)
	if err != nil {
		return nil, fmt.Errorf("connect to Postgres: %w", err)
	}
	return conn, nil
}

// Redis connects.
func (s *Servers) Redis() (rueidis.Client, error) {
	o, err := rueidis.ParseURL(s.RedisURL)
	if err != nil {
		return nil, fmt.Errorf("address of Redis: %w", err)
	}
	o.DisableCache = true
	o.ForceSingleClient = true
	client, err := rueidis.NewClient(o)
	if err != nil {
		return nil, fmt.Errorf("connect to Redis: %w", err)
	}
	return client, nil
}
