package sequence

import (
	"fmt"

	"github.com/sametick/sametick/pkg/errs"
	"github.com/sametick/sametick/pkg/event"
)

// Positions holds one position for each shard.
type Positions [event.Shards]int64

// Identity names a Postgres cluster and its history.
type Identity struct {
	SystemIdentifier int64
	Timeline         int32
}

// Cursor is a row of the ledger, sametick.relay_batches; the newest is where sequencing stands.
type Cursor struct {
	// Batch numbers the rows from 1; 0 before the first.
	Batch int64
	// Snapshot is S1: all events visible in it have positions.
	Snapshot Snapshot
	// Paging is the fixed S2 while a large difference is taken in pages, else nil; PageAfter is the
	// last id taken, 0 before the first page.
	Paging    *Snapshot
	PageAfter int64
	// MaxID is the greatest event id visible in Snapshot, 0 when there is none.
	MaxID int64
	// BaseID: rows up to it are settled whatever their txid says.
	BaseID int64
	// Positions are the newest of each shard.
	Positions Positions
	// Claimed is the cluster that the row was claimed in, Identity the one that works on it now.
	Claimed, Identity Identity
}

// First is the cursor of a database whose ledger is empty.
func First(id Identity) Cursor { return Cursor{Snapshot: Nothing(), Claimed: id, Identity: id} }

// ReasonXidsWentBack is the reason of CheckIdentity's error.
const ReasonXidsWentBack = "XIDS_WENT_BACK"

// CheckIdentity refuses to go on from a cursor whose transaction ids lie in this cluster's
// future, as after a restore from a dump. A change of timeline alone is a failover, and fine.
// `newest` is the greatest txid of any event, 0 for none: an event from the future is as wrong.
func CheckIdentity(c Cursor, now Identity, current Snapshot, newest uint64) error {
	horizon := c.Snapshot.Xmax
	if c.Paging != nil {
		horizon = max(horizon, c.Paging.Xmax)
	}
	if current.Xmax >= horizon && newest < current.Xmax {
		return nil
	}
	return errs.New(errs.FailedPrecondition, ReasonXidsWentBack, fmt.Sprintf(
		"transaction ids went backwards (the ledger knows %d, events %d, this cluster is at %d; ledger of cluster %d timeline %d, "+
			"this is cluster %d timeline %d): was the database restored from a dump? Run `outbox-relay rebase` once to go on",
		horizon, newest, current.Xmax, c.Claimed.SystemIdentifier, c.Claimed.Timeline, now.SystemIdentifier, now.Timeline))
}
