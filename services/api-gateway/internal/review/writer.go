package review

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"reflect"
	"time"

	"github.com/sametick/sametick/pkg/errs"
	"github.com/sametick/sametick/pkg/event"
	"github.com/sametick/sametick/services/api-gateway/internal/records"
)

// maxRounds is how often a review begins anew because the record or the hooks have changed meanwhile.
const maxRounds = 3

// Store is what a reviewed writer stands before.
type Store interface {
	records.Writer
	Finder
	// Peek gives what Change would decide on, without a lock.
	Peek(ctx context.Context, call records.Call, typ event.Type, id int64, refs records.Refs) (records.Current, error)
	// PeekBatch gives what Batch would decide on, without locks and without new ids.
	PeekBatch(ctx context.Context, call records.Call, typ event.Type, ids []int64, refs []records.Refs) (records.Located, error)
	// Reject records the pre_* events of changes that were rejected and their audit entries, and nothing else, in a
	// transaction of its own. A change without an id gets one.
	Reject(ctx context.Context, call records.Call, list []*records.Change) error
	// InUnit tells whether the context's transaction has begun already, so that a failed write cannot be tried again.
	InUnit(ctx context.Context) bool
}

// Stats counts what reviews have done. Safe for concurrent use.
type Stats interface {
	// Reviewed counts a judged write: "approved", "rejected", "unavailable".
	Reviewed(outcome string)
	// FailedOpen counts a hook that failed and let the write pass.
	FailedOpen()
}

// Writer is a records.Writer that asks the hooks first. Where no hook matches it adds one number to the write and
// nothing else. Safe for concurrent use.
type Writer struct {
	store Store
	judge Judge
	sets  *sets
	stats Stats
}

// NewWriter makes a writer before a store.
func NewWriter(s Store, j Judge, stats Stats) *Writer {
	return &Writer{store: s, judge: j, sets: &sets{finder: s, known: map[int64]*Set{}}, stats: stats}
}

// errStale says that what was reviewed is no longer what would be written.
var errStale = errs.New(errs.Aborted, "CONFLICT", "another change came first, try again")

// rounds runs a write until its review holds. do gets the hooks as of now, and the call that names them.
func rounds[T any](ctx context.Context, w *Writer, call records.Call, do func(set *Set, call records.Call) (T, error)) (made T, err error) {
	for range maxRounds {
		var set *Set
		if set, err = w.sets.find(ctx, call.OrgID, w.store.InUnit(ctx)); err != nil {
			return made, err
		}
		call.ReviewSet = &set.Generation
		made, err = do(set, call)
		changed := errs.HasReason(err, "REVIEW_SET_CHANGED")
		if changed {
			w.sets.forget(call.OrgID)
		}
		if !changed && !isStale(err) || w.store.InUnit(ctx) {
			return made, err
		}
	}
	return made, err
}

func isStale(err error) bool {
	e, ok := err.(*errs.Error) //nolint:errorlint // the variable itself, not another conflict
	return ok && e == errStale
}

// Create implements records.Writer.
func (w *Writer) Create(ctx context.Context, call records.Call, draft records.Record) (records.Record, error) {
	return rounds(ctx, w, call, func(set *Set, call records.Call) (records.Record, error) {
		hooks := set.matching(event.TypeOf(draft.Type, event.Pre(event.Create)))
		if len(hooks) == 0 {
			return w.store.Create(ctx, call, draft)
		}
		c := &records.Change{Operation: event.Create, Next: draft}
		if err := w.review(ctx, call, set, []Proposal{propose(nil, c)}, []*records.Change{c}); err != nil {
			return records.Record{}, err
		}
		call.Reviews = c.Reviews
		return w.store.Create(ctx, call, draft)
	})
}

// Change implements records.Writer.
func (w *Writer) Change(ctx context.Context, call records.Call, typ event.Type, id int64, refs records.Refs, decide records.Decide) (records.Record, error) {
	return rounds(ctx, w, call, func(set *Set, call records.Call) (records.Record, error) {
		if !set.touches(typ) {
			return w.store.Change(ctx, call, typ, id, refs, decide)
		}
		current, err := w.store.Peek(ctx, call, typ, id, refs)
		if err != nil {
			return records.Record{}, err
		}
		change, err := decide(current)
		if err != nil || change == nil {
			return current.Record, err
		}
		reviewed := propose(&current.Record, change)
		if err := w.review(ctx, call, set, []Proposal{reviewed}, []*records.Change{change}); err != nil {
			return records.Record{}, err
		}
		return w.store.Change(ctx, call, typ, id, refs, func(now records.Current) (*records.Change, error) {
			final, err := decide(now)
			if err != nil {
				return nil, err
			}
			if final == nil || !same(propose(&now.Record, final), reviewed) {
				return nil, errStale
			}
			final.Reviews = change.Reviews
			return final, nil
		})
	})
}

