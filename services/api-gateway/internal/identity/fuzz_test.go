package identity

import (
	"strings"
	"testing"
)

// FuzzEmail: an address that is taken has two parts and goes into a mail's header as it is.
func FuzzEmail(f *testing.F) {
	for _, seed := range []string{"a@b", "@", "a@", "a b@c", "a@b\nBcc: x@y", "é@ü", "a@b@c", "\xff@b", strings.Repeat("a", 300) + "@b", "a\u2028@b", "\"a\"@[::1]"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if ValidEmail(s) && (len(s) > 254 || strings.ContainsAny(s, "\x00\r\n\t ") || !strings.Contains(s, "@")) {
			t.Fatalf("%q is taken", s)
		}
	})
}

// FuzzPasswordHash: a stored text that is no hash of ours matches nothing, and costs no more than one.
func FuzzPasswordHash(f *testing.F) {
	good := HashPassword("secret password")
	for _, seed := range []string{good, "", "$", "$argon2id$v=19$m=0,t=0,p=0$$", strings.Replace(good, "p=1", "p=0", 1), strings.Replace(good, "v=19", "v=20", 1), good + "A"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, hash string) {
		if strings.Contains(hash, "m=") && !strings.Contains(hash, "m=19456,t=2,p=1") {
			return // costs are what an operator's database says
		}
		if checkPassword(hash, "another password") {
			t.Fatalf("%q matches", hash)
		}
	})
}
