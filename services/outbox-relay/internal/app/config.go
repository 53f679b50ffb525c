package app

import (
	"time"

	"github.com/sametick/sametick/pkg/config"
)

// Config is the environment of the service; the fields' tags say what each variable means.
type Config struct {
	config.Common
	config.GRPC
	config.Postgres
	config.Redis
	config.Internal
	Pubsub          bool          `env:"PUBSUB" help:"also PUBLISH each event to the channel sametick:org:<org_id>" allowed:"true or false"`
	StreamRetention time.Duration `env:"STREAM_RETENTION" envDefault:"24h" help:"how long events stay in the Redis streams; older ones are read from Postgres" allowed:"1m or more"`
	EventRetention  time.Duration `env:"EVENT_RETENTION" envDefault:"0s" help:"how long events stay in Postgres, once every consumer has passed them" allowed:"0s for ever, or at least STREAM_RETENTION"`
	BatchEvents     int           `env:"BATCH_EVENTS" envDefault:"5000" help:"the most events that one claim takes" allowed:"1 to 50000"`
}

const maxBatchEvents = 50_000

// Validate checks the service's own variables, and those of the parts.
func (c *Config) Validate() []config.Problem {
	var p []config.Problem
	if c.StreamRetention < time.Minute {
		p = append(p, config.Problem{Name: "STREAM_RETENTION", Text: "is too short: want 1m or more"})
	}
	if c.EventRetention != 0 && c.EventRetention < c.StreamRetention {
		p = append(p, config.Problem{Name: "EVENT_RETENTION", Text: "is shorter than STREAM_RETENTION: want 0s, or at least as long"})
	}
	if c.BatchEvents < 1 || c.BatchEvents > maxBatchEvents {
		p = append(p, config.Problem{Name: "BATCH_EVENTS", Text: "is out of range: want 1 to 50000"})
	}
	return p
}

func defaults() Config {
	var c Config
	c.GRPCAddr = ":9091"
	c.OpsAddr = ":8091"
	c.ShutdownGrace = 15 * time.Second
	return c
}
