package rig

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"

	"github.com/sametick/sametick/pkg/devstack"
)

// settings of Postgres, the same for everything that is measured. Commits sync, as they do in
// earnest. What would strike one round and not another is kept out of the rounds: checkpoints are
// made between them (see Settle), tables are vacuumed and analysed after they are filled.
func settings() map[string]string {
	return map[string]string{
		"fsync":              "on",
		"shared_buffers":     "1GB",
		"max_wal_size":       "32GB",
		"checkpoint_timeout": "1h",
		"autovacuum":         "off",
		"jit":                "off",
		// Where a bench reads back which statements a service sends; nothing else is logged.
		"logging_collector": "on",
		"log_min_messages":  "log", // LOG and worse
		"log_destination":   "csvlog",
		"log_directory":     "log",
		"log_filename":      "bench.log",
	}
}

// servers are always private ones, whatever DATABASE_URL says: a bench empties what it measures.
type servers struct {
	postgres *devstack.Postgres
	redis    *devstack.Redis
}

func startServers(ctx context.Context, dir string, log io.Writer) (*servers, error) {
	postgres, err := devstack.StartPostgres(ctx, devstack.PostgresOptions{
		Dir: filepath.Join(dir, "postgres"), Settings: settings(), Log: log,
	})
	if err != nil {
		return nil, fmt.Errorf("start Postgres: %w", err)
	}
	redis, err := devstack.StartRedis(ctx, devstack.RedisOptions{Dir: filepath.Join(dir, "redis"), Log: log})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("start Redis: %w", err), postgres.Stop())
	}
	return &servers{postgres: postgres, redis: redis}, nil
}

// postgresLog is where the server logs as CSV.
func postgresLog(dir string) string {
	return filepath.Join(dir, "postgres", "data", "log", "bench.csv")
}

func (s *servers) stop() error { return errors.Join(s.redis.Stop(), s.postgres.Stop()) }
