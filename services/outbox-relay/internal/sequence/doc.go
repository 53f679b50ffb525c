// Package sequence decides which events come next and which positions they get. It is pure: it plans
// a query, is given the answer, and says what to claim; internal/store speaks to Postgres.
//
// # The problem
//
// Events get their id from a sequence when they are written and become visible when their
// transaction commits; the two orders differ. A reader that remembers the greatest id it has seen
// skips what commits late. A reader that stays below the oldest running transaction
// (pg_snapshot_xmin) loses nothing, but one forgotten transaction stops it.
//
// # The cursor
//
// The cursor is a snapshot S1 (xmin, xmax, xip: the transactions below xmax that still ran).
// Everything visible in S1 has a position. A poll is one statement and therefore has one snapshot S2;
// what is visible in S2 and was not in S1 is exactly
//
//	the visible rows with txid >= xmax(S1), and the visible rows with txid in xip(S1).
//
// So a poll reads each event once, finds late commits by name, and waits for nobody. The rows are
// sorted by id, each gets the next position of its shard, and one INSERT statement commits the batch:
// the positions, and a row of the ledger that holds S2, the new cursor. The ledger's key is
// the batch number, previous + 1: of two relays that claim at once one gets a unique violation, drops
// what it has and reads the cursor again. An idle poll moves S1 to S2 in memory only.
//
// # Paging
//
// A difference of more than n rows is taken in pages. S2 is fixed as `paging` and each page takes the
// next n rows of the difference S2 - S1 by id, after the last id of the page before. A page is claimed
// with the snapshot still S1, with `paging` and with its last id, so a relay that takes over goes on
// in the middle. A page of fewer than n rows ends it: its claim sets the snapshot to S2. Pages
// must not go by txid: a transaction may have an early txid and late ids. By id nothing
// can come in behind a page, because what is visible in the fixed S2 does not change.
//
// # P3: an entity's events get positions in the order they were committed
//
//  1. Let T1 and T2 write events e1 and e2 of one entity, T1 committing first.
//  2. A producer locks the entity's row before it draws an event's id, and holds it until its commit.
//  3. So T2 drew id(e2) after T1 had committed, and T1 drew id(e1) before: id(e1) < id(e2).
//  4. Postgres ends a transaction for all snapshots before it lets go of its row locks.
//  5. So T1 had ended for all snapshots before T2 went on, and every snapshot that sees T2 sees T1.
//  6. Let S be the first claimed snapshot that sees e2. By 5 it sees e1.
//  7. If an earlier claimed snapshot saw e1, e1 has its position from an earlier batch.
//  8. Else both are in the same difference, which is taken in the order of ids, paged or not: by 3 e1 is first.
//  9. Claimed snapshots follow each other: a poll starts after it has read the batch it builds on, and
//     the key lets only one batch build on it.
//  10. Positions of a shard rise along batches and within each. Hence position(e1) < position(e2).
//
// That no event is skipped or taken twice (P2, P5): S1 and the difference partition what S2 sees.
//
// # Bounds
//
// Two bounds keep the scans away from old partitions. The ledger has for each batch b its claim_xid
// C_b, drawn after its snapshot S_b, and max_id M_b, the greatest id visible in S_b. A transaction with
// xid >= C_b got its xid after S_b and draws ids after its xid, hence all its ids are > M_b. So
//
//	start = M_b of the newest b with C_b <= xmax(S1): below all rows with txid >= xmax(S1)
//	floor = M_b of the newest b with C_b <= xmin(S1): below all rows still to come
//
// M of S1 itself would be wrong: transactions that ran while S1 was taken have smaller ids to commit.
// Any subset of the pairs is valid, only less sharp, so they are thinned out freely (see Bounds).
//
// # When Postgres crashes
//
// Transaction ids that never reached the disk are given out again. The commit of a claim makes
// every id below its own durable, but S2 before its claim, and an S1 that moved in memory, may name ids of the future
// that was lost. So a poll and its claim must run in one session, and a new session starts
// with the ledger's cursor. (The ledger's CHECK claim_xid >= xmax(snapshot) refuses what breaks this.)
//
// A database restored from a dump has xids that start over while its rows keep their old txid. Then the
// xids of the cursor lie in the future: CheckIdentity refuses to go on, and `outbox-relay rebase` gives
// positions to all events that have none and sets base_id, the id up to which all is
// settled whatever its txid says.
package sequence
