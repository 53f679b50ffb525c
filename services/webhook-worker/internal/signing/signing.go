// Package signing signs what is sent, by Standard Webhooks (github.com/standard-webhooks/standard-webhooks, spec): v1 is
// HMAC-SHA256, v1a is Ed25519. Where secrets are kept, and how requests go out, is not known here.
package signing

import (
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"hash"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// The prefixes of secrets, and of the key that verifies v1a.
const (
	SymmetricPrefix = "whsec_"
	PrivatePrefix   = "whsk_"
	PublicPrefix    = "whpk_"
)

// The headers of a request.
const (
	HeaderID        = "webhook-id"
	HeaderTimestamp = "webhook-timestamp"
	HeaderSignature = "webhook-signature"
)

const minSecret, maxSecret, newSecret = 24, 64, 32

var (
	// ErrSecret is a text that is no secret. It never shows the text.
	ErrSecret = errors.New("signing: want whsec_ and the base64 of 24 to 64 bytes")
	// ErrPrivateKey is a text that is no private key.
	ErrPrivateKey = errors.New("signing: want whsk_ and the base64 of 64 bytes, an Ed25519 seed and its public key")
	// ErrNoSecret is a request that nothing would sign.
	ErrNoSecret = errors.New("signing: no secret")
)

// MessageID is the header webhook-id of an event for an endpoint: the same at each attempt and however often it is
// sent again. It has no dot, which separates what is signed.
func MessageID(eventID, endpointID int64) string {
	b := make([]byte, 0, 48)
	b = append(b, "msg_"...)
	b = strconv.AppendInt(b, eventID, 10)
	b = append(b, '_')
	return string(strconv.AppendInt(b, endpointID, 10))
}

// NewSecret makes a secret of 32 random bytes.
func NewSecret() string {
	b := make([]byte, newSecret)
	_, _ = rand.Read(b) // never fails (crypto/rand, Go 1.24)
	return SymmetricPrefix + base64.StdEncoding.EncodeToString(b)
}

// NewKeyPair makes a private key (whsk_) and the public one (whpk_) that verifies its signatures.
func NewKeyPair() (private, public string) {
	_, key, _ := ed25519.GenerateKey(nil) // never fails (crypto/ed25519, Go 1.24)
	return PrivatePrefix + base64.StdEncoding.EncodeToString(key), PublicPrefix + base64.StdEncoding.EncodeToString(key[ed25519.SeedSize:])
}

// Key is a secret, ready to sign. Immutable, safe for concurrent use; it prints nothing of itself.
type Key struct {
	// macs are hash.Hash states of a secret: to begin one anew is cheaper than to make it.
	macs    *sync.Pool
	private ed25519.PrivateKey
}

// Format hides the key whatever the verb.
func (Key) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte("[hidden]")) }

// Parse reads a secret (whsec_) or a private key (whsk_). Errors: ErrSecret, ErrPrivateKey.
func Parse(text string) (Key, error) {
	if encoded, ok := strings.CutPrefix(text, PrivatePrefix); ok {
		raw, err := decode(encoded)
		if err != nil || len(raw) != ed25519.PrivateKeySize || !slices.Equal(raw, ed25519.NewKeyFromSeed(raw[:ed25519.SeedSize])) {
			return Key{}, ErrPrivateKey
		}
		return Key{private: raw}, nil
	}
	encoded, ok := strings.CutPrefix(text, SymmetricPrefix)
	raw, err := decode(encoded)
	if !ok || err != nil || len(raw) < minSecret || len(raw) > maxSecret {
		return Key{}, ErrSecret
	}
	return Key{macs: &sync.Pool{New: func() any { return hmac.New(sha256.New, raw) }}}, nil
}

// decode reads base64 as every verifier does: padded, canonical, and nothing else in it.
func decode(s string) ([]byte, error) {
	if strings.ContainsAny(s, "\r\n") {
		return nil, ErrSecret
	}
	return base64.StdEncoding.Strict().DecodeString(s)
}

// PublicKey gives the whpk_ of a private key; empty for a secret.
func (k Key) PublicKey() string {
	if k.private == nil {
		return ""
	}
	return PublicPrefix + base64.StdEncoding.EncodeToString(k.private[ed25519.SeedSize:])
}

// Sign makes the header webhook-signature over the bytes that are sent: `{id}.{timestamp}.{body}`, the timestamp in whole
// seconds. Signatures are separated by one space. The v1 come first and in the order of the keys, newest first: a
// verifier that looks at the first alone is right as soon as it has the newest secret; v1a is last, since those who
// ask for it know of several. Errors: ErrNoSecret, and an id that is empty or has a dot or white space.
func Sign(keys []Key, id string, at time.Time, body []byte) (string, error) {
	if len(keys) == 0 {
		return "", ErrNoSecret
	}
	if id == "" || strings.ContainsAny(id, ". \t\r\n") {
		return "", fmt.Errorf("signing: %q is no message id", id)
	}
	head := make([]byte, 0, len(id)+22)
	head = append(head, id...)
	head = append(head, '.')
	head = strconv.AppendInt(head, at.Unix(), 10)
	head = append(head, '.')
	out := make([]byte, 0, 96*len(keys))
	for _, k := range keys {
		if k.private == nil {
			out = appendSignature(out, "v1,", k.mac(head, body))
		}
	}
	for _, k := range keys {
		if k.private != nil {
			out = appendSignature(out, "v1a,", ed25519.Sign(k.private, append(head[:len(head):len(head)], body...)))
		}
	}
	return string(out), nil
}

func (k Key) mac(head, body []byte) []byte {
	mac, ok := k.macs.Get().(hash.Hash)
	if !ok { // no other value is in it
		panic("signing: a pool of something else")
	}
	defer k.macs.Put(mac)
	mac.Reset()
	mac.Write(head)
	mac.Write(body)
	return mac.Sum(make([]byte, 0, sha256.Size))
}

func appendSignature(out []byte, version string, sum []byte) []byte {
	if len(out) > 0 {
		out = append(out, ' ')
	}
	return base64.StdEncoding.AppendEncode(append(out, version...), sum)
}
