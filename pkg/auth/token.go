package auth

import (
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/sametick/sametick/pkg/errs"
)

const (
	issuer   = "sametick"
	audience = "sametick"
	// leeway is how far the clocks of two machines may be apart.
	leeway = 30 * time.Second
	// maxToken bounds what is parsed; ours are under 600 bytes.
	maxToken = 4096
)

// claims are the token's content (RFC 7519), with the scope claim of RFC 8693.
type claims struct {
	jwt.RegisteredClaims
	Org   int64  `json:"org"`
	Scope string `json:"scope"`
	// User is the user behind an API key; a user's own token says so in sub.
	User *int64 `json:"user,omitempty"`
	// Session is the session of a login, as OpenID Connect's logout specifications name it.
	Session string `json:"sid,omitempty"`
	// IssuedMillis is iat to the millisecond: a token must be told from one that a revocation has ended
	// in the same second.
	IssuedMillis int64 `json:"iat_ms,omitempty"`
	// Endpoints are those that a portal token is for.
	Endpoints []int64 `json:"endpoints,omitempty"`
}

// Signer makes access tokens. Safe for concurrent use.
type Signer struct {
	kid string
	key ed25519.PrivateKey
	now func() time.Time
}

// ParseSigner reads TOKEN_SIGNING_KEY: "kid:" and the base64 of a 32-byte Ed25519 seed. Its errors
// never show the key.
func ParseSigner(s string) (*Signer, error) {
	kid, seed, err := parseKey(s, ed25519.SeedSize)
	if err != nil {
		return nil, fmt.Errorf("signing key: %w", err)
	}
	return &Signer{kid: kid, key: ed25519.NewKeyFromSeed(seed), now: time.Now}, nil
}

// PublicKey is this signer's entry of TOKEN_PUBLIC_KEYS.
func (s *Signer) PublicKey() string {
	public, _ := s.key.Public().(ed25519.PublicKey)
	return s.kid + ":" + base64.StdEncoding.EncodeToString(public)
}

// Sign makes a token for a principal that ends ttl from now, and gives the principal as Verify will
// see it: with IssuedAt, ExpiresAt and a fresh TokenID.
func (s *Signer) Sign(p Principal, ttl time.Duration) (string, Principal, error) {
	p.IssuedAt = s.now().Truncate(time.Millisecond)
	p.ExpiresAt = p.IssuedAt.Truncate(time.Second).Add(ttl)
	return s.sign(p, audience)
}

// sign makes a token for an audience; the principal says when it is issued and ends.
func (s *Signer) sign(p Principal, audience string) (string, Principal, error) {
	p.TokenID = NewSecret("")[:22]
	c := claims{
		RegisteredClaims: jwt.RegisteredClaims{
			Issuer: issuer, Audience: jwt.ClaimStrings{audience}, Subject: p.Subject, ID: p.TokenID,
			IssuedAt: jwt.NewNumericDate(p.IssuedAt.Truncate(time.Second)), ExpiresAt: jwt.NewNumericDate(p.ExpiresAt),
		},
		Org: p.OrgID, Scope: p.Scopes.String(), User: p.UserID, Session: p.SessionID, IssuedMillis: p.IssuedAt.UnixMilli(),
	}
	if p.Portal != nil {
		c.Endpoints = p.Portal.Endpoints
	}
	token := jwt.NewWithClaims(jwt.SigningMethodEdDSA, c)
	token.Header["kid"] = s.kid
	text, err := token.SignedString(s.key)
	if err != nil {
		return "", Principal{}, fmt.Errorf("sign token: %w", err)
	}
	return text, p, nil
}

// Verifier tells whose an access token is. Safe for concurrent use.
type Verifier struct {
	keys                 map[string]ed25519.PublicKey
	order                []string
	parser, portalParser *jwt.Parser
	now                  func() time.Time
	// What has been verified: of access tokens, and of portal tokens, which must never be taken for one another.
	known, portals verified
}

// Option changes a Verifier.
type Option func(*options)

type options struct{ now func() time.Time }

// WithClock takes the time from elsewhere, for tests.
func WithClock(now func() time.Time) Option { return func(o *options) { o.now = now } }

// NewVerifier reads TOKEN_PUBLIC_KEYS: "kid:base64" entries, separated by commas; several while keys
// rotate. The key is the raw 32 bytes of RFC 8032.
func NewVerifier(keys string, opts ...Option) (*Verifier, error) {
	o := options{now: time.Now}
	for _, opt := range opts {
		opt(&o)
	}
	v := &Verifier{keys: map[string]ed25519.PublicKey{}, now: o.now}
	for i, entry := range strings.Split(keys, ",") {
		kid, key, err := parseKey(strings.TrimSpace(entry), ed25519.PublicKeySize)
		if err != nil {
			return nil, fmt.Errorf("public key %d: %w", i+1, err)
		}
		if _, twice := v.keys[kid]; twice {
			return nil, fmt.Errorf("public key: kid %q occurs twice", kid)
		}
		v.keys[kid] = key
		v.order = append(v.order, kid)
	}
	// EdDSA and nothing else: what the token's header says never picks the algorithm (RFC 8725, 3.1).
	parser := func(audience string) *jwt.Parser {
		return jwt.NewParser(
			jwt.WithValidMethods([]string{jwt.SigningMethodEdDSA.Alg()}), jwt.WithLeeway(leeway),
			jwt.WithIssuer(issuer), jwt.WithAudience(audience), jwt.WithExpirationRequired(),
			jwt.WithIssuedAt(), jwt.WithStrictDecoding(), jwt.WithTimeFunc(o.now))
	}
	v.parser, v.portalParser = parser(audience), parser(portalAudience)
	return v, nil
}

