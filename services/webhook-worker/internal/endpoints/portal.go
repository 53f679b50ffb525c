package endpoints

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/sametick/sametick/pkg/errs"
	"github.com/sametick/sametick/pkg/event"
)

// Lives of portal links, in seconds, and how many endpoints one may be limited to: they are in its URL.
const (
	minPortal, defaultPortal, maxPortal = 60, 3600, 86_400
	maxPortalIDs                        = 50
)

// PortalLink is a link to be: whoever has the key signs its token.
type PortalLink struct {
	// IDs are the endpoints that it is for; empty means all.
	IDs []int64
	// ExpiresAt is in whole seconds.
	ExpiresAt time.Time
}

// NewPortal records a link that works for ttl seconds (3600 when nil), though not longer than what its maker has shown;
// the events do not have its token. NotFound when the organisation has not all the endpoints.
func (s *Service) NewPortal(ctx context.Context, call Call, ttl *int64, ids []int64) (PortalLink, error) {
	f := &faults{}
	life := int64(defaultPortal)
	if ttl != nil {
		life = *ttl
	}
	if life < minPortal || life > maxPortal {
		f.add("ttl", "OUT_OF_RANGE", "%d to %d seconds", minPortal, maxPortal)
	}
	if len(ids) > maxPortalIDs {
		f.add("endpoint_ids", "TOO_MANY", "at most %d", maxPortalIDs)
	}
	for i, id := range ids[:min(len(ids), maxPortalIDs)] {
		field := fmt.Sprintf("endpoint_ids[%d]", i)
		f.id(field, id)
		if slices.Contains(ids[:i], id) {
			f.add(field, "DUPLICATE", "each endpoint once")
		}
	}
	if err := f.result(); err != nil {
		return PortalLink{}, err
	}
	return done(s, func() (PortalLink, error) {
		return s.o.Store.NewPortal(ctx, call, ids, func(now time.Time) (PortalLink, json.RawMessage) {
			link := PortalLink{IDs: ids, ExpiresAt: now.Add(time.Duration(life) * time.Second).Truncate(time.Second)}
			if call.Until != nil && call.Until.Before(link.ExpiresAt) {
				link.ExpiresAt = call.Until.Truncate(time.Second)
			}
			return link, extras(map[string]any{"expires_at": link.ExpiresAt.UTC().Format(event.TimeLayout), "endpoint_ids": list(ids)})
		})
	})
}

// For gives the service as a caller sees it: all of the organisation, or some endpoints of it.
func (s *Service) For(call Call) *Service {
	if len(call.Only) == 0 {
		return s
	}
	o := s.o
	o.Store, o.History = someStore{s.o.Store, call.Only}, someHistory{s.o.History, call.Only}
	return &Service{o}
}

// check gives for another endpoint than these what is given for one that there is not.
func (o only) check(id int64) error {
	if slices.Contains(o, id) {
		return nil
	}
	return ErrNotFound("endpoint", id)
}

type only []int64

// errLimited refuses what concerns more than some endpoints.
func errLimited() error {
	return errs.New(errs.PermissionDenied, "PORTAL_LIMITED", "the link is for some endpoints alone")
}

// someStore is a Store of some endpoints: no method is left to the whole one that has not looked at the id.
type someStore struct {
	all Store
	only
}

var _ Store = someStore{}

func (s someStore) NewID(context.Context) (int64, error) { return 0, errLimited() }

func (s someStore) Create(context.Context, Call, Change, int) (Endpoint, error) {
	return Endpoint{}, errLimited()
}

func (s someStore) NewPortal(context.Context, Call, []int64, func(time.Time) (PortalLink, json.RawMessage)) (PortalLink, error) {
	return PortalLink{}, errLimited()
}

func (s someStore) Export(context.Context, Call, func([]Endpoint) json.RawMessage) ([]Endpoint, error) {
	return nil, errLimited()
}

func (s someStore) Restore(ctx context.Context, call Call, id int64, most int, decide Decide) (Endpoint, error) {
	if err := s.check(id); err != nil {
		return Endpoint{}, err
	}
	return s.all.Restore(ctx, call, id, most, decide)
}

