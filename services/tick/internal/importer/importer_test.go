package importer_test

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/sametick/sametick/services/tick/internal/client"
	"github.com/sametick/sametick/services/tick/internal/importer"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// api is a server that takes each external id of a type once, as the real one does.
type api struct {
	mu      sync.Mutex
	records []client.NewRecord
	byID    map[string]int
	// failAfter, when positive, is how many records are taken before the connection is lost for good.
	failAfter int
	// busy counts down: that many calls are told to come back later.
	busy int
}

func (a *api) Create(_ context.Context, r client.NewRecord) (client.Record, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.busy > 0 {
		a.busy--
		return client.Record{}, &client.Error{Status: 429}
	}
	if a.failAfter > 0 && len(a.records) == a.failAfter {
		return client.Record{}, &client.Error{Status: 403, Detail: "key revoked"}
	}
	key := r.Type + " " + r.Attributes["external_id"].(string)
	if i, ok := a.byID[key]; ok {
		return client.Record{}, &client.Error{Status: 409, Reason: importer.ReasonExists, Metadata: map[string]string{"id": strconv.Itoa(i + 1)}}
	}
	if a.byID == nil {
		a.byID = map[string]int{}
	}
	a.byID[key] = len(a.records)
	a.records = append(a.records, r)
	return client.Record{ID: int64(len(a.records))}, nil
}

func (a *api) of(kind string) (found []client.NewRecord) {
	for _, r := range a.records {
		if r.Type == kind {
			found = append(found, r)
		}
	}
	return found
}

const traces, events = 20, 5

func log(broken bool) string {
	var b strings.Builder
	b.WriteString("<log>")
	for t := range traces {
		// Two cases share the name "same", one has none.
		name := fmt.Sprintf(`<string key="concept:name" value="case %d"/>`, t)
		switch {
		case t < 2:
			name = `<string key="concept:name" value="same"/>`
		case t == 2:
			name = ""
		}
		b.WriteString("<trace>" + name)
		for e := range events {
			fmt.Fprintf(&b, `<event><string key="concept:name" value="act %d"/><string key="org:resource" value="R%d"/><string key="org:group" value="G"/></event>`, e, e%2)
		}
		b.WriteString("</trace>")
	}
	if broken {
		return b.String() + "<trace><event>"
	}
	return b.String() + "</log>"
}

func TestImportTakesEverythingOnce(t *testing.T) {
	t.Parallel()
	a := &api{busy: 3}
	im := &importer.Importer{To: a, Source: "receipt", Parallel: 8}
	require.NoError(t, im.Run(t.Context(), strings.NewReader(log(false))))
	require.Len(t, a.of("workflow"), traces)
	require.Len(t, a.of("step"), traces*events)
	require.Len(t, a.of("employee"), 2)
	require.Len(t, a.of("team"), 1)

	// Steps of one workflow are in order and refer to records that exist.
	next := map[int64]int{}
	for _, s := range a.of("step") {
		require.Equal(t, fmt.Sprintf("act %d", next[s.WorkflowID]), s.Name)
		next[s.WorkflowID]++
		require.Equal(t, "employee", a.records[s.Attributes["employee_id"].(int64)-1].Type)
		require.Equal(t, "team", a.records[s.Attributes["team_id"].(int64)-1].Type)
	}

	again := &importer.Importer{To: a, Source: "receipt", Parallel: 3}
	before := len(a.records)
	require.NoError(t, again.Run(t.Context(), strings.NewReader(log(false))))
	require.Len(t, a.records, before, "a second run adds nothing")
	require.EqualValues(t, before, again.Counts.Existed.Load())
}

func TestImportGoesOnWhereItWasCutOff(t *testing.T) {
	t.Parallel()
	a := &api{failAfter: 37}
	im := &importer.Importer{To: a, Source: "receipt", Parallel: 4}
	require.ErrorContains(t, im.Run(t.Context(), strings.NewReader(log(false))), "key revoked")
	a.failAfter = 0
	require.NoError(t, (&importer.Importer{To: a, Source: "receipt", Parallel: 4}).Run(t.Context(), strings.NewReader(log(false))))
	require.Len(t, a.of("step"), traces*events)
}

func TestABrokenFileKeepsWhatPrecedes(t *testing.T) {
	t.Parallel()
	a := &api{}
	err := (&importer.Importer{To: a, Source: "x", Parallel: 4}).Run(t.Context(), strings.NewReader(log(true)))
	require.ErrorContains(t, err, "the file ends")
	require.Len(t, a.of("step"), traces*events)
}

func TestInterruptEndsSoon(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	a := &api{busy: 1 << 30}
	cancel()
	err := (&importer.Importer{To: a, Source: "x", Parallel: 4}).Run(ctx, strings.NewReader(log(false)))
	require.True(t, err == nil || errors.Is(err, context.Canceled) || strings.Contains(err.Error(), "429"), "%v", err)
}
