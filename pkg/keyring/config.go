package keyring

import (
	"errors"
	"strings"

	"github.com/sametick/sametick/pkg/config"
)

// Config is a service with secrets at rest.
type Config struct {
	EncryptionKeys config.Secret `env:"ENCRYPTION_KEYS,required" help:"keys that secrets at rest are sealed under: the first seals, all open" allowed:"name:base64 of 32 bytes, comma-separated; openssl rand -base64 32 makes one"`
}

// Ring gives the ring. It does not fail once config.Load has validated.
func (c *Config) Ring() (*Ring, error) { return Parse(c.EncryptionKeys.Reveal()) }

// Validate refuses what is no ring, without showing it.
func (c *Config) Validate() []config.Problem {
	_, err := c.Ring()
	if err == nil {
		return nil
	}
	for errors.Unwrap(err) != nil {
		err = errors.Unwrap(err)
	}
	return []config.Problem{{Name: "ENCRYPTION_KEYS", Text: "(not shown): " + strings.TrimPrefix(err.Error(), "keyring: ")}}
}
