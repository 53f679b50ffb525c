package rest

import (
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/sametick/sametick/services/api-gateway/internal/grpcapi"
)

// FuzzForm: whatever stands in a path or a query, each fault names its field in printable text, and what is
// taken holds text that Postgres can keep.
func FuzzForm(f *testing.F) {
	for _, seed := range [][3]string{{"task", "1", "limit=5&page=2"}, {"\x00", "0x1", "limit=&limit=1"}, {"a/b", "9223372036854775808", "%zz"},
		{"", "", "include_archived=TRUE"}, {"é\xff", "-1", "external_id=%00"}, {"task", "1", "type=x;id=2"}, {"task", "1", "\n=\u202e"}} {
		f.Add(seed[0], seed[1], seed[2])
	}
	table := routes()
	f.Fuzz(func(t *testing.T, typ, id, query string) {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil)
		r.URL.RawQuery = query
		for _, name := range []string{"GET /api/records/{type}", "GET /api/records/{type}/{id}", "GET /api/events"} {
			path := map[string]string{}
			if strings.Contains(name, "{type}") {
				path["type"] = typ
			}
			if strings.Contains(name, "{id}") {
				path["id"] = id
			}
			fault := table[name].check(path, r)
			if fault == nil {
				q, err := url.ParseQuery(query)
				if err != nil {
					t.Fatalf("%q is taken", query)
				}
				for _, values := range q {
					if len(values) != 1 || strings.ContainsRune(values[0], 0) || !utf8.ValidString(values[0]) {
						t.Fatalf("%q is taken", query)
					}
				}
				continue
			}
			for _, field := range fault.Fields {
				if !utf8.ValidString(field.Field) || strings.ContainsFunc(field.Field, func(c rune) bool { return c < ' ' || c == 0x7f }) {
					t.Fatalf("a fault of the field %q", field.Field)
				}
			}
		}
	})
}

// FuzzClient: an address is one or none, whatever the headers say, and a user agent is short plain ASCII.
func FuzzClient(f *testing.F) {
	for _, seed := range []string{"1.2.3.4", "::1, fe80::1%eth0", ",,,", "10.0.0.1, 6.6.6.6", "\x00", "é", "::ffff:1.2.3.4", strings.Repeat("10.0.0.1,", 1000)} {
		f.Add("10.0.0.1:1", seed)
	}
	f.Add("[fe80::1%eth0]:5", "")
	proxies := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}
	f.Fuzz(func(t *testing.T, peer, header string) {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil)
		r.RemoteAddr = peer
		r.Header.Set("X-Forwarded-For", header)
		if ip := clientIP(r, proxies); ip != "" {
			if a, err := netip.ParseAddr(ip); err != nil || a.Zone() != "" || a.Is4In6() {
				t.Fatalf("%q, %q gives %q", peer, header, ip)
			}
		}
		if text := grpcapi.Printable(header); len(text) > 256 || strings.ContainsFunc(text, func(c rune) bool { return c < ' ' || c > '~' }) {
			t.Fatalf("%q is printable", text)
		}
	})
}
