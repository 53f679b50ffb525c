package netguard

import (
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/net/idna"
)

// maxURL bounds a URL, in bytes.
const maxURL = 2048

// CheckURL judges a URL as far as it can be without asking DNS, and gives it as it will be called: its host in ASCII
// (IDNA, RFC 5891) and lower case. Errors: *Refused. What it lets pass may still be refused when it is dialled.
func (g *Guard) CheckURL(raw string) (string, error) {
	if raw == "" || len(raw) > maxURL {
		return "", &Refused{Reason: "want 1 to 2048 characters"}
	}
	if strings.ContainsFunc(raw, func(r rune) bool { return r <= ' ' || r == 0x7f || r == '\\' }) {
		return "", &Refused{Reason: "white space, a control character or a backslash in it"}
	}
	u, err := url.Parse(raw)
	if err != nil {
		return "", &Refused{Reason: "no URL"}
	}
	if reason := g.wrongParts(u); reason != "" {
		return "", &Refused{Reason: reason}
	}
	host, err := idna.Lookup.ToASCII(strings.TrimSuffix(u.Hostname(), "."))
	if bracketed := strings.HasPrefix(u.Host, "["); bracketed {
		if _, err = netip.ParseAddr(u.Hostname()); err == nil {
			host = u.Hostname()
		}
	}
	if err != nil && wrongName(strings.ToLower(u.Hostname())) == "" {
		host, err = strings.ToLower(u.Hostname()), nil // idna refuses _ and some hyphens, DNS has them
	}
	if err != nil {
		return "", &Refused{u.Hostname(), "no name or address"}
	}
	if reason := g.wrongHost(host); reason != "" {
		return "", &Refused{u.Hostname(), reason}
	}
	if a, err := netip.ParseAddr(host); err == nil {
		if err := g.judge(host, a); err != nil {
			return "", err
		}
	}
	if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	if p := u.Port(); p != "" {
		if reason := wrongPort(p); reason != "" && !g.allow.hasHost(host) {
			return "", &Refused{u.Hostname(), reason}
		}
		host += ":" + p
	}
	u.Host = host
	return u.String(), nil
}

// wrongParts judges what is not the host.
func (g *Guard) wrongParts(u *url.URL) string {
	switch {
	case u.Scheme != "https" && u.Scheme != "http":
		return "want https://"
	case u.Scheme == "http" && !g.http:
		return "want https://, http is not allowed here"
	case u.User != nil:
		return "a user or password in it"
	case u.Fragment != "" || strings.HasSuffix(u.String(), "#"):
		return "a fragment in it"
	case u.Opaque != "" || u.Hostname() == "":
		return "no host in it"
	}
	return ""
}

// wrongHost judges a name or literal address in lower case and ASCII, without a dot at its end, by its text.
func (g *Guard) wrongHost(host string) string {
	if a, err := netip.ParseAddr(host); err == nil {
		if a.Zone() != "" {
			return "zone id"
		}
		return ""
	}
	reason := wrongName(host)
	switch {
	case reason != "":
		return reason
	case g.deny.hasHost(host):
		return "on the deny-list"
	case g.allow.hasHost(host):
		return ""
	case !strings.Contains(host, "."):
		return "a local name"
	}
	for _, suffix := range []string{".localhost", ".local", ".internal", ".home.arpa", ".onion"} {
		if strings.HasSuffix(host, suffix) {
			return "a local name"
		}
	}
	return ""
}

// wrongName judges the form of a name (RFC 1123, and underscores). A last label that is a number makes an address to
// some readers (URL Standard, "ends in a number checker"): decimal, octal, hexadecimal, or of fewer parts.
func wrongName(name string) string {
	if name == "" || len(name) > 253 {
		return "no name or address"
	}
	labels := strings.Split(name, ".")
	for _, l := range labels {
		if l == "" || len(l) > 63 || l[0] == '-' || strings.ContainsFunc(l, func(r rune) bool {
			return (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '-' && r != '_'
		}) {
			return "no name or address"
		}
	}
	last := labels[len(labels)-1]
	digits := strings.TrimLeft(last, "0123456789") == ""
	if _, err := strconv.ParseUint(strings.TrimPrefix(last, "0x"), 16, 64); digits || strings.HasPrefix(last, "0x") && (err == nil || last == "0x") {
		return "an address in another form than a.b.c.d"
	}
	return ""
}

// wrongPort allows 80, 443 and those from 1024 on, without those that browsers refuse since another protocol is
// spoken there (Fetch Standard, "bad port").
func wrongPort(port string) string {
	n, err := strconv.ParseUint(port, 10, 16)
	switch {
	case err != nil || n == 0:
		return "no port"
	case n == 80 || n == 443:
		return ""
	case n < 1024:
		return "port " + port + " is not of the web: want 443, 80 or from 1024 on"
	case slices.Contains([]uint64{1719, 1720, 1723, 2049, 3659, 4045, 4190, 5060, 5061, 6000, 6566, 6665, 6666, 6667, 6668, 6669, 6679, 6697, 10080}, n):
		return "port " + port + " is not of the web"
	}
	return ""
}
