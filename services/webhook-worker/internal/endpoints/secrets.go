package endpoints

import (
	"encoding/base64"

	"github.com/sametick/sametick/pkg/keyring"
	"github.com/sametick/sametick/services/webhook-worker/internal/delivery"
	"github.com/sametick/sametick/services/webhook-worker/internal/signing"
)

// Kinds of secrets, by the signatures that they make.
const (
	symmetric  = "v1"
	asymmetric = "v1a"
)

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
		brought = signing.NewSecret()
	}
	return Secret{Kind: symmetric, Sealed: v.seal(delivery.PurposeSecret, brought)}, brought
}

func (v vault) asymmetric() Secret {
	private, public := signing.NewKeyPair()
	return Secret{Kind: asymmetric, Sealed: v.seal(delivery.PurposeSecret, private), PublicKey: public}
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
