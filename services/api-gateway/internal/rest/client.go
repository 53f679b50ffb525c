package rest

import (
	"net/http"
	"net/netip"
	"net/url"
	"strings"

	"github.com/sametick/sametick/services/api-gateway/internal/grpcapi"
)

// clientIP is the nearest address that is not one of our own proxies: from the connection and then,
// from the right, X-Forwarded-For. What stands further left anybody can have written.
func clientIP(r *http.Request, proxies []netip.Prefix) string {
	peer, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return ""
	}
	ip := peer.Addr().Unmap()
	hops := strings.Split(strings.Join(r.Header.Values("X-Forwarded-For"), ","), ",")
	for i := len(hops) - 1; i >= 0 && contains(proxies, ip); i-- {
		next, err := netip.ParseAddr(strings.TrimSpace(hops[i]))
		if err != nil {
			break
		}
		ip = next.Unmap()
	}
	return ip.WithZone("").String()
}

// origin is the address that a request came to, as its client sees it: its scheme is what the nearest of our own proxies
// says. Empty when its host is none.
func origin(r *http.Request, proxies []netip.Prefix) string {
	scheme := "http"
	if r.TLS != nil {
		scheme = "https"
	}
	peer, err := netip.ParseAddrPort(r.RemoteAddr)
	said := strings.Split(r.Header.Get("X-Forwarded-Proto"), ",")
	if last := strings.TrimSpace(said[len(said)-1]); err == nil && contains(proxies, peer.Addr().Unmap()) && (last == "http" || last == "https") {
		scheme = last
	}
	u, err := url.Parse(scheme + "://" + r.Host)
	if err != nil || u.Host != r.Host || u.Host == "" || grpcapi.Printable(r.Host) != r.Host {
		return ""
	}
	return u.Scheme + "://" + u.Host
}

func contains(nets []netip.Prefix, ip netip.Addr) bool {
	for _, n := range nets {
		if n.Contains(ip) {
			return true
		}
	}
	return false
}
