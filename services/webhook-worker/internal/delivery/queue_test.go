package delivery

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// Whatever comes, and however it is taken out meanwhile, the first of what waits is the next.
func TestQueueGivesTheFirst(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		q := &queue{ordered: rapid.Bool().Draw(t, "ordered")}
		var waits []*Delivery
		id := int64(0)
		for range rapid.IntRange(1, 200).Draw(t, "steps") {
			if add := rapid.IntRange(0, 2).Draw(t, "add") > 0; add || len(waits) == 0 {
				id++
				d := &Delivery{ID: id, Due: time.Unix(id, 0)}
				if rapid.IntRange(0, 4).Draw(t, "odd") == 0 { // tried before, or put off
					d.ID, d.Due = rapid.Int64Range(-50, id).Draw(t, "id"), time.Unix(rapid.Int64Range(-50, 250).Draw(t, "due"), 0)
				}
				q.add(d)
				waits = append(waits, d)
				continue
			}
			first := 0
			for i := range waits {
				if q.before(waits[i], waits[first]) {
					first = i
				}
			}
			got := q.next()
			if q.before(got, waits[first]) || q.before(waits[first], got) {
				t.Fatalf("%d due at %v came before %d due at %v", got.ID, got.Due, waits[first].ID, waits[first].Due)
			}
			for i := range waits {
				if waits[i] == got {
					waits = append(waits[:i], waits[i+1:]...)
					break
				}
			}
			if q.size() != len(waits) || (q.head() == nil) != (len(waits) == 0) {
				t.Fatalf("%d wait, not %d", q.size(), len(waits))
			}
		}
		if left := q.all(); len(left) != len(waits) || q.size() != 0 {
			t.Fatalf("%d were left, not %d", len(left), len(waits))
		}
	})
}

func TestQueueForgetsWhatIsTakenOut(t *testing.T) {
	q := &queue{}
	for i := range int64(10_000) {
		q.add(&Delivery{ID: i, Due: time.Unix(i, 0)})
		if i >= 10 {
			require.Equal(t, i-10, q.next().ID)
		}
	}
	require.Less(t, cap(q.line), 100)
}
