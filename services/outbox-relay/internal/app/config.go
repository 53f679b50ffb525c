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
	AuditSigningKey config.Secret `env:"AUDIT_SIGNING_KEY" help:"key that signs the heads of the audit log; one for each database; empty: nothing is sealed" allowed:"PRIVATE+KEY+name+id+base64, from outbox-relay audit-key"`
	AuditPublicKeys string        `env:"AUDIT_PUBLIC_KEYS" help:"public keys of heads that earlier signing keys have signed" allowed:"name+id+base64, several separated by commas"`
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
	if c.AuditSigningKey.Reveal() != "" {
		if _, _, err := c.auditKeys(); err != nil {
			p = append(p, config.Problem{Name: "AUDIT_SIGNING_KEY or AUDIT_PUBLIC_KEYS", Text: "(not shown) " + err.Error()})
		}
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
