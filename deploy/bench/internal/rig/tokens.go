package rig

import (
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"time"

	"github.com/sametick/sametick/pkg/auth"
)

// Tokens signs access tokens that the started services accept.
type Tokens struct {
	// SigningKey and PublicKeys are TOKEN_SIGNING_KEY and TOKEN_PUBLIC_KEYS.
	SigningKey, PublicKeys string

	signer *auth.Signer
}

// NewTokens makes a key for this run.
func NewTokens() (*Tokens, error) {
	seed := make([]byte, 32)
	_, _ = rand.Read(seed) // never fails, see crypto/rand
	key := "bench:" + base64.StdEncoding.EncodeToString(seed)
	signer, err := auth.ParseSigner(key)
	if err != nil {
		return nil, fmt.Errorf("make a token key: %w", err)
	}
	return &Tokens{SigningKey: key, PublicKeys: signer.PublicKey(), signer: signer}, nil
}

// For gives a day's token of an organisation's user 1, with every scope.
func (t *Tokens) For(org int64) (string, error) {
	user := int64(1)
	token, _, err := t.signer.Sign(auth.Principal{
		OrgID: org, UserID: &user, Subject: "user:1", Scopes: auth.ScopesOf(auth.AllScopes()...),
	}, 24*time.Hour)
	if err != nil {
		return "", fmt.Errorf("sign a token: %w", err)
	}
	return token, nil
}
