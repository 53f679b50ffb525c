package events

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sametick/sametick/pkg/errs"
)

func TestACursorIsOfOneList(t *testing.T) {
	two := int64(2)
	f := Filter{AggregateTypes: []string{"task"}, EventTypes: []string{"*.post_create"}, ActorID: &two, From: "2026-01-01"}
	cursor := f.cursor(7, 1234)
	f.Cursor = cursor
	q, err := f.query(7)
	require.NoError(t, err)
	require.EqualValues(t, 1234, q.After)
	for name, change := range map[string]func(*Filter){
		"type":      func(f *Filter) { f.AggregateTypes = []string{"team"} },
		"events":    func(f *Filter) { f.EventTypes = nil },
		"order":     func(f *Filter) { f.Order = "asc" },
		"actor":     func(f *Filter) { f.ActorID = nil },
		"cut":       func(f *Filter) { f.Cursor = cursor[:len(cursor)-1] },
		"longer":    func(f *Filter) { f.Cursor = cursor + "AA" },
		"new lines": func(f *Filter) { f.Cursor = cursor[:4] + "\n" + cursor[4:] },
		"no base64": func(f *Filter) { f.Cursor = "ä" },
	} {
		other := f
		change(&other)
		_, err := other.query(7)
		require.Len(t, errs.From(err).Fields, 1, name)
		require.Equal(t, "INVALID_CURSOR", errs.From(err).Fields[0].Reason, name)
	}
	_, err = f.query(8)
	require.Error(t, err, "another organisation's")
}

// FuzzFilter: no text crashes it, and a cursor that is taken is the one that its list gives for that event.
func FuzzFilter(f *testing.F) {
	f.Add("", "task.*", "2026-01-01", "desc")
	f.Add(Filter{EventTypes: []string{"task.*"}}.cursor(1, 99), "task.*", "", "")
	f.Add(Filter{Order: "asc"}.cursor(1, 1<<62), "", "", "asc")
	f.Add(strings.Repeat("A", 100), "a.b.c", "2026-01-01T00:00:00 02:00", "up")
	f.Fuzz(func(t *testing.T, cursor, eventType, from, order string) {
		filter := Filter{EventTypes: []string{eventType}, From: from, Order: order, Cursor: cursor}
		if eventType == "" {
			filter.EventTypes = nil
		}
		q, err := filter.query(1)
		if err != nil {
			if len(errs.From(err).Fields) == 0 {
				t.Fatalf("no field is named: %v", err)
			}
			return
		}
		if cursor != "" && filter.cursor(1, q.After) != cursor {
			t.Fatalf("%q was taken for %d", cursor, q.After)
		}
	})
}
