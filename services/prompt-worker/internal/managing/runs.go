package managing

import (
	"context"
	"encoding/base64"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/sametick/sametick/services/prompt-worker/internal/prompting"
	"github.com/sametick/sametick/services/prompt-worker/internal/runs"
	"github.com/sametick/sametick/services/prompt-worker/internal/store"
)

// cursorOf names where a page of runs ended: when its last run finished (or was scheduled, where it waits) and its id.
func cursorOf(r *runs.Run) string {
	at := r.FinishedAt
	if r.Status == runs.Pending {
		at = r.CreatedAt
	}
	return base64.RawURLEncoding.EncodeToString(fmt.Appendf(nil, "%d %d", at.UnixMicro(), r.ID))
}

func parseCursor(text string, into *store.RunFilter) bool {
	raw, err := base64.RawURLEncoding.Strict().DecodeString(text)
	if err != nil {
		return false
	}
	var micros int64
	if n, err := fmt.Sscanf(string(raw), "%d %d", &micros, &into.BeforeID); err != nil || n != 2 || micros < 0 || micros > 1<<52 {
		return false
	}
	at := time.UnixMicro(micros)
	into.BeforeAt = &at
	return true
}

// Runs lists an organisation's finished runs, newest first, or with status pending those that wait; next is nil at the end.
func (s *Service) Runs(ctx context.Context, orgID int64, filter store.RunFilter, limit *int32, cursor string) (list []*runs.Run, next *string, err error) {
	f := &faults{}
	filter.Limit = f.limit(limit) + 1
	if cursor != "" && !parseCursor(cursor, &filter) {
		f.add("cursor", "INVALID_CURSOR", "a next_cursor of an answer")
	}
	for _, c := range []struct {
		field, value string
		known        []string
	}{
		{"status", filter.Status, []string{runs.Pending, runs.Completed, runs.Failed, runs.Superseded}},
		{"verdict", filter.Verdict, []string{prompting.Approve, prompting.Reject}},
		{"trigger", filter.Trigger, []string{runs.ByEvent, runs.ByReview, runs.ByDryRun, runs.ByBacktest}},
	} {
		if c.value != "" && !slices.Contains(c.known, c.value) {
			f.add(c.field, "NOT_IN_ENUM", "one of: %s", strings.Join(c.known, ", "))
		}
	}
	for field, id := range map[string]*int64{"hook_id": filter.HookID, "event_id": filter.EventID, "aggregate_id": filter.AggregateID} {
		if id != nil && *id < 0 {
			f.add(field, "OUT_OF_RANGE", "an id")
		}
	}
	f.text("aggregate_type", filter.AggregateType, 0, maxName)
	if err := f.result(); err != nil {
		return nil, nil, err
	}
	list, err = s.Store.ListRuns(ctx, orgID, filter)
	if n := filter.Limit - 1; err == nil && len(list) > n {
		list = list[:n]
		at := cursorOf(list[n-1])
		next = &at
	}
	return list, next, err
}

// Run gives one, finished or waiting.
func (s *Service) Run(ctx context.Context, orgID, id int64) (*runs.Run, error) {
	if err := one(id); err != nil {
		return nil, err
	}
	return s.Store.GetRun(ctx, orgID, id)
}
