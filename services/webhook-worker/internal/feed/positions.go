package feed

import (
	"context"

	"github.com/sametick/sametick/pkg/event"
	"github.com/sametick/sametick/pkg/stream"
	"github.com/sametick/sametick/services/webhook-worker/internal/endpoints"
)

// Positions implements endpoints.Log over the log of positions: of one organisation at a time.
type Positions struct{ Log stream.Log }

// Read implements endpoints.Log.
func (p Positions) Read(ctx context.Context, orgID, after int64, limit int) ([]endpoints.Event, int64, error) {
	page, err := p.Log.Read(ctx, event.ShardOf(orgID), after, limit, orgID)
	if err != nil {
		return nil, 0, err
	}
	list := make([]endpoints.Event, len(page.Entries))
	for i, e := range page.Entries {
		list[i] = endpoints.Event{Position: e.Position, JSON: e.Envelope}
	}
	return list, page.Head, nil
}
