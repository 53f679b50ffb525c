package records

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/sametick/sametick/pkg/errs"
	"github.com/sametick/sametick/pkg/event"
)

// MaxBatch is the most operations of a batch.
const MaxBatch = 1000

// Operation is one of a batch: exactly one field is set. Types are the batch's.
type Operation struct {
	Create  *Draft
	Update  *Update
	Archive *Target
}

// Target is a record to be archived.
type Target struct {
	ID int64
	// Version is the one that was meant; nil means any.
	Version *int64
}

// Located is what the store has found for a batch.
type Located struct {
	// Records are the locked ones that exist, with their own names.
	Records map[int64]Record
	// Governed are those that a workflow's definition moves.
	Governed map[int64]bool
	// NewIDs are as many as the batch creates.
	NewIDs []int64
	Now    time.Time
	// WorkflowNames and StepNames are of all references that exist.
	WorkflowNames, StepNames map[int64]string
}

func (l *Located) names(r Refs) (n Names) {
	find := func(names map[int64]string, id *int64) *string {
		if id == nil {
			return nil
		}
		if name, ok := names[*id]; ok {
			return &name
		}
		return nil
	}
	return Names{find(l.WorkflowNames, r.WorkflowID), find(l.StepNames, r.StepID)}
}

// Outcome is what becomes of one operation: a change, or the record as it is.
type Outcome struct {
	Change *Change
	Record Record
}

// DecideBatch turns what was found into an outcome for each operation.
type DecideBatch func(Located) ([]Outcome, error)

// Batch does all operations on records of one type in one transaction, or none. An error names every
// operation at fault: Invalid for what is wrong in itself, Aborted with reason BATCH_CONFLICT for what the
// records' state forbids.
func (s *Service) Batch(ctx context.Context, call Call, typ string, list []Operation) ([]Record, error) {
	making := slices.ContainsFunc(list, func(o Operation) bool { return o.Create != nil })
	f, err := s.typed(ctx, call.OrgID, typ, making)
	if err != nil {
		return nil, err
	}
	b, err := newBatch(call.OrgID, f, typ, list)
	if err == nil {
		err = s.accept(ctx, call.OrgID, f)
	}
	if err != nil {
		return nil, err
	}
	made, err := s.writer.Batch(ctx, call, typ, b.ids, b.creates, b.refs, b.decide)
	s.admitted(typ)
	if err == nil {
		s.changed()
	}
	return made, err
}

// batch is a checked one.
type batch struct {
	org     int64
	list    []Operation
	ids     []int64 // of the records to lock, in order
	refs    []Refs
	creates int
}

func newBatch(orgID int64, f *faults, typ string, list []Operation) (*batch, error) {
	if len(list) < 1 || len(list) > MaxBatch {
		f.add("operations", "OUT_OF_RANGE", "1 to %d operations, not %d", MaxBatch, len(list))
		return nil, f.result()
	}
	b := &batch{org: orgID, list: list}
	seen := map[int64]int{}
	for i := range list {
		o := &list[i]
		b.check(f, i, typ)
		if id := o.id(); id != 0 {
			if first, twice := seen[id]; twice {
				f.in = ""
				f.add(fmt.Sprintf("operations[%d]", i), "DUPLICATE", "each record once: operations[%d] has record %d too", first, id)
			}
			seen[id] = i
			b.ids = append(b.ids, id)
		}
	}
	slices.Sort(b.ids)
	return b, f.result()
}

func (b *batch) check(f *faults, i int, typ event.Type) {
	o := &b.list[i]
	at := func(kind string) { f.in = fmt.Sprintf("operations[%d].%s.", i, kind) }
	set := 0
	if o.Create != nil {
		set++
		at("create")
		o.Create.Type = typ
		f.draft(o.Create)
		b.creates++
		b.refs = append(b.refs, o.Create.Refs)
	}
	if o.Update != nil {
		set++
		at("update")
		o.Update.Type = typ
		f.id(o.Update.ID)
		f.update(o.Update)
		b.refs = append(b.refs, o.Update.refs())
	}
	if o.Archive != nil {
		set++
		at("archive")
		f.id(o.Archive.ID)
		f.version(o.Archive.Version)
	}
	f.in = ""
	if set != 1 {
		f.add(fmt.Sprintf("operations[%d]", i), "NOT_ONE", "exactly one of create, update, archive")
	}
}

func (o *Operation) id() int64 {
	switch {
	case o.Update != nil:
		return o.Update.ID
	case o.Archive != nil:
		return o.Archive.ID
	default:
		return 0
	}
}

// decide is the pure part: all operations, on what was found.
func (b *batch) decide(l Located) ([]Outcome, error) {
	out := make([]Outcome, len(b.list))
	var conflict *errs.Error
	for i := range b.list {
		var err error
		if out[i], err = b.one(&b.list[i], &l); err == nil {
			continue
		}
		if conflict == nil {
			conflict = errs.New(errs.Aborted, "BATCH_CONFLICT", "some operations cannot be done, so none was")
		}
		e := errs.From(err)
		field := fmt.Sprintf("operations[%d]", i)
		if len(e.Fields) == 0 {
			conflict = conflict.WithField(field, e.Reason, e.Message)
		}
		for _, fault := range e.Fields {
			conflict = conflict.WithField(field+"."+b.list[i].kind()+"."+fault.Field, fault.Reason, fault.Description)
		}
	}
	if conflict != nil {
		return nil, conflict
	}
	return out, nil
}

func (o *Operation) kind() string {
	switch {
	case o.Create != nil:
		return "create"
	case o.Update != nil:
		return "update"
	default:
		return "archive"
	}
}

func (b *batch) one(o *Operation, l *Located) (Outcome, error) {
	if o.Create != nil {
		names := l.names(o.Create.Refs)
		if err := CheckNames(o.Create.Refs, names); err != nil {
			return Outcome{}, err
		}
		next := o.Create.record(b.org)
		next.ID, l.NewIDs = l.NewIDs[0], l.NewIDs[1:]
		return Outcome{Change: &Change{Operation: event.Create, Next: next, Names: names}}, nil
	}
	current, ok := l.Records[o.id()]
	if !ok {
		return Outcome{}, errs.New(errs.NotFound, "RECORD_NOT_FOUND", "there is no such record")
	}
	refs := Refs{current.WorkflowID, current.StepID}
	var decide Decide
	if o.Update != nil {
		asked := o.Update.refs()
		if asked.WorkflowID != nil {
			refs.WorkflowID = asked.WorkflowID
		}
		if asked.StepID != nil {
			refs.StepID = asked.StepID
		}
		decide = o.Update.decide
	} else {
		decide = archive(o.Archive.Version)
	}
	change, err := decide(Current{Record: current, Names: l.names(refs), Governed: l.Governed[current.ID], Now: l.Now})
	return Outcome{Change: change, Record: current}, err
}
