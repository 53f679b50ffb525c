package hub

import (
	"slices"
	"strings"
	"testing"
)

// FuzzFilter compares a filter with what its words say: one of each kind that is given.
func FuzzFilter(f *testing.F) {
	f.Add("task,team", int64(5), "task.*,*.post_create", "task.post_update", "task", int64(5))
	f.Add("", int64(0), "", "a.b", "a", int64(1))
	f.Add("*", int64(-1), "*", "x", "", int64(0))
	f.Fuzz(func(t *testing.T, types string, id int64, patterns, eventType, aggregateType string, aggregateID int64) {
		split := func(s string) []string {
			return slices.DeleteFunc(strings.Split(s, ","), func(s string) bool { return s == "" })
		}
		var ids []int64
		if id != 0 {
			ids = []int64{id}
		}
		filter, err := NewFilter(Fields{"t", "i", "e"}, split(types), ids, split(patterns))
		if err != nil {
			return
		}
		aggregate, action, dotted := strings.Cut(eventType, ".")
		wanted := len(split(patterns)) == 0
		for _, p := range split(patterns) {
			a, b, ok := strings.Cut(p, ".")
			if !ok {
				a, b = "*", "*"
			}
			wanted = wanted || dotted && (a == "*" || a == aggregate) && (b == "*" || b == action)
		}
		want := wanted && (types == "" || len(split(types)) == 0 || slices.Contains(split(types), aggregateType)) && (id == 0 || id == aggregateID)
		if got := filter.Match(eventType, aggregateType, aggregateID); got != want {
			t.Fatalf("%q %d %q matches %q %q %d: %v", types, id, patterns, eventType, aggregateType, aggregateID, got)
		}
	})
}
