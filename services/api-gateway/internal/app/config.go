// Package app puts api-gateway together: configuration, subcommands and the components of the process.
// It is the only package that sees all the others, and has no rules of its own.
package app

import (
	"net/netip"
	"net/url"
	"time"

	"github.com/sametick/sametick/pkg/auth"
	"github.com/sametick/sametick/pkg/config"
)

// Config is the environment of `api-gateway`.
type Config struct {
	config.Common
	config.HTTP
	config.GRPC
	config.Postgres
	config.Internal
	DatabaseMaxConns int32          `env:"DATABASE_MAX_CONNS" help:"most connections to the database" allowed:"1 to 1000"`
	RelayAddr        string         `env:"RELAY_ADDR" help:"gRPC address of outbox-relay" allowed:"host:port"`
	WebhookAddr      string         `env:"WEBHOOK_ADDR" help:"gRPC address of webhook-worker" allowed:"host:port"`
	PromptAddr       string         `env:"PROMPT_ADDR" help:"gRPC address of prompt-worker, which reviews writes" allowed:"host:port"`
	PublicURL        string         `env:"PUBLIC_URL" help:"address under which browsers reach the REST API, for the links that it gives; by default the one that a call came to" allowed:"https://api.example.com"`
	SSEURL           string         `env:"SSE_URL" help:"HTTP address of sse-gateway" allowed:"http://host:port"`
	StreamSilence    time.Duration  `env:"STREAM_SILENCE" help:"an event stream on which sse-gateway sends nothing for so long, not even a heartbeat, is ended" allowed:"1s or more, and more than sse-gateway's HEARTBEAT_INTERVAL"`
	SigningKey       config.Secret  `env:"TOKEN_SIGNING_KEY,required" help:"key that signs access tokens" allowed:"kid:base64 of an Ed25519 seed of 32 bytes"`
	PublicKeys       string         `env:"TOKEN_PUBLIC_KEYS,required" help:"keys that verify access tokens" allowed:"kid:base64 of an Ed25519 public key, several separated by commas"`
	AccessTTL        time.Duration  `env:"ACCESS_TOKEN_TTL" envDefault:"1h" help:"life of an access token"`
	RefreshTTL       time.Duration  `env:"REFRESH_TOKEN_TTL" envDefault:"720h" help:"life of a refresh token"`
	InvitationTTL    time.Duration  `env:"INVITATION_TTL" envDefault:"168h" help:"life of an invitation"`
	ResetTTL         time.Duration  `env:"PASSWORD_RESET_TTL" envDefault:"1h" help:"life of a token that resets a password"`
	OIDCIssuer       string         `env:"OIDC_ISSUER" help:"OpenID Connect issuer whose tokens are accepted beside the suite's own" allowed:"https://id.example.com"`
	OIDCAudience     string         `env:"OIDC_AUDIENCE" help:"audience that such a token must be for"`
	OIDCOrg          int64          `env:"OIDC_ORG" help:"id of the organisation whose users the issuer vouches for"`
	RedisURL         config.Secret  `env:"REDIS_URL" help:"Redis 7 or newer, or Valkey, where rate limits are kept" allowed:"redis://[user:password@]host:port[/db], or rediss:// for TLS"`
	RateLimitOrg     int            `env:"RATE_LIMIT_ORG" envDefault:"10000" help:"calls per second of an organisation, and twice as many at once; 0 for no limit" allowed:"0 to 1000000"`
	RateLimitCaller  int            `env:"RATE_LIMIT_CALLER" envDefault:"5000" help:"the same of each user and API key" allowed:"0 to 1000000"`
	RateLimitTimeout time.Duration  `env:"RATE_LIMIT_TIMEOUT" envDefault:"50ms" help:"how long a call waits for Redis to count it; then it passes uncounted"`
	CORSOrigins      []string       `env:"CORS_ORIGINS" help:"web origins whose pages may call the API" allowed:"* or https://app.example.com, several separated by commas"`
	TrustedProxies   []netip.Prefix `env:"TRUSTED_PROXIES" help:"networks whose X-Forwarded-For is believed" allowed:"CIDR, several separated by commas"`
}

// maxAccessTTL bounds the life of access tokens.
const maxAccessTTL = 24 * time.Hour

