package sequence

import "sort"

// Bound says that transactions from Xid on draw event ids beyond MaxID.
type Bound struct {
	Xid   uint64
	MaxID int64
}

// Bounds is what is known of the ledger's bounds, ascending. The zero value knows nothing, which is valid.
type Bounds struct{ list []Bound }

// maxBounds caps the memory; 20 ms apart and thinned by halves they reach back far enough.
const maxBounds = 512

// Add appends the newest bound. Bounds that do not rise tell nothing new and are left out.
func (b *Bounds) Add(n Bound) {
	if last := len(b.list) - 1; last >= 0 && (n.MaxID <= b.list[last].MaxID || n.Xid <= b.list[last].Xid) {
		return
	}
	if len(b.list) == maxBounds {
		b.thin()
	}
	b.list = append(b.list, n)
}

// thin drops every second bound of the older half: recent ones are asked for the most.
func (b *Bounds) thin() {
	kept := b.list[:0]
	for i, x := range b.list {
		if i >= maxBounds/2 || i%2 == 0 {
			kept = append(kept, x)
		}
	}
	b.list = kept
}

// Below gives an id that all rows of transactions from xid on are beyond; 0 when nothing is known.
func (b *Bounds) Below(xid uint64) int64 {
	i := sort.Search(len(b.list), func(i int) bool { return b.list[i].Xid > xid })
	if i == 0 {
		return 0
	}
	return b.list[i-1].MaxID
}
