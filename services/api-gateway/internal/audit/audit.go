// Package audit has the rules of reading the audit log: which filters there are, what an export records, and whose
// proof may be shown to whom. Entries are written with what they tell of, by pkg/outbox, and sealed by
// outbox-relay; nothing here changes any.
package audit

import (
	"context"
	"time"

	"github.com/sametick/sametick/services/api-gateway/internal/paging"
	"github.com/sametick/sametick/services/api-gateway/internal/records"
)

// Entry is one entry. Pointers are nil where nothing is known.
type Entry struct {
	ID, OrgID       int64
	ActorID         *int64
	Action, Outcome string
	AggregateType   string
	AggregateID     int64
	EventIDs        []int64
	// Changes is a JSON object; nil when nothing was changed.
	Changes                  []byte
	RequestID, IP, UserAgent *string
	OccurredAt               time.Time
}

// Query selects entries of one organisation. Empty strings and nil select everything.
type Query struct {
	AggregateType        string
	AggregateID, ActorID *int64
	Action, Outcome      string
	RequestID            string
	// From and To are exclusive.
	From, To *time.Time
}

// Page is one page of a list.
type Page struct {
	Entries []Entry
	// Total is how many match, over all pages.
	Total int64
	// More tells whether there are older ones.
	More bool
}

// Store reads entries, and records that somebody has exported them.
type Store interface {
	// GetEntry gives one entry; NotFound also for another organisation's.
	GetEntry(ctx context.Context, orgID, id int64) (Entry, error)
	// ListEntries gives entries with ids below before, newest first. Total and page come from one snapshot.
	ListEntries(ctx context.Context, orgID int64, q Query, before int64, p paging.Page) (Page, error)
	// NewestEntry gives the greatest id of the organisation's entries, 0 for none.
	NewestEntry(ctx context.Context, orgID int64) (int64, error)
	// EntriesAfter gives up to limit entries with ids in (after, through], oldest first.
	EntriesAfter(ctx context.Context, orgID int64, q Query, after, through int64, limit int) ([]Entry, error)
	// RecordExport records the event audit.exported with the filter, a JSON object.
	RecordExport(ctx context.Context, call records.Call, filter []byte) error
}

// Inclusion is the proof that an entry is in a signed head; see pkg/auditlog.
type Inclusion struct {
	Leaf   int64
	Salt   string
	Hashes []string
	Head   string
}

// Prover makes proofs, of whoever's entries.
type Prover interface {
	Head(ctx context.Context) (signed string, size int64, err error)
	Inclusion(ctx context.Context, entryID int64) (Inclusion, error)
	Consistency(ctx context.Context, from, to int64) ([]string, error)
}

// Service answers questions about the audit log. Safe for concurrent use.
type Service struct {
	prover  Prover // not embedded: its Inclusion asks for no organisation
	store   Store
	changed func()
}

// NewService makes a service; changed is called when something was recorded and must not block.
func NewService(s Store, p Prover, changed func()) *Service { return &Service{p, s, changed} }

// Get gives one entry.
func (s *Service) Get(ctx context.Context, orgID, id int64) (Entry, error) {
	return s.store.GetEntry(ctx, orgID, id)
}

// List gives one page, newest first, and the cursor of the next; empty on the last.
func (s *Service) List(ctx context.Context, orgID int64, f Filter) (Page, string, error) {
	q, err := f.query()
	if err != nil {
		return Page{}, "", err
	}
	p, before, err := f.page()
	if err != nil {
		return Page{}, "", err
	}
	page, err := s.store.ListEntries(ctx, orgID, q, before, p)
	if err != nil || !page.More {
		return page, "", err
	}
	return page, cursor(page.Entries[len(page.Entries)-1].ID), nil
}

// exportPage is how many entries an export has in memory.
const exportPage = 100

// Export gives each entry that matches, up to the newest id when it began, oldest first; one that commits meanwhile with a
// smaller id may be in it or not. Who exported what is recorded before the first is given, so that an export that
// is broken off is known too.
func (s *Service) Export(ctx context.Context, call records.Call, f Filter, each func(*Entry) error) error {
	q, err := f.query()
	if err != nil {
		return err
	}
	through, err := s.store.NewestEntry(ctx, call.OrgID)
	if err != nil {
		return err
	}
	if err := s.store.RecordExport(ctx, call, f.json()); err != nil {
		return err
	}
	s.changed()
	for after := int64(0); ; {
		list, err := s.store.EntriesAfter(ctx, call.OrgID, q, after, through, exportPage)
		if err != nil {
			return err
		}
		for i := range list {
			if err := each(&list[i]); err != nil {
				return err
			}
		}
		if len(list) < exportPage {
			return nil
		}
		after = list[len(list)-1].ID
	}
}

// Proof proves that an entry of the organisation is in the newest head. Another's is absent.
func (s *Service) Proof(ctx context.Context, orgID, id int64) (Inclusion, error) {
	if _, err := s.store.GetEntry(ctx, orgID, id); err != nil {
		return Inclusion{}, err
	}
	return s.prover.Inclusion(ctx, id)
}

// Head gives the newest signed head and its size.
func (s *Service) Head(ctx context.Context) (signed string, size int64, err error) {
	return s.prover.Head(ctx)
}

// Consistency proves that the log of size to begins with that of size from.
func (s *Service) Consistency(ctx context.Context, from, to int64) ([]string, error) {
	return s.prover.Consistency(ctx, from, to)
}
