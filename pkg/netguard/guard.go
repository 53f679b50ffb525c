// Package netguard lets a service call addresses that strangers name without reaching what only the service can
// reach. What decides is the address at dial time, after the name is resolved: so no name, redirect or change of DNS
// gets past it. CheckURL says early what would be refused later.
package netguard

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"strings"
	"time"
)

// Refused is why a URL, name or address may not be called. It shows no address that the caller did not write.
type Refused struct {
	// Host as it was asked for.
	Host string
	// Reason in words, such as "private network".
	Reason string
}

// Error is the host and the reason.
func (e *Refused) Error() string {
	if e.Host == "" {
		return "refused: " + e.Reason
	}
	return "refused: " + e.Host + ": " + e.Reason
}

// Resolver is what net.Resolver does.
type Resolver interface {
	LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error)
}

// Options of a Guard. The zero value allows https to public addresses.
type Options struct {
	// Allow opens networks, addresses and hosts (name, or *.name for what is below it) that would be refused. Deny
	// closes, and goes before.
	Allow, Deny []string
	// HTTP allows URLs of http beside https.
	HTTP bool
	// Proxy tunnels every connection (CONNECT, RFC 9110 section 9.3.6): http:// or https://, with credentials if need
	// be. Names are then resolved, and their addresses judged, by the proxy; nil for none. The environment's is not used.
	Proxy *url.URL
	// Resolver resolves names; nil for the system's.
	Resolver Resolver
}

// Guard judges addresses. Immutable, safe for concurrent use.
type Guard struct {
	allow, deny rules
	http        bool
	proxy       *url.URL
	resolver    Resolver
}

// New makes a guard; an error names the entry that is no network, address or host.
func New(o Options) (*Guard, error) {
	g := &Guard{http: o.HTTP, proxy: o.Proxy, resolver: o.Resolver}
	var err error
	if g.allow, err = parseRules(o.Allow); err != nil {
		return nil, err
	}
	if g.deny, err = parseRules(o.Deny); err != nil {
		return nil, err
	}
	if p := o.Proxy; p != nil && (p.Scheme != "http" && p.Scheme != "https" || p.Hostname() == "") {
		return nil, fmt.Errorf("netguard: a proxy is http://host:port or https://host:port")
	}
	if g.resolver == nil {
		g.resolver = net.DefaultResolver
	}
	return g, nil
}

// rules are one list of networks and hosts.
type rules struct {
	networks []netip.Prefix
	hosts    []string
}

func parseRules(entries []string) (rules, error) {
	var r rules
	for _, e := range entries {
		e = strings.ToLower(strings.TrimSpace(e))
		if p, err := netip.ParsePrefix(e); err == nil {
			r.networks = append(r.networks, p.Masked())
		} else if a, err := netip.ParseAddr(e); err == nil && a.Zone() == "" {
			r.networks = append(r.networks, netip.PrefixFrom(a, a.BitLen()))
		} else if wrongName(strings.TrimPrefix(e, "*.")) == "" {
			r.hosts = append(r.hosts, e)
		} else {
			return r, fmt.Errorf("netguard: %q is no network, address or host", e)
		}
	}
	return r, nil
}

func (r rules) hasAddr(a netip.Addr) bool {
	for _, p := range r.networks {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

func (r rules) hasHost(name string) bool {
	for _, h := range r.hosts {
		if below, ok := strings.CutPrefix(h, "*"); ok && strings.HasSuffix(name, below) || h == name {
			return true
		}
	}
	return false
}

// CheckAddr judges an address, whatever the name it was found by. Errors: *Refused.
func (g *Guard) CheckAddr(a netip.Addr) error {
	switch {
	case g.deny.hasAddr(a):
		return &Refused{Reason: "on the deny-list"}
	case g.allow.hasAddr(a):
		return nil
	}
	if reason := special(a); reason != "" {
		return &Refused{Reason: reason}
	}
	return nil
}

// connectTimeout is how long one of several addresses is tried before the next.
const connectTimeout = 3 * time.Second

// DialContext dials as net.Dialer does, for http.Transport: it resolves the name once, refuses it whole when any of its
// addresses is refused, since one that mixes them is up to no good, and connects to what it judged. Errors:
// *Refused, *net.DNSError, *ProxyError with a proxy, and those of net.Dialer.
func (g *Guard) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	name := strings.ToLower(strings.TrimSuffix(host, "."))
	if reason := g.wrongHost(name); reason != "" {
		return nil, &Refused{host, reason}
	}
	if reason := wrongPort(port); reason != "" && !g.allow.hasHost(name) {
		return nil, &Refused{host, reason}
	}
	if g.proxy != nil {
		if a, err := netip.ParseAddr(name); err == nil {
			if err := g.judge(name, a); err != nil {
				return nil, err
			}
		}
		return g.tunnel(ctx, address)
	}
	addrs, err := g.resolve(ctx, name)
	if err != nil {
		return nil, err
	}
	d := net.Dialer{Control: g.control(name)}
	for i, a := range addrs {
		var conn net.Conn
		if conn, err = dialOne(ctx, &d, network, net.JoinHostPort(a.String(), port), i < len(addrs)-1); err == nil {
			return conn, nil
		}
		if ctx.Err() != nil {
			break
		}
	}
	return nil, err
}

func dialOne(ctx context.Context, d *net.Dialer, network, address string, more bool) (net.Conn, error) {
	if more {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, connectTimeout)
		defer cancel()
	}
	return d.DialContext(ctx, network, address)
}

// resolve gives the addresses of a name, all of them judged.
func (g *Guard) resolve(ctx context.Context, name string) ([]netip.Addr, error) {
	addrs := []netip.Addr{}
	if a, err := netip.ParseAddr(name); err == nil {
		addrs = append(addrs, a)
	} else {
		absolute := name
		if strings.Contains(name, ".") && !g.allow.hasHost(name) {
			absolute += "." // no search domains: inside a cluster they lead to its services
		}
		found, err := g.resolver.LookupNetIP(ctx, "ip", absolute)
		if err != nil {
			return nil, err
		}
		for _, a := range found {
			addrs = append(addrs, a.Unmap()) // the resolver of net writes an A record as IPv4-mapped
		}
	}
	if len(addrs) == 0 {
		return nil, &net.DNSError{Err: "no address", Name: name, IsNotFound: true}
	}
	for _, a := range addrs {
		if err := g.judge(name, a); err != nil {
			return nil, err
		}
	}
	return addrs, nil
}

// judge is CheckAddr for an address of a name, which may itself be allowed.
func (g *Guard) judge(name string, a netip.Addr) error {
	err := g.CheckAddr(a)
	if err == nil || g.allow.hasHost(name) && !g.deny.hasAddr(a) {
		return nil
	}
	reason := err.Error()
	if r, ok := err.(*Refused); ok { //nolint:errorlint // CheckAddr gives nothing else and wraps nothing
		reason = r.Reason
	}
	return &Refused{name, reason}
}