func defaults() Config {
	c := Config{DatabaseMaxConns: 20, RelayAddr: "127.0.0.1:9091", PromptAddr: "127.0.0.1:9094", WebhookAddr: "127.0.0.1:9093", SSEURL: "http://127.0.0.1:8082",
		StreamSilence: 90 * time.Second}
	c.HTTPAddr, c.GRPCAddr, c.OpsAddr = ":8080", ":9090", ":8090"
	c.ShutdownGrace = 15 * time.Second
	return c
}

// Validate finds what does not parse.
func (c *Config) Validate() []config.Problem {
	var problems []config.Problem
	add := func(name, text string) { problems = append(problems, config.Problem{Name: name, Text: text}) }
	for _, part := range []interface{ Validate() []config.Problem }{&c.Common, &c.Postgres, &c.Internal} {
		problems = append(problems, part.Validate()...)
	}
	if c.DatabaseMaxConns < 1 || c.DatabaseMaxConns > 1000 {
		add("DATABASE_MAX_CONNS", "want 1 to 1000")
	}
	if u, err := url.Parse(c.SSEURL); err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" {
		add("SSE_URL", "want http://host:port")
	}
	if u, err := url.Parse(c.PublicURL); c.PublicURL != "" && (err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" ||
		u.User != nil || u.RawQuery != "" || u.Fragment != "") {
		add("PUBLIC_URL", "want https://host[:port][/path]")
	}
	if c.StreamSilence < time.Second {
		add("STREAM_SILENCE", "want 1s or more")
	}
	if _, err := auth.ParseSigner(c.SigningKey.Reveal()); err != nil {
		add("TOKEN_SIGNING_KEY", "(not shown) want kid:base64 of an Ed25519 seed of 32 bytes")
	}
	if _, err := auth.NewVerifier(c.PublicKeys); err != nil {
		add("TOKEN_PUBLIC_KEYS", err.Error())
	}
	if c.AccessTTL < time.Minute {
		add("ACCESS_TOKEN_TTL", "want 1m or more")
	}
	if c.AccessTTL > maxAccessTTL {
		add("ACCESS_TOKEN_TTL", "want 24h or less: that is how long sse-gateway remembers what was revoked")
	}
	if c.InvitationTTL <= 0 {
		add("INVITATION_TTL", "want more than 0s")
	}
	if c.ResetTTL <= 0 {
		add("PASSWORD_RESET_TTL", "want more than 0s")
	}
	if set := c.OIDCIssuer != ""; set != (c.OIDCAudience != "") || set != (c.OIDCOrg > 0) {
		add("OIDC_ISSUER", "want OIDC_ISSUER, OIDC_AUDIENCE and OIDC_ORG together, or none of them")
	}
	if c.OIDCIssuer != "" && !trustedAddress(c.OIDCIssuer) {
		add("OIDC_ISSUER", "want the issuer's https:// address; http:// of this host alone")
	}
	problems = append(problems, c.checkLimits()...)
	if c.RefreshTTL < c.AccessTTL {
		add("REFRESH_TOKEN_TTL", "want no less than ACCESS_TOKEN_TTL")
	}
	return problems
}

// maxRate bounds the rates of calls.
const maxRate = 1_000_000

// checkLimits also refuses limits that nothing could keep.
func (c *Config) checkLimits() (problems []config.Problem) {
	limited := false
	for name, rate := range map[string]int{"RATE_LIMIT_ORG": c.RateLimitOrg, "RATE_LIMIT_CALLER": c.RateLimitCaller} {
		if rate < 0 || rate > maxRate {
			problems = append(problems, config.Problem{Name: name, Text: "want 0 to 1000000"})
		}
		limited = limited || rate > 0
	}
	if c.RateLimitTimeout < 0 {
		problems = append(problems, config.Problem{Name: "RATE_LIMIT_TIMEOUT", Text: "is negative: want more than 0s"})
	}
	if limited && c.RedisURL.Reveal() == "" {
		return append(problems, config.Problem{Name: "REDIS_URL", Text: "is not set: rate limits are kept there; set it, or RATE_LIMIT_ORG and RATE_LIMIT_CALLER to 0"})
	}
	if limited {
		problems = append(problems, (&config.Redis{RedisURL: c.RedisURL}).Validate()...)
	}
	return problems
}

// trustedAddress tells whether nobody can change what an address answers on its way.
func trustedAddress(text string) bool {
	u, err := url.Parse(text)
	if err != nil || u.Host == "" {
		return false
	}
	ip, err := netip.ParseAddr(u.Hostname())
	return u.Scheme == "https" || u.Scheme == "http" && (u.Hostname() == "localhost" || err == nil && ip.IsLoopback())
}
