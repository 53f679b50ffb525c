package importer

import (
	"context"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sametick/sametick/services/tick/internal/client"
)

type onceServer struct {
	mu  sync.Mutex
	ids map[string]int64
}

func (h *onceServer) Create(_ context.Context, r client.NewRecord) (client.Record, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	key := r.Type + " " + r.Attributes["external_id"].(string)
	if id, ok := h.ids[key]; ok {
		return client.Record{}, &client.Error{Status: 409, Reason: ReasonExists, Metadata: map[string]string{"id": string(rune('0' + id))}}
	}
	h.ids[key] = int64(len(h.ids) + 1)
	return client.Record{ID: h.ids[key]}, nil
}

// Three cases, two of one name and one that is called what the second is renamed to: all three are in.
func TestNamesOfCases(t *testing.T) {
	log := `<log>` + strings.Repeat(`<trace><string key="concept:name" value="x"/></trace>`, 2) +
		`<trace><string key="concept:name" value="x#2"/><event><string key="concept:name" value="lost"/></event></trace></log>`
	s := &onceServer{ids: map[string]int64{}}
	im := &Importer{To: s, Source: "s", Parallel: 1}
	require.NoError(t, im.Run(t.Context(), strings.NewReader(log)))
	workflows := 0
	for key := range s.ids {
		if strings.HasPrefix(key, "workflow ") {
			workflows++
		}
	}
	require.Equal(t, 3, workflows, "a case was taken for one that is there already: %v", s.ids)
}
