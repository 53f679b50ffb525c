package suite

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/sametick/sametick/pkg/auditlog"
	"github.com/sametick/sametick/pkg/auth"
	"github.com/sametick/sametick/pkg/keyring"
)

// Secrets are made once per directory and kept in it, readable by their owner alone.
type Secrets struct {
	SigningKey    string `json:"signing_key"`
	PublicKey     string `json:"public_key"`
	InternalToken string `json:"internal_token"`
	// AuditSigningKey signs the heads of the audit log, AuditPublicKey verifies them.
	AuditSigningKey string `json:"audit_signing_key"`
	AuditPublicKey  string `json:"audit_public_key"`
	// EncryptionKeys seal what the workers keep secret.
	EncryptionKeys string `json:"encryption_keys"`
	// RolePassword is that of every service's role.
	RolePassword string `json:"role_password"`
	// Email and Password are the demo user's, APIKey the demo key.
	Email    string `json:"email"`
	Password string `json:"password"`
	APIKey   string `json:"api_key"`
	// OwnDatabaseURL and OwnRedisURL are those of the private servers, once they have run.
	OwnDatabaseURL string `json:"own_database_url,omitempty"`
	OwnRedisURL    string `json:"own_redis_url,omitempty"`
}

func (s *Suite) secretsFile() string { return filepath.Join(s.o.Dir, "secrets.json") }

func (s *Suite) loadSecrets(context.Context) error {
	b, err := os.ReadFile(s.secretsFile())
	if errors.Is(err, fs.ErrNotExist) {
		return s.makeSecrets()
	}
	if err != nil {
		return fmt.Errorf("read the suite's secrets: %w", err)
	}
	if err := json.Unmarshal(b, &s.Secrets); err != nil {
		return fmt.Errorf("%s is damaged (%w): remove %s to begin anew", s.secretsFile(), err, s.o.Dir)
	}
	if s.Secrets.AuditSigningKey != "" && s.Secrets.EncryptionKeys != "" {
		return nil
	}
	if err := s.makeKeys(); err != nil { // a suite from before there were all of them
		return err
	}
	return s.saveSecrets()
}

// makeKeys makes those that are missing.
func (s *Suite) makeKeys() (err error) {
	if s.Secrets.EncryptionKeys == "" {
		s.Secrets.EncryptionKeys = keyring.Generate("dev")
	}
	if s.Secrets.AuditSigningKey == "" {
		s.Secrets.AuditSigningKey, s.Secrets.AuditPublicKey, err = auditlog.GenerateKey("audit.dev")
	}
	return err
}

func (s *Suite) makeSecrets() error {
	signing, public, err := auth.GenerateKey("dev")
	if err != nil {
		return fmt.Errorf("make a signing key: %w", err)
	}
	s.Secrets = Secrets{
		SigningKey: signing, PublicKey: public, InternalToken: rand.Text(), RolePassword: rand.Text(),
		Email: "demo@example.com", Password: rand.Text(),
	}
	if err := s.makeKeys(); err != nil {
		return err
	}
	return s.saveSecrets()
}

// saveSecrets writes beside and renames: a full disk leaves the old file.
func (s *Suite) saveSecrets() error {
	b, err := json.MarshalIndent(s.Secrets, "", "  ")
	if err != nil {
		return fmt.Errorf("encode the suite's secrets: %w", err)
	}
	return writeFile(s.secretsFile(), append(b, '\n'))
}

func writeFile(name string, b []byte) error {
	half := name + ".new"
	if err := os.WriteFile(half, b, 0o600); err != nil {
		return fmt.Errorf("cannot write %s: %w: make it writable, or free space", name, err)
	}
	if err := os.Rename(half, name); err != nil {
		return fmt.Errorf("cannot write %s: %w", name, err)
	}
	return nil
}

// roleURL is the database as a service sees it, whatever form the given address has. A form that
// carried the administrator's name past this would also carry services past row-level security.
func (s *Suite) roleURL(role string) string {
	scheme, rest, ok := strings.Cut(s.DatabaseURL, "://")
	if !ok { // keywords and values: of two, libpq and pgx take the later one
		return fmt.Sprintf("%s user='%s' password='%s'", s.DatabaseURL, role, s.Secrets.RolePassword)
	}
	// By hand, because net/url knows no list of hosts.
	rest, query, _ := strings.Cut(rest, "?")
	authority, path, _ := strings.Cut(rest, "/")
	if at := strings.LastIndex(authority, "@"); at >= 0 {
		authority = authority[at+1:]
	}
	kept := slices.DeleteFunc(strings.Split(query, "&"), func(pair string) bool {
		name, _, _ := strings.Cut(pair, "=")
		name, err := url.QueryUnescape(name)
		return err != nil || name == "" || name == "user" || name == "password"
	})
	return fmt.Sprintf("%s://%s@%s/%s?%s", scheme, url.UserPassword(role, s.Secrets.RolePassword), authority, path, strings.Join(kept, "&"))
}

// setRolePasswords lets the services' roles in: migrations make them without a password.
func (s *Suite) setRolePasswords(ctx context.Context) error {
	conn, err := pgx.Connect(ctx, s.DatabaseURL)
	if err != nil {
		return fmt.Errorf("connect to the database: %w", err)
	}
	defer func() { _ = conn.Close(ctx) }()
	for _, role := range []string{"sametick_api", "sametick_relay", "sametick_webhook", "sametick_prompt"} {
		// The password is of letters and digits: ALTER ROLE takes no parameters.
		if _, err := conn.Exec(ctx, fmt.Sprintf("ALTER ROLE %s PASSWORD '%s'", role, s.Secrets.RolePassword)); err != nil {
			return fmt.Errorf("set the password of %s: %w: the user of DATABASE_URL must be a superuser or may create roles", role, err)
		}
	}
	return nil
}

// writeEnv writes what a shell, tick and a test need to talk to the suite.
func (s *Suite) writeEnv(context.Context) error {
	s.URL = "http://" + local(s.o.Ports["api-gateway"].HTTP)
	var b strings.Builder
	for _, line := range [][2]string{
		{"SAMETICK_URL", s.URL}, {"SAMETICK_TOKEN", s.Token}, {"SAMETICK_EMAIL", s.Secrets.Email}, {"SAMETICK_PASSWORD", s.Secrets.Password},
		{"DATABASE_URL", s.DatabaseURL}, {"REDIS_URL", s.RedisURL},
		{"AUDIT_PUBLIC_KEYS", s.Secrets.AuditPublicKey}, {"RELAY_ADDR", local(s.o.Ports["outbox-relay"].GRPC)}, {"INTERNAL_TOKEN", s.Secrets.InternalToken},
	} {
		fmt.Fprintf(&b, "export %s='%s'\n", line[0], strings.ReplaceAll(line[1], "'", `'\''`))
	}
	return writeFile(filepath.Join(s.o.Dir, "env"), []byte(b.String()))
}
