// Package keyring seals secrets at rest: AES-256-GCM under the keys of a ring, which the environment gives. The
// first key seals, all open; so a key is replaced by putting a new one before it, sealing again what is Stale, and
// taking it away. What a secret is used for, and where it lies, is its owner's matter.
package keyring

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"regexp"
	"strings"
)

const (
	// version begins each sealed form.
	version = 1
	keySize = 32
	// overhead is the nonce and the tag of GCM.
	overhead = 12 + 16
)

var nameForm = regexp.MustCompile(`^[a-z0-9][a-z0-9_-]{0,31}$`)

var (
	// ErrUnknownKey is a secret sealed under a key that the ring lacks.
	ErrUnknownKey = errors.New("keyring: sealed under a key that the ring lacks")
	// ErrRefused is a secret that was changed, cut, or belongs to another owner.
	ErrRefused = errors.New("keyring: not sealed for this owner, or changed since")
)

// Owner is whose a secret is. A sealed secret opens for this owner alone: copied into another's row it is refused.
type Owner struct {
	OrgID, ID int64
	// Purpose tells secrets of one owner apart, such as "webhook.secret".
	Purpose string
}

// Ring holds the keys. Immutable, safe for concurrent use; it prints as the names of its keys.
//
// One key may seal 2³² secrets: its nonces are random (NIST SP 800-38D, section 8.3). A secret is sealed once when
// it is made and once for each new key, so no installation comes near; a new key begins anew.
type Ring struct{ keys []key }

type key struct {
	name   string
	header []byte
	aead   cipher.AEAD
}

// Parse reads a ring: "name:" and the base64 of 32 bytes, comma-separated. Names are of [a-z0-9_-], at most 32.
// Errors show no key.
func Parse(text string) (*Ring, error) {
	r := &Ring{}
	for i, entry := range strings.Split(text, ",") {
		k, err := parseKey(strings.TrimSpace(entry))
		if err != nil {
			return nil, fmt.Errorf("keyring: key %d: %w", i+1, err)
		}
		if r.find(k.name) != nil {
			return nil, fmt.Errorf("keyring: key %d: its name is taken", i+1)
		}
		r.keys = append(r.keys, k)
	}
	return r, nil
}

func parseKey(entry string) (key, error) {
	name, encoded, _ := strings.Cut(entry, ":")
	if !nameForm.MatchString(name) { // not shown: the two may have been swapped
		return key{}, errors.New("want name:base64, the name of [a-z0-9_-]")
	}
	raw, err := base64.StdEncoding.Strict().DecodeString(encoded)
	if err != nil || len(raw) != keySize {
		return key{}, fmt.Errorf("want the base64 of %d bytes after its name", keySize)
	}
	block, err := aes.NewCipher(raw)
	if err != nil {
		return key{}, err
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		return key{}, err
	}
	return key{name: name, header: append([]byte{version, byte(len(name))}, name...), aead: aead}, nil
}

// Generate makes a key for a ring: name must be a name as Parse reads it.
func Generate(name string) string {
	b := make([]byte, keySize)
	_, _ = rand.Read(b) // never fails (crypto/rand, Go 1.24)
	return name + ":" + base64.StdEncoding.EncodeToString(b)
}

func (r *Ring) find(name string) *key {
	for i := range r.keys {
		if r.keys[i].name == name {
			return &r.keys[i]
		}
	}
	return nil
}

// Seal encrypts a secret for its owner under the first key. The sealed form carries the key's name.
func (r *Ring) Seal(owner Owner, secret []byte) []byte {
	k := &r.keys[0]
	out := make([]byte, 0, len(k.header)+overhead+len(secret))
	out = append(out, k.header...)
	return k.aead.Seal(out, nil, secret, owner.bind(k.header))
}

// Open gives the secret of an owner. Errors: ErrUnknownKey, ErrRefused.
func (r *Ring) Open(owner Owner, sealed []byte) ([]byte, error) {
	name, ok := keyName(sealed)
	if !ok {
		return nil, ErrRefused
	}
	k := r.find(name)
	if k == nil {
		return nil, ErrUnknownKey
	}
	secret, err := k.aead.Open(nil, nil, sealed[len(k.header):], owner.bind(k.header))
	if err != nil {
		return nil, ErrRefused
	}
	return secret, nil
}

// Stale tells whether a sealed secret is under another key than the one that seals now.
func (r *Ring) Stale(sealed []byte) bool { return !bytes.HasPrefix(sealed, r.keys[0].header) }

// keyName reads the name of the key out of a sealed form.
func keyName(sealed []byte) (string, bool) {
	if len(sealed) < 2 || sealed[0] != version || len(sealed) < 2+int(sealed[1]) {
		return "", false
	}
	return string(sealed[2 : 2+int(sealed[1])]), true
}

// bind is the additional data: numbers of fixed size before the one text, so that no two owners have the same.
func (o Owner) bind(header []byte) []byte {
	b := make([]byte, 0, len(header)+16+len(o.Purpose))
	b = append(b, header...)
	b = binary.BigEndian.AppendUint64(b, uint64(o.OrgID))
	b = binary.BigEndian.AppendUint64(b, uint64(o.ID))
	return append(b, o.Purpose...)
}

// Format prints the names of the keys whatever the verb, since the ciphers hold what must not be shown.
func (r Ring) Format(f fmt.State, _ rune) {
	names := make([]string, len(r.keys))
	for i, k := range r.keys {
		names[i] = k.name
	}
	_, _ = fmt.Fprintf(f, "keyring(%s)", strings.Join(names, ","))
}
