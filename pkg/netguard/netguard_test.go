package netguard_test

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/sametick/sametick/pkg/config"
	"github.com/sametick/sametick/pkg/netguard"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// names is a resolver that answers what it is told, one answer a look-up; the last again and again.
type names struct {
	mu    sync.Mutex
	addrs map[string][][]string
	asked []string
}

func (n *names) LookupNetIP(_ context.Context, _, host string) ([]netip.Addr, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.asked = append(n.asked, host)
	answers := n.addrs[strings.TrimSuffix(host, ".")]
	if len(answers) == 0 {
		return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
	}
	var out []netip.Addr
	for _, a := range answers[0] {
		out = append(out, netip.MustParseAddr(a))
	}
	if len(answers) > 1 {
		n.addrs[strings.TrimSuffix(host, ".")] = answers[1:]
	}
	return out, nil
}

func resolves(name string, answers ...[]string) *names {
	return &names{addrs: map[string][][]string{name: answers}}
}

func guard(t testing.TB, o netguard.Options) *netguard.Guard {
	g, err := netguard.New(o)
	require.NoError(t, err)
	return g
}

func reason(t *testing.T, err error) string {
	t.Helper()
	var r *netguard.Refused
	require.ErrorAs(t, err, &r, "%v", err)
	return r.Reason
}

// forms are the addresses that must not be called, each with a word of its reason.
func forms() map[string]string {
	return map[string]string{
		"127.0.0.1": "loopback", "127.255.255.254": "loopback", "0.0.0.0": "unspecified", "0.1.2.3": "this network",
		"10.0.0.1": "private", "10.255.255.255": "private", "172.16.0.1": "private", "172.31.255.255": "private", "192.168.1.1": "private",
		"169.254.1.1": "link-local", "169.254.169.254": "metadata", "169.254.170.2": "metadata", "100.100.100.200": "metadata", "168.63.129.16": "metadata",
		"100.64.0.1": "carrier", "100.127.255.255": "carrier", "192.0.0.8": "IETF", "192.0.0.192": "IETF",
		"192.0.2.1": "documentation", "198.51.100.1": "documentation", "203.0.113.1": "documentation", "192.88.99.1": "6to4", "198.18.0.1": "benchmarking", "198.19.255.255": "benchmarking",
		"224.0.0.1": "multicast", "239.255.255.255": "multicast", "255.255.255.255": "broadcast", "240.0.0.1": "reserved",
		"::": "unspecified", "::1": "loopback", "::2": "compatible", "::127.0.0.1": "compatible", "::8.8.8.8": "compatible",
		"::ffff:127.0.0.1": "mapped", "::ffff:8.8.8.8": "mapped", "::ffff:a9fe:a9fe": "mapped", "::ffff:0:10.0.0.1": "translated",
		"64:ff9b::7f00:1": "NAT64", "64:ff9b::8.8.8.8": "NAT64", "64:ff9b:1::a00:1": "NAT64", "64:ff9b:2::1": "reserved",
		"2002:7f00:1::": "6to4", "2002:808:808::1": "6to4", "2001:0:4136:e378:8000:63bf:3fff:fdd2": "Teredo", "2001:2::1": "IETF", "2001:20::1": "IETF", "2001:10::1": "IETF",
		"fc00::1": "unique local", "fd12:3456::1": "unique local", "fd00:ec2::254": "metadata", "fd20:ce::254": "metadata",
		"fe80::1": "link-local", "febf::1": "link-local", "fec0::1": "site-local", "ff02::1": "multicast",
		"2001:db8::1": "documentation", "3fff::1": "documentation", "100::1": "discard", "100:0:0:1::1": "reserved", "5f00::1": "reserved", "4000::1": "reserved", "e000::1": "reserved",
		"2606:4700::5efe:10.0.0.1": "ISATAP", "2606:4700::200:5efe:10.0.0.1": "ISATAP",
	}
}

func publicAddrs() []string {
	return []string{
		"8.8.8.8", "1.1.1.1", "9.255.255.255", "11.0.0.0", "100.63.255.255", "100.128.0.0", "126.255.255.255", "128.0.0.1", "169.253.255.255", "169.255.0.0",
		"172.15.255.255", "172.32.0.0", "191.255.255.255", "192.0.1.0", "192.167.255.255", "192.169.0.0", "198.17.255.255", "198.20.0.0", "223.255.255.255",
		"2606:4700:4700::1111", "2a00:1450:4001::200e", "2001:200::1", "2001:4860:4860::8888", "2003::1", "3ffe::1", "2000::1",
	}
}

