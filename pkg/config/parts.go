package config

import (
	"log/slog"
	"net/url"
	"strings"
	"time"
)

// Secret is a value that no log, trace, error or --help shows.
type Secret struct{ value string }

// NewSecret hides value.
func NewSecret(value string) Secret { return Secret{value} }

// Reveal gives the value to the one who needs it.
func (s Secret) Reveal() string { return s.value }

// String hides the value.
func (s Secret) String() string {
	if s.value == "" {
		return ""
	}
	return "[hidden]"
}

// GoString hides the value from %#v.
func (s Secret) GoString() string { return s.String() }

// LogValue hides the value from slog.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.String()) }

// MarshalText hides the value from JSON and friends.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText takes the value from the environment.
func (s *Secret) UnmarshalText(b []byte) error { s.value = string(b); return nil }

// Common is what every service has.
type Common struct {
	OpsAddr       string        `env:"OPS_ADDR" help:"address of /healthz, /readyz, /metrics and /debug/pprof" allowed:"host:port, or :port for all addresses"`
	LogLevel      slog.Level    `env:"LOG_LEVEL" envDefault:"INFO" help:"least level that is logged" allowed:"debug, info, warn or error"`
	DrainDelay    time.Duration `env:"DRAIN_DELAY" envDefault:"0s" help:"how long after SIGTERM the service goes on taking work while /readyz already fails"`
	ShutdownGrace time.Duration `env:"SHUTDOWN_GRACE" envDefault:"25s" help:"how long work in hand may take after that"`
}

// Validate refuses negative times.
func (c *Common) Validate() []Problem {
	var p []Problem
	if c.DrainDelay < 0 {
		p = append(p, Problem{"DRAIN_DELAY", "is negative: want 0s or more"})
	}
	if c.ShutdownGrace < 0 {
		p = append(p, Problem{"SHUTDOWN_GRACE", "is negative: want 0s or more"})
	}
	return p
}

// HTTP is a service with an HTTP port.
type HTTP struct {
	HTTPAddr string `env:"HTTP_ADDR" help:"address of HTTP" allowed:"host:port, or :port for all addresses"`
}

// GRPC is a service with a gRPC port.
type GRPC struct {
	GRPCAddr string `env:"GRPC_ADDR" help:"address of gRPC" allowed:"host:port, or :port for all addresses"`
}

// Internal is a service that calls, or is called by, its siblings.
type Internal struct {
	InternalToken Secret `env:"INTERNAL_TOKEN,required" help:"secret the services know each other by, the same for all of them" allowed:"16 characters or more, e.g. from openssl rand -hex 32"`
}

// Validate refuses a token short enough to guess.
func (c *Internal) Validate() []Problem {
	if len(c.InternalToken.value) < 16 {
		return []Problem{{"INTERNAL_TOKEN", "is too short: want 16 characters or more"}}
	}
	return nil
}

// Postgres is a service with a database.
type Postgres struct {
	DatabaseURL Secret `env:"DATABASE_URL,required" help:"PostgreSQL 14 or newer" allowed:"postgres://user:password@host:port/database"`
	// PgBouncer-like proxies give another connection per transaction.
	DatabasePooled bool `env:"DATABASE_POOLED" envDefault:"false" help:"true behind a transaction-pooling proxy such as PgBouncer: no prepared statements"`
}

// Validate refuses what is no URL of Postgres, without showing it.
func (c *Postgres) Validate() []Problem {
	return checkURL("DATABASE_URL", c.DatabaseURL, "postgres", "postgresql")
}

// Redis is a service with Redis.
type Redis struct {
	RedisURL Secret `env:"REDIS_URL,required" help:"Redis 7 or newer, or Valkey" allowed:"redis://[user:password@]host:port[/db], or rediss:// for TLS"`
}

// Validate refuses what is no URL of Redis, without showing it.
func (c *Redis) Validate() []Problem {
	return checkURL("REDIS_URL", c.RedisURL, "redis", "rediss", "unix")
}

func checkURL(name string, s Secret, schemes ...string) []Problem {
	u, err := url.Parse(s.value)
	if err == nil {
		for _, scheme := range schemes {
			if u.Scheme == scheme {
				return nil
			}
		}
	}
	return []Problem{{name, "(not shown) does not begin with " + strings.Join(schemes, ":// or ") + "://"}}
}
