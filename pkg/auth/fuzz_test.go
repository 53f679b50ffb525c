package auth_test

import (
	"encoding/base64"
	"strings"
	"testing"
	"time"

	"github.com/sametick/sametick/pkg/auth"
)

// FuzzSigned: what is signed is verified as what it was, and no change of its text is.
func FuzzSigned(f *testing.F) {
	s, public := keys(f, "k")
	v := verifier(f, public)
	f.Add(int64(1), int64(7), "records:read org:admin", 10, byte('x'))
	f.Add(int64(1<<62), int64(1), "", 0, byte(0))
	f.Add(int64(3), int64(0), "what:ever", 1000, byte('.'))
	f.Fuzz(func(t *testing.T, org, user int64, scopes string, at int, with byte) {
		p := auth.Principal{OrgID: org, Subject: auth.Subject(auth.SubjectUser, user), Scopes: auth.ScopesOf(strings.Fields(scopes)...)}
		token, signed, err := s.Sign(p, time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		got, err := v.Verify(t.Context(), token)
		if good := org > 0 && user > 0; good != (err == nil) {
			t.Fatalf("%d, %d: %v", org, user, err)
		}
		if err == nil && (got.OrgID != org || *got.UserID != user || got.Scopes != signed.Scopes || got.TokenID != signed.TokenID || !got.ExpiresAt.Equal(signed.ExpiresAt)) {
			t.Fatalf("%+v, signed %+v", got, signed)
		}
		changed := []byte(token)
		if at %= len(changed); at < 0 || changed[at] == with {
			return
		}
		changed[at] = with
		if _, err := v.Verify(t.Context(), string(changed)); err == nil {
			t.Fatalf("%q is taken for %q", changed, token)
		}
	})
}

// FuzzBearer: a token is a part of its header without white space around it, an API key is plain ASCII.
func FuzzBearer(f *testing.F) {
	for _, seed := range []string{"Bearer abc", "bearer  x ", "BEARER\tx", "Basic x", "", "Bearer", "Bearer " + auth.NewSecret(auth.APIKeyPrefix), "Bearer stk_\x00"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, header string) {
		token := auth.Bearer(header)
		if token != strings.TrimSpace(token) || !strings.Contains(header, token) {
			t.Fatalf("%q from %q", token, header)
		}
		if auth.IsAPIKey(token) && strings.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r >= 0x7f }) {
			t.Fatalf("%q is an API key", token)
		}
		if kind, id, ok := auth.ParseSubject(token); ok && auth.Subject(kind, id) != token {
			t.Fatalf("%q is a subject", token)
		}
	})
}

// FuzzKeys: keys that are taken are those that are shown again.
func FuzzKeys(f *testing.F) {
	signing, public, _ := auth.GenerateKey("k")
	kid, seed, _ := strings.Cut(signing, ":")
	for _, seed := range []string{signing, seed + ":" + kid, public, public + "," + public, "k:", ":", "a b:AAAA", public + ", j:" + strings.TrimPrefix(public, "k:")} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if s, err := auth.ParseSigner(text); err == nil {
			if _, err := auth.NewVerifier(s.PublicKey()); err != nil {
				t.Fatalf("%q signs and nobody verifies: %v", text, err)
			}
		} else {
			for part := range strings.SplitSeq(text, ":") { // either may be the secret
				if len(part) > 20 && strings.Contains(err.Error(), part) {
					t.Fatalf("shown: %v", err)
				}
			}
		}
		if _, err := auth.NewVerifier(text); err == nil {
			for entry := range strings.SplitSeq(text, ",") {
				_, key, _ := strings.Cut(strings.TrimSpace(entry), ":")
				if raw, err := base64.RawStdEncoding.DecodeString(strings.TrimRight(key, "=")); err != nil || len(raw) != 32 {
					t.Fatalf("%q is taken for a key", entry)
				}
			}
		}
	})
}