func TestAddresses(t *testing.T) {
	g := guard(t, netguard.Options{})
	for a, want := range forms() {
		require.Contains(t, reason(t, g.CheckAddr(netip.MustParseAddr(a))), want, a)
	}
	for _, a := range publicAddrs() {
		require.NoError(t, g.CheckAddr(netip.MustParseAddr(a)), a)
	}
	require.Equal(t, "zone id", reason(t, g.CheckAddr(netip.MustParseAddr("fe80::1%eth0"))))
	require.Equal(t, "zone id", reason(t, g.CheckAddr(netip.MustParseAddr("2606:4700::1%eth0"))))
	require.Equal(t, "no address", reason(t, g.CheckAddr(netip.Addr{})))
}

// Every form, named in a URL and dialled as it is, and behind a name; alone and beside a public address.
func TestFormsByURLAndByName(t *testing.T) {
	for a, want := range forms() {
		g := guard(t, netguard.Options{})
		host := net.JoinHostPort(a, "443")
		_, err := g.CheckURL("https://" + host + "/hook")
		require.Contains(t, reason(t, err), want, a)
		_, err = g.DialContext(t.Context(), "tcp", host)
		require.Contains(t, reason(t, err), want, a)
		for _, answer := range [][]string{{a}, {"8.8.8.8", a}, {a, "2606:4700:4700::1111"}} {
			if a == "::ffff:8.8.8.8" {
				continue // from DNS a mapped address is the IPv4 one, which is public: no test dials it
			}
			_, err = guard(t, netguard.Options{Resolver: resolves("a.example.com", answer)}).DialContext(t.Context(), "tcp", "a.example.com:443")
			require.NotContains(t, err.Error(), a)
			require.NotEmpty(t, reason(t, err))
		}
	}
}

func server(t *testing.T, h http.HandlerFunc) (*httptest.Server, string) {
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	_, port, err := net.SplitHostPort(s.Listener.Addr().String())
	require.NoError(t, err)
	return s, port
}

// The negative control of the tests that refuse: the same way, allowed, connects.
func TestAllowed(t *testing.T) {
	_, port := server(t, func(http.ResponseWriter, *http.Request) {})
	for name, o := range map[string]netguard.Options{
		"network": {Allow: []string{"127.0.0.0/8"}}, "address": {Allow: []string{"127.0.0.1"}}, "host": {Allow: []string{"a.example.com"}},
		"wildcard": {Allow: []string{"*.example.com"}},
	} {
		o.Resolver = resolves("a.example.com", []string{"127.0.0.1"})
		conn, err := guard(t, o).DialContext(t.Context(), "tcp", "A.Example.com.:"+port)
		require.NoError(t, err, name)
		require.NoError(t, conn.Close())
		o.Deny = []string{"127.0.0.1"}
		_, err = guard(t, o).DialContext(t.Context(), "tcp", "a.example.com:"+port)
		require.Equal(t, "on the deny-list", reason(t, err), name)
		o.Deny = []string{"*.example.com"}
		_, err = guard(t, o).DialContext(t.Context(), "tcp", "a.example.com:"+port)
		require.Equal(t, "on the deny-list", reason(t, err), name)
	}
	// A host that is allowed opens no other, and not the network itself.
	g := guard(t, netguard.Options{Allow: []string{"a.example.com", "*.corp.example"}, Resolver: resolves("b.example.com", []string{"127.0.0.1"})})
	for _, host := range []string{"b.example.com", "127.0.0.1", "corp.example", "xcorp.example", "xa.example.com"} {
		_, err := g.DialContext(t.Context(), "tcp", host+":"+port)
		require.Error(t, err, host)
	}
}

// A name is asked once a dial and what was judged is dialled: an answer that turns private is refused, and between the
// judgement and the socket there is no second answer to swap in.
func TestRebinding(t *testing.T) {
	_, port := server(t, func(http.ResponseWriter, *http.Request) {})
	n := resolves("a.example.com", []string{"127.0.0.1"}, []string{"127.0.0.2"}, []string{"127.0.0.1"})
	g := guard(t, netguard.Options{Allow: []string{"127.0.0.1"}, Resolver: n})
	conn, err := g.DialContext(t.Context(), "tcp", "a.example.com:"+port)
	require.NoError(t, err)
	require.Equal(t, "127.0.0.1:"+port, conn.RemoteAddr().String())
	require.NoError(t, conn.Close())
	require.Equal(t, []string{"a.example.com."}, n.asked, "once, and without search domains")
	_, err = g.DialContext(t.Context(), "tcp", "a.example.com:"+port)
	require.Equal(t, "loopback", reason(t, err))
}

