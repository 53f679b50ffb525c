package auditlog

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// Head is what a signed head says: a checkpoint (https://c2sp.org/tlog-checkpoint) whose extension lines
// tell when it was made and bind the sealer's cursor.
type Head struct {
	// Origin names the log: the name of the key.
	Origin string
	// Size is the number of leaves, Root the hash over them.
	Size int64
	Root tlog.Hash
	// SealedAt is the sealer's clock, to the second.
	SealedAt time.Time
	// Cursor is SHA-256 of the cursor's text, see Cursor.
	Cursor tlog.Hash
}

func (h Head) text() string {
	return fmt.Sprintf("%s\n%d\n%s\ntime %s\ncursor %s\n", h.Origin, h.Size, h.Root, h.SealedAt.UTC().Format(time.RFC3339), h.Cursor)
}

var errHead = errors.New("not a head: want the lines origin, size, root, time and cursor")

func parseHead(text string) (h Head, err error) {
	lines := strings.Split(text, "\n")
	if len(lines) != 6 || lines[5] != "" {
		return h, errHead
	}
	at, timed := strings.CutPrefix(lines[3], "time ")
	cursor, bound := strings.CutPrefix(lines[4], "cursor ")
	if !timed || !bound {
		return h, errHead
	}
	h.Origin = lines[0]
	if h.Size, err = strconv.ParseInt(lines[1], 10, 64); err != nil || h.Size < 0 || strconv.FormatInt(h.Size, 10) != lines[1] {
		return h, errHead
	}
	if h.Root, err = tlog.ParseHash(lines[2]); err != nil {
		return h, errHead
	}
	if h.SealedAt, err = time.Parse(time.RFC3339, at); err != nil {
		return h, errHead
	}
	if h.Cursor, err = tlog.ParseHash(cursor); err != nil {
		return h, errHead
	}
	return h, nil
}

// Cursor hashes where the sealer stood, see the package comment: an attacker would otherwise make what he inserted look
// newer than the head, or an older head look like the newest.
func Cursor(seal int64, snapshot, paging string, pageAfter, maxID int64, claimXid string, systemIdentifier int64) tlog.Hash {
	return sha256.Sum256(fmt.Appendf(nil, "%d\n%s\n%s\n%d\n%d\n%s\n%d\n", seal, snapshot, paging, pageAfter, maxID, claimXid, systemIdentifier))
}

// Signer signs heads. Safe for concurrent use.
type Signer struct {
	signer note.Signer
	public string
}

// GenerateKey makes a pair of keys in the form of signed notes; name becomes the log's origin.
func GenerateKey(name string) (private, public string, err error) {
	private, public, err = note.GenerateKey(rand.Reader, name)
	if err != nil {
		return "", "", fmt.Errorf("make a key: %w", err)
	}
	if _, err := note.NewVerifier(public); err != nil {
		return "", "", fmt.Errorf("the name %q: no spaces and no plus signs", name)
	}
	return private, public, nil
}

// ParseSigner reads AUDIT_SIGNING_KEY, "PRIVATE+KEY+name+id+base64". Its errors never show the key.
func ParseSigner(private string) (*Signer, error) {
	s, err := note.NewSigner(private)
	if err != nil {
		return nil, errors.New("signing key: want PRIVATE+KEY+name+id+base64, as outbox-relay audit-key prints it")
	}
	parts := strings.SplitN(private, "+", 5)
	seed, err := base64.StdEncoding.DecodeString(parts[4]) // one byte for the algorithm, which NewSigner has checked
	if err != nil || len(seed) != 1+ed25519.SeedSize {
		return nil, errors.New("signing key: its last part is not an Ed25519 seed")
	}
	key, _ := ed25519.NewKeyFromSeed(seed[1:]).Public().(ed25519.PublicKey)
	public, err := note.NewEd25519VerifierKey(s.Name(), key)
	if err != nil {
		return nil, fmt.Errorf("signing key: %w", err)
	}
	return &Signer{s, public}, nil
}

// PublicKey is what verifiers need: AUDIT_PUBLIC_KEYS.
func (s *Signer) PublicKey() string { return s.public }

// Sign gives a signed head; the origin is the key's name.
func (s *Signer) Sign(h Head) (string, error) {
	h.Origin = s.signer.Name()
	b, err := note.Sign(&note.Note{Text: h.text()}, s.signer)
	if err != nil {
		return "", fmt.Errorf("sign the head: %w", err)
	}
	return string(b), nil
}

// Verifier opens signed heads. Safe for concurrent use.
type Verifier struct{ known note.Verifiers }

// NewVerifier reads public keys, "name+id+base64", several separated by commas: one that has been replaced is
// still needed for the heads that it signed.
func NewVerifier(keys string) (*Verifier, error) {
	var list []note.Verifier
	for key := range strings.SplitSeq(keys, ",") {
		if key = strings.TrimSpace(key); key == "" {
			continue
		}
		v, err := note.NewVerifier(key)
		if err != nil {
			return nil, errors.New("public key: want name+id+base64, as outbox-relay audit-key prints it, several separated by commas")
		}
		list = append(list, v)
	}
	if len(list) == 0 {
		return nil, errors.New("public key: there is none")
	}
	return &Verifier{note.VerifierList(list...)}, nil
}

// Open gives what a signed head says, if one of the keys has signed it and it is of the key's own log.
func (v *Verifier) Open(signed string) (Head, error) {
	n, err := note.Open([]byte(signed), v.known)
	if err != nil {
		return Head{}, fmt.Errorf("the head's signature: %w", err)
	}
	h, err := parseHead(n.Text)
	if err != nil {
		return Head{}, err
	}
	for _, s := range n.Sigs {
		if s.Name == h.Origin {
			return h, nil
		}
	}
	return Head{}, fmt.Errorf("the head is of the log %q, whose key has not signed it", h.Origin)
}
