package auditlog

import (
	"bytes"
	"fmt"
	"slices"

	"golang.org/x/mod/sumdb/tlog"
)

// Kind says what was found.
type Kind string

// What Checker finds.
const (
	Changed    Kind = "CHANGED"     // an entry is not what was sealed
	Removed    Kind = "REMOVED"     // an entry that was sealed is gone
	Inserted   Kind = "INSERTED"    // an entry that no leaf names stands where all has been sealed
	ForgedID   Kind = "FORGED_ID"   // an entry's id is older than its transaction
	Swapped    Kind = "SWAPPED"     // two entries stand in each other's place
	LeafGone   Kind = "LEAF_GONE"   // the log itself lacks a leaf
	StoredHash Kind = "STORED_HASH" // a stored hash is not that of the leaves below it
	HeadForged Kind = "HEAD_FORGED" // a head that no known key has signed, or whose row says something else
	HeadGone   Kind = "HEAD_GONE"   // leaves that no head covers, or a head that is not the next
	Rewritten  Kind = "REWRITTEN"   // leaves and stored hashes agree, but not with what was signed
	RolledBack Kind = "ROLLED_BACK" // the saved head is of a longer log than this
	OtherLog   Kind = "OTHER_LOG"   // the saved head is of another history
)

// Finding is one thing that is wrong.
type Finding struct {
	Kind Kind
	// EntryID and Leaf are those concerned, 0 and -1 where none is.
	EntryID, Leaf int64
	// Text says it to a person.
	Text string
}

// LeafRow is a leaf as the database has it, with the entry that it names; nil when there is none.
type LeafRow struct {
	Leaf, EntryID int64
	Salt, Hashes  []byte
	Entry         *Entry
	// Forged: the entry's id was drawn before its transaction began.
	Forged bool
}

// HeadRow is a head as the database has it.
type HeadRow struct {
	Seal, Size int64
	// Cursor is the Cursor of the row's columns.
	Cursor tlog.Hash
	Note   string
}

// maxFindings bounds what is reported, maxPairs among how many swapped pairs are looked for.
const maxFindings, maxPairs = 1000, 200

// Checker checks a whole log from its first leaf on, in memory that does not grow with it. Feed it each leaf in the
// order of their numbers, each head, from the first, after the last leaf that it covers, then all entries without a leaf
// that ought to have one, then call Finish.
type Checker struct {
	verifier *Verifier
	saved    *Head
	tree     *Tree
	next     int64
	covered  int64
	seal     int64 // of the last head
	newest   *Head
	signed   string
	odd      []LeafRow // leaves whose entry is not what was sealed
	found    []Finding
	more     int
	broken   bool // a root was not the signed one, or leaves are gone: nothing later can be right
	savedOK  bool
}

// NewChecker makes one; saved is a head that was kept elsewhere, or nil.
func NewChecker(v *Verifier, saved *Head) *Checker {
	tree, _ := NewTree(0, tlog.HashReaderFunc(nil)) // of no leaves: nothing is read
	return &Checker{verifier: v, saved: saved, tree: tree}
}

func (c *Checker) report(k Kind, entry, leaf int64, format string, args ...any) {
	if len(c.found) >= maxFindings {
		c.more++
		return
	}
	c.found = append(c.found, Finding{k, entry, leaf, fmt.Sprintf(format, args...)})
}

// Leaf takes the next leaf.
func (c *Checker) Leaf(row LeafRow) error {
	if row.Leaf != c.next {
		c.report(LeafGone, 0, c.next, "leaves %d to %d are missing from the log", c.next, row.Leaf-1)
		c.broken, c.next = true, row.Leaf
	}
	c.next++
	if len(row.Hashes) < tlog.HashSize {
		c.report(StoredHash, row.EntryID, row.Leaf, "leaf %d has no hash", row.Leaf)
		c.broken = true
		return nil
	}
	stored := tlog.Hash(row.Hashes[:tlog.HashSize])
	differs := row.Entry != nil && LeafHash(row.Salt, *row.Entry) != stored
	switch {
	case row.Entry == nil:
		c.report(Removed, row.EntryID, row.Leaf, "entry %d (leaf %d) has been removed", row.EntryID, row.Leaf)
	case differs && len(c.odd) < maxFindings:
		c.odd = append(c.odd, row)
	case differs:
		c.more++
	case row.Forged:
		c.report(ForgedID, row.EntryID, row.Leaf, "entry %d (leaf %d) was written by a transaction that began after later ids had been sealed: its id is forged",
			row.EntryID, row.Leaf)
	}
	if c.broken {
		return nil
	}
	hashes, err := c.tree.Add(stored)
	if err != nil {
		return err
	}
	if !bytes.Equal(row.Hashes, JoinHashes(hashes)) {
		c.report(StoredHash, row.EntryID, row.Leaf, "the stored hashes of leaf %d are not those of the leaves below them", row.Leaf)
	}
	if c.saved != nil && c.saved.Size == c.next {
		return c.compareSaved()
	}
	return nil
}