// A client that follows redirects is led nowhere: the dial decides.
func TestRedirect(t *testing.T) {
	target := ""
	_, port := server(t, func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, target, http.StatusTemporaryRedirect)
	})
	transport := &http.Transport{DialContext: guard(t, netguard.Options{Allow: []string{"127.0.0.1"}}).DialContext}
	defer transport.CloseIdleConnections()
	client := http.Client{Transport: transport}
	for a := range forms() {
		if a == "127.0.0.1" {
			continue
		}
		target = "http://" + net.JoinHostPort(a, "80") + "/"
		resp, err := client.Post("http://127.0.0.1:"+port, "text/plain", nil)
		if err == nil {
			resp.Body.Close()
		}
		require.NotEmpty(t, reason(t, err), a)
	}
}

func TestNextAddress(t *testing.T) {
	_, port := server(t, func(http.ResponseWriter, *http.Request) {})
	g := guard(t, netguard.Options{Allow: []string{"127.0.0.0/8"}, Resolver: resolves("a.example.com", []string{"127.0.0.9", "127.0.0.1"})})
	conn, err := g.DialContext(t.Context(), "tcp", "a.example.com:"+port)
	require.NoError(t, err)
	require.NoError(t, conn.Close())
	_, err = g.DialContext(t.Context(), "tcp", "127.0.0.9:"+port)
	require.ErrorIs(t, err, syscall.ECONNREFUSED)
	var dns *net.DNSError
	_, err = g.DialContext(t.Context(), "tcp", "b.example.com:"+port)
	require.ErrorAs(t, err, &dns)
	_, err = guard(t, netguard.Options{Resolver: resolves("a.example.com", nil)}).DialContext(t.Context(), "tcp", "a.example.com:443")
	require.ErrorAs(t, err, &dns, "a name without addresses")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = g.DialContext(ctx, "tcp", "a.example.com:"+port)
	require.ErrorIs(t, err, context.Canceled)
	_, err = g.DialContext(t.Context(), "udp", "127.0.0.1:"+port)
	require.Equal(t, "not an address of TCP", reason(t, err))
}

func TestURLs(t *testing.T) {
	g := guard(t, netguard.Options{})
	for raw, want := range map[string]string{
		"https://example.com":                 "https://example.com",
		"https://Example.COM./hook?x=1":       "https://example.com/hook?x=1",
		"https://example.com:443/":            "https://example.com:443/",
		"https://example.com:8443/a%20b":      "https://example.com:8443/a%20b",
		"https://1.1.1.1/":                    "https://1.1.1.1/",
		"https://[2606:4700:4700::1111]:443/": "https://[2606:4700:4700::1111]:443/",
		"https://bücher.example.com/":         "https://xn--bcher-kva.example.com/",
		"https://EXAMPLE。com/":                "https://example.com/",
		"https://my_hook.example.com/":        "https://my_hook.example.com/",
		"https://r3---sn.example.com/":        "https://r3---sn.example.com/",
		"https://1.2.3.4.example.com/":        "https://1.2.3.4.example.com/",
		"https://0xabc.example/":              "https://0xabc.example/",
	} {
		got, err := g.CheckURL(raw)
		require.NoError(t, err, raw)
		require.Equal(t, want, got)
	}
	for raw, want := range map[string]string{
		"": "1 to 2048", "https://" + strings.Repeat("a", 2050): "1 to 2048", "https://exa mple.com/": "white space", "https://example.com/\n": "white space",
		`https://example.com\@127.0.0.1/`: "backslash", "https://%31%32%37.0.0.1/": "no URL", "example.com": "want https", "//example.com/": "want https",
		"ftp://example.com/": "want https", "gopher://example.com/": "want https", "file:///etc/passwd": "want https", "https:example.com": "no host", "https:///x": "no host",
		"http://example.com/": "http is not allowed", "https://user@example.com/": "user", "https://:pw@example.com/": "user", "https://@example.com/": "user",
		"https://example.com/#x": "fragment", "https://example.com#@127.0.0.1/": "fragment",
		"https://2130706433/": "another form", "https://0x7f000001/": "another form", "https://0x7f.1/": "another form", "https://017700000001/": "another form",
		"https://127.1/": "another form", "https://127.0.0.01/": "another form", "https://0177.0.0.1/": "another form", "https://127.0.0.1.5/": "another form",
		"https://example.0x/": "another form", "https://256.256.256.256/": "another form", "https://１２７.０.０.１/": "loopback", "https://127。0。0。1/": "loopback", "https://127.0.0.1./": "loopback",
		"https://[::1]/": "loopback", "https://[::ffff:127.0.0.1]/": "mapped", "https://[fe80::1%25eth0]/": "zone", "https://[::1/": "no URL", "https://[127.0.0.1]/": "no URL", "https://[example.com]/": "no URL",
		"https://localhost/": "local name", "https://LOCALHOST./": "local name", "https://intranet/": "local name", "https://x.localhost/": "local name", "https://printer.local/": "local name",
		"https://metadata.google.internal/": "local name", "https://a..example.com/": "no name", "https://-a.example.com/": "no name", "https://" + strings.Repeat("a", 64) + ".example.com/": "no name",
		"https://exa!mple.com/": "no name", "https://example.com:0/": "no port", "https://example.com:65536/": "no port", "https://example.com:22/": "not of the web", "https://example.com:25/": "not of the web", "https://example.com:6667/": "not of the web",
		"https://example.com:x/": "no URL",
	} {
		got, err := g.CheckURL(raw)
		require.Error(t, err, "%s: %s", raw, got)
		require.Contains(t, reason(t, err), want, raw)
	}
	open := guard(t, netguard.Options{HTTP: true, Allow: []string{"localhost", "127.0.0.1", "receiver"}, Deny: []string{"evil.example.com"}})
	for _, raw := range []string{"http://localhost:9000/", "http://127.0.0.1:9000/", "https://receiver:25/", "http://example.com:80/"} {
		_, err := open.CheckURL(raw)
		require.NoError(t, err, raw)
	}
	for _, raw := range []string{"http://127.0.0.2/", "https://evil.example.com/", "http://other/"} {
		_, err := open.CheckURL(raw)
		require.Error(t, err, raw)
	}
}

