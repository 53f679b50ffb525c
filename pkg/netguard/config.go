package netguard

import (
	"net/url"
	"strings"

	"github.com/sametick/sametick/pkg/config"
)

// Config is a service that calls what strangers name.
type Config struct {
	EgressAllow []string      `env:"EGRESS_ALLOW" help:"networks, addresses and hosts that may be called though they are not public" allowed:"comma-separated, such as 10.1.0.0/16, receiver or *.corp.example"`
	EgressDeny  []string      `env:"EGRESS_DENY" help:"networks, addresses and hosts that may not be called, whatever else says" allowed:"as EGRESS_ALLOW"`
	EgressHTTP  bool          `env:"EGRESS_HTTP" help:"whether http may be called beside https"`
	EgressProxy config.Secret `env:"EGRESS_PROXY" help:"proxy that every call goes through (CONNECT); it must itself refuse what is not public" allowed:"http://[user:password@]host:port or https://"`
}

// Guard makes the guard. It does not fail once config.Load has validated.
func (c *Config) Guard() (*Guard, error) {
	o := Options{Allow: c.EgressAllow, Deny: c.EgressDeny, HTTP: c.EgressHTTP}
	if c.EgressProxy.Reveal() != "" {
		var err error
		if o.Proxy, err = url.Parse(c.EgressProxy.Reveal()); err != nil {
			o.Proxy = &url.URL{} // refused by New, without showing it
		}
	}
	return New(o)
}

// Validate refuses lists and proxies that are none.
func (c *Config) Validate() []config.Problem {
	var out []config.Problem
	for name, part := range map[string]Config{
		"EGRESS_ALLOW": {EgressAllow: c.EgressAllow}, "EGRESS_DENY": {EgressDeny: c.EgressDeny}, "EGRESS_PROXY": {EgressProxy: c.EgressProxy},
	} {
		if _, err := part.Guard(); err != nil {
			out = append(out, config.Problem{Name: name, Text: strings.TrimPrefix(err.Error(), "netguard: ")})
		}
	}
	return out
}
