package auth

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"strings"
)

// The prefixes by which secrets are told apart, by people and by secret scanners.
const (
	APIKeyPrefix       = "stk_"
	RefreshTokenPrefix = "str_"
	InvitationPrefix   = "sti_"
	ResetPrefix        = "stp_"
	PortalPrefix       = "stw_"
)

// secretBytes is the entropy of a secret: nobody guesses 256 bits, so a plain hash of it suffices.
const secretBytes = 32

// NewSecret makes a secret from 32 random bytes: the prefix and 43 characters of base64url.
func NewSecret(prefix string) string {
	b := make([]byte, secretBytes)
	_, _ = rand.Read(b) // never fails (crypto/rand, Go 1.24)
	return prefix + base64.RawURLEncoding.EncodeToString(b)
}

// HashSecret is what is stored of a secret: its SHA-256.
func HashSecret(secret string) []byte {
	sum := sha256.Sum256([]byte(secret))
	return sum[:]
}

// IsAPIKey tells whether a credential has the form of an API key. Whether it is anybody's, only a
// look-up tells.
func IsAPIKey(s string) bool {
	const minLen, maxLen = len(APIKeyPrefix) + 43, 200
	if !strings.HasPrefix(s, APIKeyPrefix) || len(s) < minLen || len(s) > maxLen {
		return false
	}
	return strings.IndexFunc(s, func(c rune) bool {
		return (c < '0' || c > '9') && (c < 'A' || c > 'Z') && (c < 'a' || c > 'z') && c != '-' && c != '_'
	}) < 0
}