func (s someStore) Change(ctx context.Context, call Call, id int64, decide Decide) (Endpoint, int64, error) {
	if err := s.check(id); err != nil {
		return Endpoint{}, 0, err
	}
	return s.all.Change(ctx, call, id, decide)
}

func (s someStore) Get(ctx context.Context, orgID, id int64) (Endpoint, error) {
	if err := s.check(id); err != nil {
		return Endpoint{}, err
	}
	return s.all.Get(ctx, orgID, id)
}

func (s someStore) List(ctx context.Context, orgID int64, q Query) ([]Endpoint, int64, error) {
	q.Only = s.only
	return s.all.List(ctx, orgID, q)
}

// someHistory is a History of some endpoints, as someStore.
type someHistory struct {
	all History
	only
}

var _ History = someHistory{}

// within holds a filter to what is about one of the endpoints.
func (h someHistory) within(ctx context.Context, orgID int64, f Filter) error {
	switch {
	case f.EndpointID != nil:
		return h.check(*f.EndpointID)
	case f.DeliveryID != nil:
		_, err := h.Delivery(ctx, orgID, *f.DeliveryID)
		return err
	}
	faulty := &faults{}
	faulty.add("endpoint_id", "REQUIRED", "one of those that the link is for")
	return faulty.result()
}

func (h someHistory) Deliveries(ctx context.Context, orgID int64, f Filter) ([]Delivery, *Cursor, error) {
	if err := h.within(ctx, orgID, f); err != nil {
		return nil, nil, err
	}
	return h.all.Deliveries(ctx, orgID, f)
}

func (h someHistory) Attempts(ctx context.Context, orgID int64, f Filter) ([]Attempt, *Cursor, error) {
	if err := h.within(ctx, orgID, f); err != nil {
		return nil, nil, err
	}
	return h.all.Attempts(ctx, orgID, f)
}

func (h someHistory) Delivery(ctx context.Context, orgID, id int64) (Delivery, error) {
	d, err := h.all.Delivery(ctx, orgID, id)
	if err == nil && h.check(d.EndpointID) != nil {
		return Delivery{}, ErrNotFound("delivery", id)
	}
	return d, err
}

func (h someHistory) Attempt(ctx context.Context, orgID, id int64) (Attempt, error) {
	a, err := h.all.Attempt(ctx, orgID, id)
	if err == nil && h.check(a.EndpointID) != nil {
		return Attempt{}, ErrNotFound("attempt", id)
	}
	return a, err
}

func (h someHistory) Stats(ctx context.Context, orgID, endpointID int64, since time.Time) (Stats, error) {
	if err := h.check(endpointID); err != nil {
		return Stats{}, err
	}
	return h.all.Stats(ctx, orgID, endpointID, since)
}

func (h someHistory) Redeliver(ctx context.Context, call Call, id int64) (Delivery, error) {
	if _, err := h.Delivery(ctx, call.OrgID, id); err != nil { // a delivery's endpoint never changes
		return Delivery{}, err
	}
	return h.all.Redeliver(ctx, call, id)
}

func (h someHistory) Skip(ctx context.Context, call Call, id int64) (Delivery, error) {
	if _, err := h.Delivery(ctx, call.OrgID, id); err != nil {
		return Delivery{}, err
	}
	return h.all.Skip(ctx, call, id)
}

func (h someHistory) Event(context.Context, int64, int64) ([]byte, error) { return nil, errLimited() }

func (h someHistory) StartReplay(ctx context.Context, call Call, r Replay) (Replay, error) {
	if err := h.check(r.EndpointID); err != nil {
		return Replay{}, err
	}
	return h.all.StartReplay(ctx, call, r)
}

func (h someHistory) Replays(ctx context.Context, orgID, endpointID int64) ([]Replay, int64, error) {
	if err := h.check(endpointID); err != nil {
		return nil, 0, err
	}
	return h.all.Replays(ctx, orgID, endpointID)
}

func (h someHistory) CancelReplay(context.Context, Call, int64) (Replay, error) {
	return Replay{}, errLimited()
}

func (h someHistory) NewestAttempt(ctx context.Context, orgID, endpointID int64) (int64, error) {
	if err := h.check(endpointID); err != nil {
		return 0, err
	}
	return h.all.NewestAttempt(ctx, orgID, endpointID)
}
