package judge

import (
	"context"
	"fmt"
	"io"

	"github.com/jackc/pgx/v5"

	"github.com/sametick/sametick/deploy/torture/internal/ledger"
)

// Writes tells of each transaction that Postgres committed how many events it must have; it comes
// from the writers' own table, a row of which is written in the same transaction as the events.
type Writes map[int64]int32

// LoadWrites reads the writers' table.
func LoadWrites(ctx context.Context, db Querier) (Writes, error) {
	rows, err := db.Query(ctx, `SELECT tx, events FROM torture.writes`)
	if err != nil {
		return nil, fmt.Errorf("read the writes: %w", err)
	}
	var (
		w      = Writes{}
		tx     int64
		events int32
	)
	if _, err = pgx.ForEachRow(rows, []any{&tx, &events}, func() error { w[tx] = events; return nil }); err != nil {
		return nil, fmt.Errorf("read the writes: %w", err)
	}
	return w, nil
}

// Audits counts the audit entries of each event, in the order of Facts.
type Audits []uint8

// LoadAudits reads which events the audit entries are about. Unknown ids count into the last, extra
// element.
func LoadAudits(ctx context.Context, db Querier, f *Facts) (Audits, error) {
	rows, err := db.Query(ctx, `SELECT unnest(event_ids) FROM sametick.audit_entries`)
	if err != nil {
		return nil, fmt.Errorf("read the audit entries: %w", err)
	}
	var (
		a  = make(Audits, f.Len()+1)
		id int64
	)
	_, err = pgx.ForEachRow(rows, []any{&id}, func() error {
		i := f.find(id)
		if i < 0 {
			i = f.Len()
		}
		a[i] = min(a[i]+1, 250)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read the audit entries: %w", err)
	}
	return a, nil
}

// Commits judges P1: a transaction has its row, its events and their audit entries, or none of them;
// and what Postgres acknowledged is there.
func Commits(f *Facts, writes Writes, audits Audits, acknowledged io.Reader) (*Verdict, error) {
	v := &Verdict{What: "ledger ↔ events, audit (P1)", Checked: int64(f.Len())}
	had := make(map[int64]int32, len(writes))
	sequences := newSequences(f)
	for i := range f.list {
		a := &f.list[i]
		had[a.Tx]++
		if _, ok := writes[a.Tx]; !ok && (a.Tx != 0 || !products(f.entities[a.entity].Type)) {
			v.note(&v.Foreign, "%s belongs to a transaction that did not commit", f.describe(i))
		}
		if n := audits[i]; n == 0 {
			v.note(&v.Lost, "%s has no audit entry", f.describe(i))
		} else if n > 1 {
			v.note(&v.Twice, "%s has %d audit entries", f.describe(i), n)
		}
		sequences.check(v, i)
	}
	sequences.finish(v)
	if n := audits[f.Len()]; n > 0 {
		v.note(&v.Foreign, "%d audit entries are about events that do not exist", n)
	}
	for tx, want := range writes {
		if got := had[tx]; got < want {
			v.note(&v.Lost, "transaction %d committed %d events, %d are there", tx, want, got)
		} else if got > want {
			v.note(&v.Twice, "transaction %d committed %d events, %d are there", tx, want, got)
		}
	}
	err := ledger.Read(acknowledged, func(e ledger.Entry) error {
		checkEntry(v, f, writes, e)
		return nil
	})
	return v, err
}

// products tells of the aggregates that no writer of the ledger writes: the product does, or a writer through its API.
func products(aggregateType string) bool {
	switch aggregateType {
	case endpointType, "prompt_hook", "prompt_template", "prompt_provider", "prompt_run", "prompt_backtest", "organization", "user", "role", "api_key", "announcement", "feedback":
		return true
	default:
		return false
	}
}

// checkEntry compares one transaction as its writer knows it.
func checkEntry(v *Verdict, f *Facts, writes Writes, e ledger.Entry) {
	_, there := writes[e.Tx]
	switch {
	case e.Outcome == ledger.Aborted && there:
		v.note(&v.Foreign, "transaction %d (%s) was rolled back and is there", e.Tx, e.Kind)
	case e.Outcome == ledger.Committed && !there:
		v.note(&v.Lost, "transaction %d (%s) was acknowledged and is not there", e.Tx, e.Kind)
	case e.Outcome == ledger.Committed:
		for _, want := range e.Events {
			i := f.find(want.ID)
			if i < 0 {
				v.note(&v.Lost, "event %d of transaction %d (%s) was acknowledged and is not there", want.ID, e.Tx, e.Kind)
				continue
			}
			got := &f.list[i]
			if f.entities[got.entity] != (Entity{want.OrgID, want.Type, want.AggregateID}) || got.Sequence != want.Sequence || got.Tx != e.Tx {
				v.note(&v.Foreign, "%s was acknowledged as %v of transaction %d", f.describe(i), want, e.Tx)
			}
		}
	}
}

// sequences checks that each entity's sequences are 1, 2, 3 … in the order of ids: both are drawn
// under the entity's lock.
type sequences struct {
	facts    *Facts
	count    []int64
	greatest []int64
}

func newSequences(f *Facts) *sequences {
	return &sequences{facts: f, count: make([]int64, len(f.entities)), greatest: make([]int64, len(f.entities))}
}

func (s *sequences) check(v *Verdict, i int) {
	a := &s.facts.list[i]
	if a.Sequence <= s.greatest[a.entity] {
		v.note(&v.OutOfOrder, "%s has a later id than sequence %d", s.facts.describe(i), s.greatest[a.entity])
	}
	s.count[a.entity]++
	s.greatest[a.entity] = max(s.greatest[a.entity], a.Sequence)
}

func (s *sequences) finish(v *Verdict) {
	for i, n := range s.count {
		if n != s.greatest[i] {
			v.note(&v.Gaps, "%v has %d events and sequences up to %d", s.facts.entities[i], n, s.greatest[i])
		}
	}
}
