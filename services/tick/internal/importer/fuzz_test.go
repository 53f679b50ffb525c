package importer

import (
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/sametick/sametick/services/tick/internal/xes"
)

// FuzzNames: whatever a log calls its cases, the server takes the record's name and external id, and two
// texts share no external id.
func FuzzNames(f *testing.F) {
	for _, seed := range [][2]string{{"a", "b"}, {"", " "}, {strings.Repeat("é", 600), strings.Repeat("é", 599) + "x"}, {strings.Repeat("a", 255), strings.Repeat("a", 256)}, {"\u2028", "\t"}} {
		f.Add(seed[0], seed[1])
	}
	f.Fuzz(func(t *testing.T, a, b string) {
		if !utf8.ValidString(a) || !utf8.ValidString(b) {
			return // the reader of XML gives none
		}
		x, y := externalID(a), externalID(b)
		if (x == y) != (a == b) || utf8.RuneCountInString(x) > maxExternalID || !utf8.ValidString(x) {
			t.Fatalf("%q is %q, %q is %q", a, x, b, y)
		}
		name := title(xes.Attributes{{Key: xes.Name, Value: a}})
		if n := utf8.RuneCountInString(name); n < 1 || n > maxName || strings.TrimSpace(name) == "" || !utf8.ValidString(name) {
			t.Fatalf("%q is named %q", a, name)
		}
	})
}
