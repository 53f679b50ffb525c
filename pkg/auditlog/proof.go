package auditlog

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"

	"golang.org/x/mod/sumdb/tlog"
)

// Inclusion proves that an entry is a leaf of a signed head, as GET /api/audit/proofs/inclusion/{entry_id} answers.
type Inclusion struct {
	EntryID int64 `json:"entry_id"`
	// Leaf is its place in the log, from 0.
	Leaf int64 `json:"leaf"`
	// Salt is base64.
	Salt string `json:"salt"`
	// Hashes are the audit path (RFC 6962, 2.1.1), each base64.
	Hashes []string `json:"hashes"`
	// Head is the signed head.
	Head string `json:"head"`
}

// Bundle is all that is needed to check one entry without asking anybody but for the public key.
type Bundle struct {
	Entry Entry     `json:"entry"`
	Proof Inclusion `json:"proof"`
}

// ParseBundle reads a bundle.
func ParseBundle(b []byte) (Bundle, error) {
	var bundle Bundle
	if err := json.Unmarshal(b, &bundle); err != nil {
		return bundle, fmt.Errorf("not a proof: %w", err)
	}
	return bundle, nil
}

// Verify checks the head's signature and that the entry, as it stands in the bundle, is in the head.
func (b Bundle) Verify(v *Verifier) (Head, error) {
	head, err := v.Open(b.Proof.Head)
	if err != nil {
		return head, err
	}
	if b.Entry.ID != b.Proof.EntryID {
		return head, fmt.Errorf("the proof is of entry %d, not of %d", b.Proof.EntryID, b.Entry.ID)
	}
	salt, err := base64.StdEncoding.DecodeString(b.Proof.Salt)
	if err != nil || len(salt) != SaltSize {
		return head, errors.New("the proof has no salt of 16 bytes")
	}
	path, err := parseHashes(b.Proof.Hashes)
	if err != nil {
		return head, err
	}
	if b.Proof.Leaf < 0 || b.Proof.Leaf >= head.Size {
		return head, fmt.Errorf("leaf %d is not among the %d of the head", b.Proof.Leaf, head.Size)
	}
	if err := tlog.CheckRecord(path, head.Size, head.Root, b.Proof.Leaf, LeafHash(salt, b.Entry)); err != nil {
		return head, fmt.Errorf("entry %d is not what the head has sealed as leaf %d: the entry or its proof has been changed", b.Entry.ID, b.Proof.Leaf)
	}
	return head, nil
}

// CheckConsistency checks that the log of head newer begins with that of head older: nothing was rewritten between.
// It is for verifiers outside, who have two heads and a proof of GET /api/audit/proofs/consistency, and not the database.
func CheckConsistency(older, newer Head, hashes []string) error {
	path, err := parseHashes(hashes)
	if err != nil {
		return err
	}
	if older.Size < 1 || older.Size > newer.Size {
		return fmt.Errorf("a log of %d leaves cannot go on from one of %d", newer.Size, older.Size)
	}
	if err := tlog.CheckTree(path, newer.Size, newer.Root, older.Size, older.Root); err != nil {
		return fmt.Errorf("the log of %d leaves does not go on from that of %d: it was rewritten, or the proof was changed", newer.Size, older.Size)
	}
	return nil
}

// parseHashes reads hashes in base64.
func parseHashes(list []string) ([]tlog.Hash, error) {
	out := make([]tlog.Hash, len(list))
	for i, s := range list {
		h, err := tlog.ParseHash(s)
		if err != nil {
			return nil, fmt.Errorf("hash %d of the proof is not base64 of 32 bytes", i+1)
		}
		out[i] = h
	}
	return out, nil
}
