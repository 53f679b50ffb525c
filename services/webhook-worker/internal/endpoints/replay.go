package endpoints

import (
	"context"
	"encoding/json"
	"time"

	"github.com/sametick/sametick/pkg/errs"
	"github.com/sametick/sametick/pkg/event"
)

// Kinds and statuses of a replay.
const (
	RecoverKind = "recover"
	ReplayKind  = "replay"

	Running = "running"
	Done    = "done"
)

// Replay is sending again on purpose, which the holder of the shard works off.
type Replay struct {
	ID, EndpointID int64
	Kind, Status   string
	Since          *time.Time
	// After and Through bound what it goes through: positions of a replay, ids of attempts of a recovery.
	After, Through int64
	Scheduled      int64
	CreatedAt      time.Time
	FinishedAt     *time.Time
}

// Log reads positions: one page of an organisation's events after a position, and the newest position of the shard.
type Log interface {
	Read(ctx context.Context, orgID, after int64, limit int) (page []Event, head int64, err error)
}

// Event is one at its position.
type Event struct {
	Position int64
	// JSON is the event, as receivers get it.
	JSON []byte
}

// Recover sends again what failed for good since a time, or was given up while the endpoint was disabled.
func (s *Service) Recover(ctx context.Context, call Call, id int64, since *time.Time) (Replay, error) {
	f := &faults{}
	f.id("id", id)
	if since == nil {
		f.add("since", "REQUIRED", "a time as in RFC 3339: 2026-04-12T14:30:00Z")
	}
	if err := f.result(); err != nil {
		return Replay{}, err
	}
	newest, err := s.o.History.NewestAttempt(ctx, call.OrgID, id)
	if err != nil {
		return Replay{}, err
	}
	return s.start(ctx, call, Replay{EndpointID: id, Kind: RecoverKind, Since: since, Through: newest})
}

// Replay sends again, in order, every event that matches from a position, exclusive, or a time on.
func (s *Service) Replay(ctx context.Context, call Call, id int64, after *int64, since *time.Time) (Replay, error) {
	f := &faults{}
	f.id("id", id)
	switch {
	case (after == nil) == (since == nil):
		f.add("after_position", "NOT_ONE", "either after_position or since")
	case after != nil && *after < 0:
		f.add("after_position", "OUT_OF_RANGE", "a position, or 0 for all that is kept")
	}
	if err := f.result(); err != nil {
		return Replay{}, err
	}
	r := Replay{EndpointID: id, Kind: ReplayKind, Since: since}
	_, head, err := s.o.Log.Read(ctx, call.OrgID, 0, 1)
	if err != nil {
		return Replay{}, errs.New(errs.Unavailable, "LOG_DOWN", "the log of positions does not answer").WithCause(err).WithRetryAfter(time.Second)
	}
	r.Through = head
	if after != nil {
		r.After = *after
	} else if r.After, err = s.before(ctx, call.OrgID, *since, head); err != nil {
		return Replay{}, err
	}
	return s.start(ctx, call, r)
}

// openLongest is how much later than its time an event may get its position: its transaction was open meanwhile.
const openLongest = time.Hour

// before finds a position that nothing since a time lies before, by halving. Positions follow commits and times what
// committed, so that they differ by how long transactions were open; what it leaves in, the replay itself passes over.
func (s *Service) before(ctx context.Context, orgID int64, since time.Time, head int64) (int64, error) {
	low, high := int64(0), head // all at low or before is older; high is late enough
	for low < high {
		middle := low + (high-low)/2
		page, _, err := s.o.Log.Read(ctx, orgID, middle, 1)
		if err != nil {
			return 0, err
		}
		if len(page) == 0 || page[0].Position > high || !occurredBefore(page[0].JSON, since.Add(-openLongest)) {
			high = middle
			continue
		}
		low = page[0].Position
	}
	return low, nil
}

// occurredBefore reads an event's time; what cannot be read is not before.
func occurredBefore(text []byte, t time.Time) bool {
	var e struct {
		OccurredAt string `json:"occurred_at"`
	}
	if json.Unmarshal(text, &e) != nil {
		return false
	}
	at, err := time.Parse(event.TimeLayout, e.OccurredAt)
	return err == nil && at.Before(t)
}

func (s *Service) start(ctx context.Context, call Call, r Replay) (Replay, error) {
	return done(s, func() (Replay, error) { return s.o.History.StartReplay(ctx, call, r) })
}

// Replays lists an endpoint's newest hundred, and how many there are.
func (s *Service) Replays(ctx context.Context, orgID, endpointID int64) ([]Replay, int64, error) {
	f := &faults{}
	f.id("endpoint_id", endpointID)
	if err := f.result(); err != nil {
		return nil, 0, err
	}
	return s.o.History.Replays(ctx, orgID, endpointID)
}

// CancelReplay ends one that runs; what it has scheduled stays.
func (s *Service) CancelReplay(ctx context.Context, call Call, id int64) (Replay, error) {
	return done(s, func() (Replay, error) { return s.o.History.CancelReplay(ctx, call, id) })
}
