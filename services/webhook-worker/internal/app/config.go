package app

import (
	"time"

	"github.com/sametick/sametick/pkg/config"
	"github.com/sametick/sametick/pkg/keyring"
	"github.com/sametick/sametick/pkg/netguard"
)

// Config is the environment of the service; the fields' tags say what each variable means.
type Config struct {
	config.Common
	config.GRPC
	config.Postgres
	config.Redis
	config.Internal
	Keys             keyring.Config
	Egress           netguard.Config
	RelayAddr        string        `env:"RELAY_ADDR" envDefault:"127.0.0.1:9091" help:"gRPC of outbox-relay: for what Redis no longer has, and to wake it" allowed:"host:port"`
	AttemptTimeout   time.Duration `env:"ATTEMPT_TIMEOUT" envDefault:"15s" help:"how long an attempt may take whole: connecting, TLS, request and answer" allowed:"1s or more"`
	LeaseTTL         time.Duration `env:"LEASE_TTL" envDefault:"30s" help:"how long a crashed replica's share waits for another one" allowed:"at least 1.5 times ATTEMPT_TIMEOUT and 3s"`
	CAFile           string        `env:"WEBHOOK_CA_FILE" help:"certificates of authorities that receivers are believed by, beside the system's" allowed:"path of a PEM file"`
	AttemptRetention time.Duration `env:"ATTEMPT_RETENTION" envDefault:"720h" help:"how long the history of attempts is kept, in whole days" allowed:"0s for ever, or 24h or more"`
	PerEndpoint      int           `env:"MAX_IN_FLIGHT_PER_ENDPOINT" envDefault:"32" help:"attempts under way at an endpoint; it begins with 1 and each success allows one more" allowed:"1 or more"`
	PerOrg           int           `env:"MAX_IN_FLIGHT_PER_ORG" envDefault:"512" help:"attempts under way at the endpoints of an organisation" allowed:"1 or more"`
	InAll            int           `env:"MAX_IN_FLIGHT" envDefault:"2048" help:"attempts under way of this replica" allowed:"1 or more"`
	EventMemory      int64         `env:"EVENT_MEMORY" envDefault:"134217728" help:"bytes of events held in memory to be sent; the others wait in Postgres" allowed:"1048576 or more"`
	MaxEndpoints     int           `env:"MAX_ENDPOINTS_PER_ORG" envDefault:"20000" help:"endpoints an organisation may have, archived ones apart" allowed:"1 or more"`
}

// margin is how much longer than an attempt a lease must still last for one to begin.
const margin = 2 * time.Second

// Validate checks the service's own variables, and those of the parts.
func (c *Config) Validate() []config.Problem {
	var p []config.Problem
	check := func(ok bool, name, text string) {
		if !ok {
			p = append(p, config.Problem{Name: name, Text: text})
		}
	}
	if _, err := roots(c.CAFile); err != nil {
		check(false, "WEBHOOK_CA_FILE", "cannot be used: "+err.Error())
	}
	check(c.AttemptTimeout >= time.Second, "ATTEMPT_TIMEOUT", "is too short: want 1s or more")
	// A lease is renewed after a third of its time; what is left then must be enough for an attempt.
	check(c.LeaseTTL*2/3 >= c.AttemptTimeout+margin, "LEASE_TTL", "is too short: want at least 1.5 times ATTEMPT_TIMEOUT and 3s, else nothing could be sent")
	check(c.AttemptRetention == 0 || c.AttemptRetention >= 24*time.Hour, "ATTEMPT_RETENTION", "is too short: want 0s, or 24h or more")
	check(c.PerEndpoint > 0, "MAX_IN_FLIGHT_PER_ENDPOINT", "is too small: want 1 or more")
	check(c.PerOrg > 0, "MAX_IN_FLIGHT_PER_ORG", "is too small: want 1 or more")
	check(c.InAll > 0, "MAX_IN_FLIGHT", "is too small: want 1 or more")
	check(c.EventMemory >= 1<<20, "EVENT_MEMORY", "is too small: want 1048576 or more")
	check(c.MaxEndpoints > 0, "MAX_ENDPOINTS_PER_ORG", "is too small: want 1 or more")
	return p
}

func defaults() Config {
	var c Config
	c.GRPCAddr = ":9093"
	c.OpsAddr = ":8093"
	c.ShutdownGrace = 25 * time.Second
	return c
}
