package app

import (
	"time"

	"github.com/sametick/sametick/pkg/auth"
	"github.com/sametick/sametick/pkg/config"
	"github.com/sametick/sametick/services/sse-gateway/internal/sse"
)

// Config is the environment of the service; the fields' tags say what each variable means.
type Config struct {
	config.Common
	config.HTTP
	config.GRPC
	config.Redis
	config.Internal
	RelayAddr       string        `env:"RELAY_ADDR" envDefault:"127.0.0.1:9091" help:"gRPC of outbox-relay, for what Redis no longer has" allowed:"host:port"`
	APIAddr         string        `env:"API_ADDR" help:"gRPC of api-gateway, where API keys are exchanged; without it only access tokens open a stream here" allowed:"host:port"`
	TokenPublicKeys string        `env:"TOKEN_PUBLIC_KEYS,required" help:"keys that access tokens are verified by" allowed:"kid:base64 entries, separated by commas"`
	Heartbeat       time.Duration `env:"HEARTBEAT_INTERVAL" envDefault:"30s" help:"interval of heartbeats" allowed:"100ms or more"`
	WriteTimeout    time.Duration `env:"WRITE_TIMEOUT" envDefault:"10s" help:"a stream whose client does not read for so long is ended" allowed:"100ms or more"`
	DrainPeriod     time.Duration `env:"DRAIN_PERIOD" envDefault:"5s" help:"how long the open streams take to end, one by one at random, after SIGTERM" allowed:"less than SHUTDOWN_GRACE"`
	Retry           time.Duration `env:"RETRY" envDefault:"2s" help:"after how long clients are told to reconnect, at least; up to half more" allowed:"1ms or more"`
	RingBytes       int           `env:"RING_BYTES" envDefault:"1048576" help:"bytes of an organisation's newest events kept in memory while it has streams" allowed:"65536 or more"`
	MaxPerOrg       int           `env:"MAX_STREAMS_PER_ORG" envDefault:"10000" help:"open streams an organisation may have on this replica" allowed:"1 or more"`
	MaxPerToken     int           `env:"MAX_STREAMS_PER_TOKEN" envDefault:"1000" help:"open streams a user or an API key may have on this replica" allowed:"1 or more"`
	CORSOrigins     string        `env:"CORS_ORIGINS" help:"web origins whose pages may read the stream; none but its own when empty" allowed:"* or https://app.example.com,…"`
}

// least are the smallest values that make sense.
const (
	leastInterval  = 100 * time.Millisecond
	leastRingBytes = 64 << 10
)

// Validate checks the service's own variables, and those of the parts.
func (c *Config) Validate() []config.Problem {
	var p []config.Problem
	check := func(ok bool, name, text string) {
		if !ok {
			p = append(p, config.Problem{Name: name, Text: text})
		}
	}
	check(c.Heartbeat >= leastInterval, "HEARTBEAT_INTERVAL", "is too short: want 100ms or more")
	check(c.WriteTimeout >= leastInterval, "WRITE_TIMEOUT", "is too short: want 100ms or more")
	check(c.DrainPeriod >= 0 && c.DrainPeriod < c.ShutdownGrace, "DRAIN_PERIOD", "is out of range: want 0s or more, and less than SHUTDOWN_GRACE")
	check(c.Retry >= time.Millisecond, "RETRY", "is too short: want 1ms or more")
	check(c.RingBytes >= leastRingBytes, "RING_BYTES", "is too small: want 65536 or more")
	check(c.MaxPerOrg > 0, "MAX_STREAMS_PER_ORG", "is too small: want 1 or more")
	check(c.MaxPerToken > 0, "MAX_STREAMS_PER_TOKEN", "is too small: want 1 or more")
	_, err := auth.NewVerifier(c.TokenPublicKeys)
	check(err == nil, "TOKEN_PUBLIC_KEYS", "is malformed: want kid:base64 entries of 32 bytes each, separated by commas")
	_, wrong := sse.ParseOrigins(c.CORSOrigins)
	check(wrong == "", "CORS_ORIGINS", "has an entry that is no origin: want * or scheme://host[:port], separated by commas")
	return p
}

func defaults() Config {
	var c Config
	c.HTTPAddr = ":8082"
	c.GRPCAddr = ":9092"
	c.OpsAddr = ":8092"
	c.ShutdownGrace = 15 * time.Second
	return c
}
