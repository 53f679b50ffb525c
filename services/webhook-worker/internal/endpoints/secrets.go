package endpoints

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"

	"github.com/sametick/sametick/pkg/keyring"
	"github.com/sametick/sametick/services/webhook-worker/internal/delivery"
)

// Kinds of secrets, and the prefixes of their texts (Standard Webhooks, "Signature scheme").
const (
	symmetric  = "v1"
	asymmetric = "v1a"

	symmetricPrefix = "whsec_"
	privatePrefix   = "whsk_"
	publicPrefix    = "whpk_"
)

// secretBytes is the length of a new symmetric secret; the standard has 24 to 64.
const secretBytes = 32

// vault seals what must stay secret of one endpoint.
type vault struct {
	ring *keyring.Ring
	org  int64
	id   int64
}

func (v vault) seal(purpose, text string) []byte {
	return v.ring.Seal(keyring.Owner{OrgID: v.org, ID: v.id, Purpose: purpose}, []byte(text))
}

// symmetric seals a secret, a new one when none is brought, and gives its text too.
func (v vault) symmetric(brought string) (Secret, string) {
	if brought == "" {
		b := make([]byte, secretBytes)
		_, _ = rand.Read(b) // never fails (crypto/rand, Go 1.24)
		brought = symmetricPrefix + base64.StdEncoding.EncodeToString(b)
	}
	return Secret{Kind: symmetric, Sealed: v.seal(delivery.PurposeSecret, brought)}, brought
}

// asymmetric makes a new key: whsk_ and whpk_ are base64 of seed and public key, and of the public key.
func (v vault) asymmetric() Secret {
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil { // never, as above
		panic(err)
	}
	return Secret{Kind: asymmetric, Sealed: v.seal(delivery.PurposeSecret, privatePrefix+base64.StdEncoding.EncodeToString(private)),
		PublicKey: publicPrefix + base64.StdEncoding.EncodeToString(public)}
}

// authorization seals the header's value; empty for none.
func (v vault) authorization(a Auth) []byte {
	switch a.Kind {
	case authBasic:
		return v.seal(delivery.PurposeAuth, "Basic "+base64.StdEncoding.EncodeToString([]byte(a.Username+":"+a.Password)))
	case authBearer:
		return v.seal(delivery.PurposeAuth, "Bearer "+a.Token)
	default:
		return []byte{}
	}
}

func (v vault) clientKey(pem string) []byte {
	if pem == "" {
		return []byte{}
	}
	return v.seal(delivery.PurposeClientKey, pem)
}