// Batch implements records.Writer.
func (w *Writer) Batch(ctx context.Context, call records.Call, typ event.Type, ids []int64, creates int, refs []records.Refs, decide records.DecideBatch) ([]records.Record, error) {
	return rounds(ctx, w, call, func(set *Set, call records.Call) ([]records.Record, error) {
		if !set.touches(typ) && len(set.matching(event.TypeOf(typ, event.Pre(event.Create)))) == 0 {
			return w.store.Batch(ctx, call, typ, ids, creates, refs, decide)
		}
		found, err := w.store.PeekBatch(ctx, call, typ, ids, refs)
		if err != nil {
			return nil, err
		}
		found.NewIDs = make([]int64, creates)
		outcomes, err := decide(found)
		if err != nil {
			return nil, err
		}
		proposals, changes := proposed(found, outcomes)
		if err := w.review(ctx, call, set, proposals, changes); err != nil {
			return nil, err
		}
		return w.store.Batch(ctx, call, typ, ids, creates, refs, func(now records.Located) ([]records.Outcome, error) {
			final, err := decide(now)
			if err != nil {
				return nil, err
			}
			again, list := proposed(now, final)
			if len(again) != len(proposals) {
				return nil, errStale
			}
			for i := range again {
				if again[i].BaseVersion == 0 {
					again[i].ID = 0
				}
				if !same(again[i], proposals[i]) {
					return nil, errStale
				}
				list[i].Reviews = changes[i].Reviews
			}
			return final, nil
		})
	})
}

func proposed(found records.Located, outcomes []records.Outcome) (list []Proposal, changes []*records.Change) {
	for i := range outcomes {
		c := outcomes[i].Change
		if c == nil {
			continue
		}
		var before *records.Record
		if r, ok := found.Records[c.Next.ID]; ok && c.Operation != event.Create {
			before = &r
		}
		list, changes = append(list, propose(before, c)), append(changes, c)
	}
	return list, changes
}

// touches tells whether any hook judges a change of a record of a type.
func (s *Set) touches(typ event.Type) bool {
	return len(s.matching(event.TypeOf(typ, event.Pre(event.Update)))) > 0 || len(s.matching(event.TypeOf(typ, event.Pre(event.Archive)))) > 0
}

func same(a, b Proposal) bool {
	return bytes.Equal(a.Before, b.Before) && bytes.Equal(a.After, b.After) && a.EventType == b.EventType && a.ID == b.ID &&
		a.BaseVersion == b.BaseVersion && reflect.DeepEqual(a.Changed, b.Changed)
}

// answerTime is what an answer may need beyond the time of the slowest hook.
const answerTime = 30 * time.Millisecond

// patience is how long the hooks that match may take together: they run at once.
func (s *Set) patience(list []Proposal) time.Duration {
	longest := int64(0)
	for i := range list {
		for _, h := range s.matching(list[i].EventType) {
			longest = max(longest, h.TimeoutMS)
		}
	}
	return time.Duration(longest)*time.Millisecond + answerTime
}

// review asks about those proposals that a hook matches, and puts what it said into their changes. A rejection is
// recorded and comes back as the error.
func (w *Writer) review(ctx context.Context, call records.Call, set *Set, proposals []Proposal, changes []*records.Change) error {
	var (
		ask []Proposal
		at  []int
	)
	for i := range proposals {
		if len(set.matching(proposals[i].EventType)) > 0 {
			ask, at = append(ask, proposals[i]), append(at, i)
		}
	}
	if len(ask) == 0 {
		return nil
	}
	asked, cancel := context.WithTimeout(ctx, set.patience(ask))
	defer cancel()
	judged, err := w.judge.Judge(asked, call, ask)
	if err != nil || len(judged) != len(ask) {
		judged = make([]Judgement, len(ask))
		for i := range ask {
			judged[i] = withoutJudge(set.matching(ask[i].EventType))
		}
	}
	var rejected []*records.Change
	var refused error
	for i, j := range judged {
		w.count(j)
		text, err := json.Marshal(j.Verdicts)
		if err != nil {
			return err
		}
		c := changes[at[i]]
		if c.Reviews = text; !j.Rejected {
			continue
		}
		rejected = append(rejected, c)
		refused = refuse(refused, j, at[i], len(proposals))
	}
	if refused == nil {
		return nil
	}
	if err := w.store.Reject(ctx, call, rejected); err != nil {
		return err
	}
	return refused
}

// refuse adds a rejection to the error: of a batch, by its operation.
func refuse(so error, j Judgement, at, of int) error {
	e := refusal(j)
	if of == 1 {
		return e
	}
	all := e
	if so != nil {
		all = errs.From(so)
	}
	return all.WithField(fmt.Sprintf("operations[%d]", at), e.Reason, e.Message)
}

func (w *Writer) count(j Judgement) {
	switch {
	case j.Unavailable:
		w.stats.Reviewed("unavailable")
	case j.Rejected:
		w.stats.Reviewed("rejected")
	default:
		w.stats.Reviewed("approved")
	}
	for _, v := range j.Verdicts {
		if v.FailedOpen {
			w.stats.FailedOpen()
		}
	}
}
