package managing

import (
	"context"
	"time"

	"github.com/sametick/sametick/pkg/condition"
	"github.com/sametick/sametick/pkg/errs"
	"github.com/sametick/sametick/pkg/event"
	"github.com/sametick/sametick/services/prompt-worker/internal/hooks"
	"github.com/sametick/sametick/services/prompt-worker/internal/prompting"
	"github.com/sametick/sametick/services/prompt-worker/internal/review"
	"github.com/sametick/sametick/services/prompt-worker/internal/runs"
	"github.com/sametick/sametick/services/prompt-worker/internal/store"
)

// keepWithin is how long keeping a dry run may take after its caller has gone: it may have been paid for.
const keepWithin = 10 * time.Second

var errNoMatch = errs.New(errs.FailedPrecondition, "HOOK_DOES_NOT_MATCH", "the hook's event types or its condition do not select the event")

// DryRun runs a hook, enabled or not, on a past event, within its budget, and keeps the run. Nothing else comes of it.
func (s *Service) DryRun(ctx context.Context, orgID, id, eventID int64) (*runs.Run, error) {
	f := &faults{}
	f.id("id", id)
	f.id("event_id", eventID)
	if err := f.result(); err != nil {
		return nil, err
	}
	set, err := s.Store.GetSetup(ctx, orgID, id)
	if err != nil {
		return nil, err
	}
	if set.ArchivedAt != nil {
		return nil, errs.New(errs.FailedPrecondition, "ARCHIVED", "the hook is archived")
	}
	e, err := s.Store.Event(ctx, orgID, eventID)
	if err != nil {
		return nil, err
	}
	ids, err := s.Store.RunIDs(ctx, 1)
	if err != nil {
		return nil, err
	}
	run, ends, err := s.try(ctx, set, &e, ids[0])
	if err != nil {
		return nil, err
	}
	run.ID, run.EventID = ids[0], eventID
	keep, cancel := context.WithTimeout(context.WithoutCancel(ctx), keepWithin)
	defer cancel()
	return run, s.Store.KeepReviews(keep, []*runs.Run{run}, ends)
}

func (s *Service) try(ctx context.Context, set *hooks.Setup, e *event.Event, id int64) (*runs.Run, []store.Settlement, error) {
	if set.Mode == hooks.ModeAsync {
		return s.tryAsync(ctx, set, e, id)
	}
	if !review.IsPre(e) {
		return nil, nil, errNoMatch
	}
	w, actorID, err := review.PastWrite(e)
	if err != nil {
		return nil, nil, errs.Wrap(err, errs.FailedPrecondition, "EVENT_NOT_READABLE", "the event is of no known form")
	}
	run, err := s.Reviews.Try(ctx, set, actorID, w)
	if err == nil && run == nil {
		err = errNoMatch
	}
	return run, nil, err
}

func (s *Service) tryAsync(ctx context.Context, set *hooks.Setup, e *event.Event, id int64) (*runs.Run, []store.Settlement, error) {
	item := &runs.Item{ID: id, OrgID: set.OrgID, HookID: set.ID, EventID: e.ID, Event: e.AppendJSON(nil), EventType: e.EventType,
		AggregateType: e.AggregateType, AggregateID: e.AggregateID, CreatedAt: time.Now()}
	if !hooks.Matches(set.EventTypes, e.EventType) {
		return nil, nil, errNoMatch
	}
	rules, err := s.Executor.Compiler.Rules(&set.Hook)
	if err != nil {
		return nil, nil, err
	}
	subject, err := condition.NewWrite(item.Event)
	if err != nil {
		return nil, nil, err
	}
	applies, err := rules.Matches(ctx, subject)
	if err != nil {
		return nil, nil, refused(err)
	}
	if !applies {
		return nil, nil, errNoMatch
	}
	attempt := prompting.Attempt{Run: id, No: 1}
	run, took := s.Executor.DryRun(ctx, set, item, func(worst prompting.Amount) error {
		whose, err := s.Store.Reserve(ctx, store.Reservation{Attempt: attempt, OrgID: set.OrgID, HookID: set.ID, Worst: worst, Limits: set.Budget,
			Until: time.Now().Add(set.Timeout() + time.Minute)})
		switch {
		case err != nil:
			return &prompting.ModelError{Cause: prompting.CauseUnavailable, Text: "no budget can be held now"}
		case whose != "":
			return &prompting.ModelError{Cause: prompting.CauseBudget, Text: "the budget of the " + whose + " for this day does not cover the run"}
		}
		return nil
	})
	if took == nil {
		return run, nil, nil
	}
	return run, []store.Settlement{{Attempt: attempt, Took: *took}}, nil
}
