package idempotency

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"errors"
	"fmt"
	"strconv"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
)

// sealer makes the cipher of an answer: its key is the caller's, which is not stored.
func sealer(key string, orgID int64) (cipher.AEAD, error) {
	secret, err := hkdf.Key(sha256.New, []byte(key), nil, "sametick idempotency "+strconv.FormatInt(orgID, 10), 32)
	if err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(secret)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCMWithRandomNonce(block)
}

func encrypt(seal cipher.AEAD, answer any) ([]byte, error) {
	m, ok := answer.(proto.Message)
	if !ok {
		return nil, errors.New("idempotency: an answer that is no message")
	}
	any, err := anypb.New(m)
	if err != nil {
		return nil, err
	}
	text, err := proto.Marshal(any)
	if err != nil {
		return nil, err
	}
	return seal.Seal(nil, nil, text, nil), nil
}

func decrypt(seal cipher.AEAD, kept []byte) (any, error) {
	text, err := seal.Open(nil, nil, kept, nil)
	if err != nil {
		return nil, fmt.Errorf("idempotency: a kept answer cannot be read: %w", err)
	}
	var m anypb.Any
	if err := proto.Unmarshal(text, &m); err != nil {
		return nil, err
	}
	return m.UnmarshalNew()
}