// Verify tells whose the token is. Its errors are of kind Unauthenticated, with reason TOKEN_MISSING,
// TOKEN_MALFORMED, TOKEN_EXPIRED or TOKEN_INVALID (forged, of another key, issuer or algorithm).
func (v *Verifier) Verify(_ context.Context, token string) (Principal, error) {
	return v.verify(token, v.parser, &v.known, (*claims).principal)
}

func (v *Verifier) verify(token string, parser *jwt.Parser, known *verified, principal func(*claims) Principal) (Principal, error) {
	if token == "" {
		return Principal{}, ErrMissing()
	}
	if len(token) > maxToken {
		return Principal{}, refuse("TOKEN_MALFORMED", "the access token is too long", nil)
	}
	// Past its expiry a known token is parsed again, which says so.
	key := sha256.Sum256([]byte(token))
	if p, ok := known.find(key, v.now()); ok {
		return p, nil
	}
	var c claims
	if _, err := parser.ParseWithClaims(token, &c, v.key); err != nil {
		switch {
		case errors.Is(err, jwt.ErrTokenMalformed):
			return Principal{}, refuse("TOKEN_MALFORMED", "the access token is no JWT", err)
		case errors.Is(err, jwt.ErrTokenExpired):
			return Principal{}, refuse("TOKEN_EXPIRED", "the access token has expired", err)
		default:
			return Principal{}, refuse("TOKEN_INVALID", "the access token is not valid here", err)
		}
	}
	p := principal(&c)
	kind, id, ok := ParseSubject(c.Subject)
	if !ok || c.Org <= 0 || (c.User != nil && *c.User <= 0) {
		return Principal{}, refuse("TOKEN_INVALID", "the access token is not valid here", nil)
	}
	if kind == SubjectUser {
		p.UserID = &id
	}
	known.keep(key, p)
	return p, nil
}

func (c *claims) principal() Principal {
	return Principal{OrgID: c.Org, UserID: c.User, Subject: c.Subject, Scopes: ScopesOf(strings.Fields(c.Scope)...),
		ExpiresAt: c.ExpiresAt.Time, TokenID: c.ID, SessionID: c.Session, IssuedAt: c.issuedAt()}
}

// issuedAt is iat_ms, or iat of a token from before there was one.
func (c *claims) issuedAt() time.Time {
	switch {
	case c.IssuedMillis > 0:
		return time.UnixMilli(c.IssuedMillis)
	case c.IssuedAt != nil:
		return c.IssuedAt.Time
	default:
		return time.Time{}
	}
}

// PublicKey is a key that tokens are verified by.
type PublicKey struct {
	ID  string
	Key ed25519.PublicKey
}

// PublicKeys gives the keys in the order of TOKEN_PUBLIC_KEYS.
func (v *Verifier) PublicKeys() (list []PublicKey) {
	for _, kid := range v.order {
		list = append(list, PublicKey{kid, v.keys[kid]})
	}
	return list
}

// ErrMissing is the error for a call without any token.
func ErrMissing() error {
	return refuse("TOKEN_MISSING", "send an access token: Authorization: Bearer …", nil)
}

func (v *Verifier) key(t *jwt.Token) (any, error) {
	kid, _ := t.Header["kid"].(string)
	key, ok := v.keys[kid]
	if !ok {
		return nil, errors.New("unknown kid")
	}
	return key, nil
}

func refuse(reason, message string, cause error) error {
	return errs.New(errs.Unauthenticated, reason, message).WithCause(cause)
}

// The kinds of subject.
const (
	SubjectUser   = "user"
	SubjectAPIKey = "api_key"
)

// Subject writes a subject: "user:<id>" or "api_key:<id>".
func Subject(kind string, id int64) string { return kind + ":" + strconv.FormatInt(id, 10) }

// ParseSubject reads one; false for what Subject does not write.
func ParseSubject(s string) (kind string, id int64, ok bool) {
	kind, number, _ := strings.Cut(s, ":")
	id, err := strconv.ParseInt(number, 10, 64)
	ok = err == nil && id > 0 && (kind == SubjectUser || kind == SubjectAPIKey) && Subject(kind, id) == s
	return kind, id, ok
}

// GenerateKey makes a new pair: what TOKEN_SIGNING_KEY and TOKEN_PUBLIC_KEYS are set to. The kid
// matches [A-Za-z0-9_.-]+.
func GenerateKey(kid string) (signing, public string, err error) {
	_, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		return "", "", fmt.Errorf("generate key: %w", err)
	}
	signing = kid + ":" + base64.StdEncoding.EncodeToString(private.Seed())
	s, err := ParseSigner(signing)
	if err != nil {
		return "", "", err
	}
	return signing, s.PublicKey(), nil
}

func parseKey(s string, size int) (kid string, key []byte, err error) {
	kid, text, ok := strings.Cut(s, ":")
	if !ok || !regexp.MustCompile(`^[A-Za-z0-9_.-]{1,64}$`).MatchString(kid) {
		return "", nil, errors.New("must be kid:base64, the kid of letters, digits, '_', '.' and '-'")
	}
	key, err = base64.RawStdEncoding.DecodeString(strings.TrimRight(text, "="))
	if err != nil || len(key) != size {
		// Not the kid: of a key written the wrong way round that is the secret.
		return "", nil, fmt.Errorf("must have the base64 of %d bytes after the kid", size)
	}
	return kid, key, nil
}