func (c *Checker) compareSaved() error {
	root, err := c.tree.Root()
	c.savedOK = root == c.saved.Root
	return err
}

// Head takes the next head.
func (c *Checker) Head(row HeadRow) error {
	if row.Seal != c.seal+1 {
		c.report(HeadGone, 0, -1, "head %d stands where head %d belongs: heads were removed or renumbered", row.Seal, c.seal+1)
	}
	c.seal = row.Seal
	h, err := c.verifier.Open(row.Note)
	switch {
	case err != nil:
		c.report(HeadForged, 0, -1, "head %d (%d leaves): %v", row.Seal, row.Size, err)
		return nil
	case h.Size != row.Size || h.Cursor != row.Cursor:
		c.report(HeadForged, 0, -1, "head %d: its row says something else than was signed", row.Seal)
		return nil
	}
	since := c.covered
	c.covered, c.newest, c.signed = h.Size, &h, row.Note
	if c.broken {
		return nil
	}
	if h.Size != c.next {
		c.report(LeafGone, 0, c.next, "head %d has sealed %d leaves, of which the log has only %d", row.Seal, h.Size, c.next)
		c.broken = true
		return nil
	}
	root, err := c.tree.Root()
	if err == nil && root != h.Root {
		c.report(Rewritten, 0, since, "leaves %d to %d are not what was signed in head %d (%s), though they agree with their stored hashes: they were rewritten",
			since, h.Size-1, row.Seal, h.SealedAt.Format("2006-01-02 15:04:05"))
		c.broken = true
	}
	return err
}

// Unsealed takes an entry that no leaf names though the newest head's cursor has passed it.
func (c *Checker) Unsealed(id int64, forged bool) {
	if forged {
		c.report(ForgedID, id, -1, "entry %d is newer than the newest head, but its id is older: it is forged", id)
		return
	}
	c.report(Inserted, id, -1, "entry %d stands where everything has been sealed, and no leaf names it: it was inserted", id)
}

// Report is what was found.
type Report struct {
	// Head is the newest head with a good signature; nil when there is none.
	Head *Head
	// Signed is the note that it was signed in.
	Signed string
	// Leaves is how many leaves were read.
	Leaves   int64
	Findings []Finding
	// More counts what was found beyond Findings.
	More int
}

// Finish compares with the saved head and gives the result.
func (c *Checker) Finish() Report {
	c.pairs()
	if c.next > c.covered {
		c.report(HeadGone, 0, c.covered, "leaves %d to %d are covered by no head", c.covered, c.next-1)
	}
	switch s := c.saved; {
	case s == nil || s.Size == 0:
	case s.Size > c.next:
		c.report(RolledBack, 0, -1, "the saved head of %s has %d leaves, the database has %d: it has been put back to an older state, or its end was cut off",
			s.SealedAt.Format("2006-01-02 15:04:05"), s.Size, c.next)
	case !c.savedOK:
		c.report(OtherLog, 0, -1, "the first %d leaves are not those of the saved head of %s: the log was rewritten since, or put back and continued",
			s.Size, s.SealedAt.Format("2006-01-02 15:04:05"))
	}
	slices.SortStableFunc(c.found, func(a, b Finding) int { return int(min(max(a.Leaf-b.Leaf, -1), 1)) })
	return Report{Head: c.newest, Signed: c.signed, Leaves: c.next, Findings: c.found, More: c.more}
}

// pairs tells entries that stand in each other's place from those that were changed.
func (c *Checker) pairs() {
	for i := range c.odd {
		a := &c.odd[i]
		other := slices.IndexFunc(c.odd[:min(len(c.odd), maxPairs)], func(b LeafRow) bool { return b.Leaf != a.Leaf && stands(a, *b.Entry) })
		if other < 0 {
			c.report(Changed, a.EntryID, a.Leaf, "entry %d (leaf %d) is not what was sealed: it was changed", a.EntryID, a.Leaf)
			continue
		}
		b := &c.odd[other]
		c.report(Swapped, a.EntryID, a.Leaf, "what was sealed as entry %d (leaf %d) stands at entry %d (leaf %d): they were swapped",
			a.EntryID, a.Leaf, b.EntryID, b.Leaf)
	}
}

// stands tells whether entry e, perhaps under another id, is what leaf a has sealed.
func stands(a *LeafRow, e Entry) bool {
	stored := tlog.Hash(a.Hashes[:tlog.HashSize])
	if LeafHash(a.Salt, e) == stored {
		return true
	}
	e.ID = a.EntryID
	return LeafHash(a.Salt, e) == stored
}
