package telemetry_test

import (
	"regexp"
	"testing"

	"github.com/sametick/sametick/pkg/telemetry"
)

// FuzzRequest: what a stranger sends as a request id or a traceparent goes on only in a harmless form.
func FuzzRequest(f *testing.F) {
	for _, seed := range []string{"", "abc-1.2_3", "a b", "a\nb", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
		"ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", "00-00000000000000000000000000000000-0000000000000000-00", "é"} {
		f.Add(seed)
	}
	id, trace := regexp.MustCompile(`\A[A-Za-z0-9._-]{1,128}\z`), regexp.MustCompile(`\A00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}\z`)
	f.Fuzz(func(t *testing.T, sent string) {
		taken := telemetry.TakeRequestID(sent)
		if !id.MatchString(taken) || id.MatchString(sent) && taken != sent || telemetry.TakeRequestID(taken) != taken {
			t.Fatalf("%q becomes %q", sent, taken)
		}
		parent := telemetry.Traceparent(telemetry.WithTraceparent(t.Context(), sent))
		if parent != "" && !trace.MatchString(parent) {
			t.Fatalf("%q becomes %q", sent, parent)
		}
		if good := telemetry.IsTraceparent(sent); good && !trace.MatchString(sent) || !good && parent != "" && len(sent) == len(parent) && sent[:3] == "00-" {
			t.Fatalf("%q is a traceparent: %t, and becomes %q", sent, good, parent)
		}
	})
}
