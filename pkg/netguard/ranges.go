package netguard

import "net/netip"

// network is one refused range.
type network struct {
	prefix netip.Prefix
	reason string
}

// refusedIPv4 are the entries of the IANA IPv4 Special-Purpose Address Registry (RFC 6890 and what updates it) that are not
// globally reachable, multicast (RFC 5771), and public addresses at which clouds tell a machine its secrets.
// More particular ones first.
func refusedIPv4() []network {
	return []network{
		{netip.MustParsePrefix("169.254.169.254/32"), "cloud metadata"},
		{netip.MustParsePrefix("169.254.170.2/32"), "cloud metadata"},
		{netip.MustParsePrefix("100.100.100.200/32"), "cloud metadata"},
		{netip.MustParsePrefix("168.63.129.16/32"), "cloud metadata"},
		{netip.MustParsePrefix("0.0.0.0/32"), "unspecified address"},
		{netip.MustParsePrefix("0.0.0.0/8"), "this network (RFC 791)"},
		{netip.MustParsePrefix("10.0.0.0/8"), "private network (RFC 1918)"},
		{netip.MustParsePrefix("172.16.0.0/12"), "private network (RFC 1918)"},
		{netip.MustParsePrefix("192.168.0.0/16"), "private network (RFC 1918)"},
		{netip.MustParsePrefix("100.64.0.0/10"), "carrier-grade NAT (RFC 6598)"},
		{netip.MustParsePrefix("127.0.0.0/8"), "loopback"},
		{netip.MustParsePrefix("169.254.0.0/16"), "link-local"},
		{netip.MustParsePrefix("192.0.0.0/24"), "IETF protocol assignments (RFC 6890)"},
		{netip.MustParsePrefix("192.0.2.0/24"), "documentation (RFC 5737)"},
		{netip.MustParsePrefix("198.51.100.0/24"), "documentation (RFC 5737)"},
		{netip.MustParsePrefix("203.0.113.0/24"), "documentation (RFC 5737)"},
		{netip.MustParsePrefix("192.88.99.0/24"), "6to4 relay (RFC 7526)"},
		{netip.MustParsePrefix("198.18.0.0/15"), "benchmarking (RFC 2544)"},
		{netip.MustParsePrefix("224.0.0.0/4"), "multicast"},
		{netip.MustParsePrefix("255.255.255.255/32"), "broadcast"},
		{netip.MustParsePrefix("240.0.0.0/4"), "reserved (RFC 1112)"},
	}
}

// refusedIPv6 are those of the IANA IPv6 Special-Purpose Address Registry, and the forms that carry an IPv4 address, whichever
// it is. Outside of 2000::/3 nothing is global unicast (RFC 4291), so the last refuses the rest.
func refusedIPv6() []network {
	return []network{
		{netip.MustParsePrefix("fd00:ec2::254/128"), "cloud metadata"},
		{netip.MustParsePrefix("fd20:ce::254/128"), "cloud metadata"},
		{netip.MustParsePrefix("::/128"), "unspecified address"},
		{netip.MustParsePrefix("::1/128"), "loopback"},
		{netip.MustParsePrefix("::ffff:0:0/96"), "IPv4-mapped (RFC 4291)"},
		{netip.MustParsePrefix("::ffff:0:0:0/96"), "IPv4-translated (RFC 2765)"},
		{netip.MustParsePrefix("::/96"), "IPv4-compatible (RFC 4291)"},
		{netip.MustParsePrefix("64:ff9b::/96"), "NAT64 (RFC 6052)"},
		{netip.MustParsePrefix("64:ff9b:1::/48"), "NAT64 (RFC 8215)"},
		{netip.MustParsePrefix("100::/64"), "discard only (RFC 6666)"},
		{netip.MustParsePrefix("2001::/32"), "Teredo (RFC 4380)"},
		{netip.MustParsePrefix("2001::/23"), "IETF protocol assignments (RFC 2928)"},
		{netip.MustParsePrefix("2001:db8::/32"), "documentation (RFC 3849)"},
		{netip.MustParsePrefix("3fff::/20"), "documentation (RFC 9637)"},
		{netip.MustParsePrefix("2002::/16"), "6to4 (RFC 3056)"},
		{netip.MustParsePrefix("fc00::/7"), "unique local (RFC 4193)"},
		{netip.MustParsePrefix("fe80::/10"), "link-local"},
		{netip.MustParsePrefix("fec0::/10"), "site-local (RFC 3879)"},
		{netip.MustParsePrefix("ff00::/8"), "multicast"},
	}
}

// special tells why an address is not an ordinary public one; empty when it is.
func special(a netip.Addr) string {
	list := refusedIPv6
	if a.Is4() {
		list = refusedIPv4
	}
	if !a.IsValid() {
		return "no address"
	}
	if a.Zone() != "" {
		return "zone id"
	}
	for _, n := range list() {
		if n.prefix.Contains(a) {
			return n.reason
		}
	}
	if a.Is6() && a.As16()[0]&0xe0 != 0x20 {
		return "reserved (RFC 4291)"
	}
	if b := a.As16(); a.Is6() && (b[8] == 0 || b[8] == 2) && b[9] == 0 && b[10] == 0x5e && b[11] == 0xfe {
		return "ISATAP (RFC 5214)"
	}
	return ""
}
