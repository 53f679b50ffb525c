package config_test

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sametick/sametick/pkg/config"
)

type relay struct {
	config.Common
	config.GRPC
	config.Postgres
	config.Redis
	config.Internal
	Poll      time.Duration `env:"POLL" envDefault:"1ms" help:"poll interval"`
	BatchSize int           `env:"BATCH_SIZE" help:"rows a poll" allowed:"1 to 10000"`
	Origins   []string      `env:"ORIGINS" help:"allowed origins"`
	PubSub    bool          `env:"PUBSUB" help:"also PUBLISH"`
}

func (r *relay) Validate() []config.Problem {
	if r.BatchSize < 1 || r.BatchSize > 10000 {
		return []config.Problem{{Name: "BATCH_SIZE", Text: "want 1 to 10000"}}
	}
	return nil
}

func defaults() relay {
	return relay{
		Common: config.Common{OpsAddr: ":8091", DrainDelay: time.Second}, GRPC: config.GRPC{GRPCAddr: ":9091"},
		BatchSize: 1000, Origins: []string{"a", "b"},
	}
}

func env(m map[string]string) func(string) string { return func(k string) string { return m[k] } }

func good() map[string]string {
	return map[string]string{
		"DATABASE_URL": "postgres://u:hunter2@h/db", "REDIS_URL": "redis://h:6379", "INTERNAL_TOKEN": "0123456789abcdef",
	}
}

func TestDefaultsAndOverrides(t *testing.T) {
	c := defaults()
	e := good()
	e["LOG_LEVEL"], e["BATCH_SIZE"], e["OPS_ADDR"], e["POLL"] = "debug", "7", ":1", "" // empty: unset
	require.NoError(t, config.Load(&c, env(e)))
	require.Equal(t, ":1", c.OpsAddr)
	require.Equal(t, ":9091", c.GRPCAddr)
	require.Equal(t, slog.LevelDebug, c.LogLevel)
	require.Equal(t, 7, c.BatchSize)
	require.Equal(t, []string{"a", "b"}, c.Origins)
	require.Equal(t, time.Millisecond, c.Poll)
	require.Equal(t, 25*time.Second, c.ShutdownGrace)
	require.Equal(t, time.Second, c.DrainDelay, "the service's default goes before the tag's")
	require.Equal(t, "postgres://u:hunter2@h/db", c.DatabaseURL.Reveal())
}

func TestAllProblemsAtOnce(t *testing.T) {
	c := defaults()
	err := config.Load(&c, env(map[string]string{
		"REDIS_URL": "redis://h", "INTERNAL_TOKEN": "x", "POLL": "soon", "BATCH_SIZE": "many", "LOG_LEVEL": "loud", "PUBSUB": "2",
	}))
	require.Equal(t, `configuration:
  LOG_LEVEL is "loud": want debug, info, warn or error
  DATABASE_URL is not set: want postgres://user:password@host:port/database
  POLL is "soon": want a duration such as 500ms, 30s or 24h
  BATCH_SIZE is "many": want 1 to 10000
  PUBSUB is "2": want true or false`, err.Error())
	require.Equal(t, defaults(), c, "a failed Load changes nothing")
}

func TestRules(t *testing.T) {
	c := defaults()
	err := config.Load(&c, env(map[string]string{
		"DATABASE_URL": "mysql://u:hunter2@h", "REDIS_URL": "::hunter2", "INTERNAL_TOKEN": "hunter2", "BATCH_SIZE": "0", "DRAIN_DELAY": "-1s",
	}))
	var all *config.Error
	require.ErrorAs(t, err, &all)
	var names []string
	for _, p := range all.Problems {
		names = append(names, p.Name)
	}
	require.ElementsMatch(t, []string{"DATABASE_URL", "REDIS_URL", "INTERNAL_TOKEN", "BATCH_SIZE", "DRAIN_DELAY"}, names)
	require.NotContains(t, err.Error(), "hunter2")
}

func TestSecretsAreNeverPrinted(t *testing.T) {
	c := defaults()
	require.NoError(t, config.Load(&c, env(good())))
	js, err := json.Marshal(c)
	require.NoError(t, err)
	for _, s := range []string{
		fmt.Sprint(c), fmt.Sprintf("%+v", c), fmt.Sprintf("%#v", c), fmt.Sprintf("%s %q", c.DatabaseURL, c.DatabaseURL), string(js), config.Help("relay", &c),
		slog.AnyValue(c.DatabaseURL).Resolve().String(),
	} {
		require.NotContains(t, s, "hunter2")
	}
}

func TestHelp(t *testing.T) {
	c := defaults()
	h := config.Help("outbox-relay", &c)
	for _, want := range []string{
		`OPS_ADDR\s+:8091\s+address of /healthz`, `LOG_LEVEL\s+INFO\s+`, `DATABASE_URL\s+\(required\)\s+PostgreSQL 14`,
		`POLL\s+1ms\s+poll interval`, `BATCH_SIZE\s+1000\s+rows a poll \(1 to 10000\)`, `ORIGINS\s+a,b\s+`, `PUBSUB\s+-\s+also PUBLISH`,
	} {
		require.Regexp(t, want, h)
	}
}

func TestLoadWantsAPointer(t *testing.T) {
	require.Error(t, config.Load(defaults(), env(nil)))
}
