package auditlog

import (
	"errors"
	"fmt"
	"math/bits"

	"golang.org/x/mod/sumdb/tlog"
)

// Tree grows leaf by leaf. It knows the hashes of its right edge alone, at most 63 whatever its size.
type Tree struct {
	size int64
	edge map[int64]tlog.Hash // by tlog's index of stored hashes
}

// edgeOf gives the stored hashes (tlog's indexes) that a tree of this size goes on from.
func edgeOf(size int64) []int64 {
	var indexes []int64
	for rest := uint64(size); rest != 0; rest &= rest - 1 { // one whole subtree for each bit
		level := bits.TrailingZeros64(rest)
		indexes = append(indexes, tlog.StoredHashIndex(level, size>>level-1))
	}
	return indexes
}

// NewTree goes on from a tree of this size; read is asked for the hashes of its right edge.
func NewTree(size int64, read tlog.HashReader) (*Tree, error) {
	t := &Tree{size: size, edge: map[int64]tlog.Hash{}}
	indexes := edgeOf(size)
	if len(indexes) == 0 {
		return t, nil
	}
	hashes, err := read.ReadHashes(indexes)
	if err != nil {
		return nil, fmt.Errorf("read the tree's edge: %w", err)
	}
	for i, index := range indexes {
		t.edge[index] = hashes[i]
	}
	return t, nil
}

// Size is the number of leaves.
func (t *Tree) Size() int64 { return t.size }

// ReadHashes implements tlog.HashReader for the edge.
func (t *Tree) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	out := make([]tlog.Hash, len(indexes))
	for i, index := range indexes {
		h, ok := t.edge[index]
		if !ok {
			return nil, errors.New("auditlog: a hash behind the edge")
		}
		out[i] = h
	}
	return out, nil
}

// Add adds a leaf and gives the hashes that are to be stored with it: its own, and those of the subtrees
// that it completes, from the smallest.
func (t *Tree) Add(leaf tlog.Hash) ([]tlog.Hash, error) {
	hashes, err := tlog.StoredHashesForRecordHash(t.size, leaf, t)
	if err != nil {
		return nil, fmt.Errorf("add leaf %d: %w", t.size, err)
	}
	t.size++
	top := len(hashes) - 1
	for level := range top { // the left halves of what is now whole
		delete(t.edge, tlog.StoredHashIndex(level, t.size>>level-2))
	}
	t.edge[tlog.StoredHashIndex(top, t.size>>top-1)] = hashes[top]
	return hashes, nil
}

// JoinHashes puts what Add gives in the form that it is stored in, the column hashes of sametick.audit_leaves: 32 bytes
// each, one after the other.
func JoinHashes(hashes []tlog.Hash) []byte {
	b := make([]byte, 0, len(hashes)*tlog.HashSize)
	for _, h := range hashes {
		b = append(b, h[:]...)
	}
	return b
}

// Root is the hash over all leaves; of none, SHA-256 of nothing (RFC 6962, 2.1).
func (t *Tree) Root() (tlog.Hash, error) {
	h, err := tlog.TreeHash(t.size, t)
	if err != nil {
		return h, fmt.Errorf("the tree's root: %w", err)
	}
	return h, nil
}

// Place tells which leaf a stored hash is kept with, and which of that leaf's hashes it is.
func Place(index int64) (leaf int64, nth int) {
	level, n := tlog.SplitStoredHashIndex(index)
	return (n+1)<<level - 1, level
}