func TestConfig(t *testing.T) {
	env := map[string]string{"EGRESS_ALLOW": "10.0.0.0/8, receiver", "EGRESS_HTTP": "true", "EGRESS_PROXY": "http://u:hunter2@127.0.0.1:3128"}
	getenv := func(k string) string { return env[k] }
	var c struct{ Net netguard.Config }
	require.NoError(t, config.Load(&c, getenv))
	g, err := c.Net.Guard()
	require.NoError(t, err)
	require.NoError(t, g.CheckAddr(netip.MustParseAddr("10.1.2.3")))
	env["EGRESS_ALLOW"], env["EGRESS_DENY"], env["EGRESS_PROXY"] = "10.0.0.0/33", "1.2.3", "socks5://u:hunter2@h"
	err = config.Load(&c, getenv)
	var all *config.Error
	require.ErrorAs(t, err, &all)
	require.Len(t, all.Problems, 3)
	require.NotContains(t, err.Error(), "hunter2")
	env["EGRESS_PROXY"] = "http://u:hunter2@h:x"
	require.NotContains(t, config.Load(&c, getenv).Error(), "hunter2")
}

// FuzzCheckURL: what passes is called where it was judged to be: it passes again unchanged, is no address in disguise, and
// names the same host to net/http.
func FuzzCheckURL(f *testing.F) {
	for _, seed := range []string{
		"https://example.com/", "https://0x7f.1/", "https://[::ffff:1.2.3.4]:443/x", "http://user:pw@127.0.0.1#x", "https://bücher.example。com:8443/?q",
		"https://example.com:443:80/", "https://[::1%25lo]/", "https://①②⑦.0.0.1/", "https://example.com%2f@127.0.0.1/", "https:\\\\127.0.0.1", "https://xn--a.com", "https://1.1.1.1./",
	} {
		f.Add(seed)
	}
	g, err := netguard.New(netguard.Options{HTTP: true})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		u, err := g.CheckURL(raw)
		if err != nil {
			var r *netguard.Refused
			if !errors.As(err, &r) || r.Reason == "" {
				t.Fatalf("%q: %v", raw, err)
			}
			return
		}
		if again, err := g.CheckURL(u); err != nil || again != u {
			t.Fatalf("%q passes as %q, then as %q, %v", raw, u, again, err)
		}
		req, err := http.NewRequest(http.MethodPost, u, nil)
		if err != nil {
			t.Fatalf("%q passes as %q: %v", raw, u, err)
		}
		host := req.URL.Hostname()
		if a, err := netip.ParseAddr(host); err == nil {
			if g.CheckAddr(a) != nil {
				t.Fatalf("%q passes as %q", raw, u)
			}
		} else if last := host[strings.LastIndex(host, ".")+1:]; strings.Trim(last, "0123456789") == "" {
			t.Fatalf("%q passes as %q, a number", raw, u)
		}
		if req.URL.User != nil || req.URL.Fragment != "" {
			t.Fatalf("%q passes as %q", raw, u)
		}
	})
}
