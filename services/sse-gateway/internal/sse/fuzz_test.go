package sse

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"testing"

	"github.com/sametick/sametick/pkg/errs"
)

// FuzzQuery: whatever a client asks for, it is a filter of sound parts and a position that was written there,
// or a fault of the client's that shows no value: one may be a token.
func FuzzQuery(f *testing.F) {
	for _, seed := range [][2]string{{"", ""}, {"aggregate_type=task&aggregate_id=5&event_type=task.*", "7"}, {"event_type=*&event_type=a.b.c", "-1"}, {"last_event_id=0&lastEventId=x", ""},
		{"token=zqsecret&x=zqsecret", "zqsecret"}, {"%zz", "9223372036854775808"}, {"aggregate_id=0&aggregate_id=zqsecret", "+5"}, {"last_event_id=", "０"}, {"aggregate_type=*", "1e3"}, {"a;b", " 5"}} {
		f.Add(seed[0], seed[1])
	}
	f.Fuzz(func(t *testing.T, rawQuery, header string) {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, Path, nil)
		r.URL.RawQuery = rawQuery
		r.Header.Set(headerLast, header)
		filter, last, err := query(r)
		if err != nil {
			for _, field := range errs.From(err).Fields {
				if strings.Contains(field.Description+field.Reason, "zqsecret") {
					t.Fatalf("shown: %+v", field)
				}
			}
			if errs.KindOf(err) != errs.Invalid {
				t.Fatal(err)
			}
			return
		}
		q, err := url.ParseQuery(rawQuery)
		if err != nil || len(filter.EventTypes) != len(q[paramEventType]) || len(filter.AggregateTypes) != len(q[paramAggregateType]) || len(filter.AggregateIDs) != len(q[paramAggregateID]) {
			t.Fatalf("%q gives %+v", rawQuery, filter)
		}
		for _, id := range filter.AggregateIDs {
			if id < 1 {
				t.Fatalf("%q gives %+v", rawQuery, filter)
			}
		}
		if last != nil {
			for _, text := range []string{header, q.Get(paramLast), q.Get(paramLastCamel)} {
				if n, err := strconv.ParseInt(text, 10, 64); err == nil && n == *last && n >= 0 {
					return
				}
			}
			t.Fatalf("%q, %q gives position %d", rawQuery, header, *last)
		}
	})
}

// FuzzOrigins: what is taken for an origin is "*" or a scheme and a host.
func FuzzOrigins(f *testing.F) {
	for _, seed := range []string{"*", "https://a.example", "https://a.example/", "a,b", "", " , ", "https://a@b", "https://a?x", "HTTPS://A:1", "://"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, s string) {
		origins, wrong := ParseOrigins(s)
		if wrong != "" {
			return
		}
		for _, o := range origins {
			if u, err := url.Parse(o); o != "*" && (err != nil || u.Path != "" || u.RawQuery != "" || u.Fragment != "" || u.User != nil || u.Host == "") {
				t.Fatalf("%q of %q", o, s)
			}
		}
	})
}
