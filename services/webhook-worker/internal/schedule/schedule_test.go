package schedule_test

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sametick/sametick/services/webhook-worker/internal/delivery"
	"github.com/sametick/sametick/services/webhook-worker/internal/schedule"
)

func TestMatch(t *testing.T) {
	e := func(eventType, aggregate string, id int64) *schedule.Event {
		return &schedule.Event{EventType: eventType, AggregateType: aggregate, AggregateID: id,
			JSON: fmt.Appendf(nil, `{"id":1,"aggregate_id":%d,"payload":{"n":5,"s":"x"},"occurred_at":"2026-04-12T14:30:00.000Z"}`, id)}
	}
	created := e("task.post_create", "task", 7)
	for name, c := range map[string]struct {
		endpoint delivery.Endpoint
		event    *schedule.Event
		refused  string
		fault    bool
	}{
		"default: post":            {delivery.Endpoint{}, created, "", false},
		"default: domain":          {delivery.Endpoint{}, e("workflow.completed", "workflow", 1), "", false},
		"default: not pre":         {delivery.Endpoint{}, e("task.pre_create", "task", 7), schedule.ByEventTypes, false},
		"default: previewed":       {delivery.Endpoint{}, e("task.previewed", "task", 7), "", false},
		"pre by name":              {delivery.Endpoint{EventTypes: []string{"*.pre_create"}}, e("task.pre_create", "task", 7), "", false},
		"pattern":                  {delivery.Endpoint{EventTypes: []string{"step.*", "task.*"}}, created, "", false},
		"other pattern":            {delivery.Endpoint{EventTypes: []string{"step.*"}}, created, schedule.ByEventTypes, false},
		"broken pattern":           {delivery.Endpoint{EventTypes: []string{"ta*"}}, created, schedule.ByEventTypes, false},
		"a test is not for all":    {delivery.Endpoint{EventTypes: []string{"*"}}, e("webhook_endpoint.test", "webhook_endpoint", 7), schedule.ByEventTypes, false},
		"aggregate type":           {delivery.Endpoint{AggregateTypes: []string{"task"}}, created, "", false},
		"other aggregate type":     {delivery.Endpoint{AggregateTypes: []string{"note"}}, created, schedule.ByAggregateTypes, false},
		"aggregate id":             {delivery.Endpoint{AggregateIDs: []int64{6, 7}}, created, "", false},
		"other aggregate id":       {delivery.Endpoint{AggregateIDs: []int64{6}}, created, schedule.ByAggregateIDs, false},
		"filter":                   {delivery.Endpoint{Filter: `event.payload.n == 5`}, created, "", false},
		"filter says no":           {delivery.Endpoint{Filter: `event.payload.n == 6`}, created, schedule.ByFilter, false},
		"filter reads what is not": {delivery.Endpoint{Filter: `event.payload.m == 6`}, created, schedule.ByFilter, false},
		"filter cannot tell":       {delivery.Endpoint{Filter: `event.payload.s > 6`}, created, "", true},
		"filter does not compile":  {delivery.Endpoint{Filter: `event.`}, created, "", true},
	} {
		t.Run(name, func(t *testing.T) {
			refused, err := schedule.NewTarget(&c.endpoint, compiler(t)).Match(t.Context(), c.event)
			require.Equal(t, c.refused, refused)
			require.Equal(t, c.fault, err != nil, err)
		})
	}
}

// An organisation's subscribers follow its endpoints; each gets what comes after its beginning.
func TestOrg(t *testing.T) {
	o := schedule.NewOrg()
	put := func(e delivery.Endpoint) { o.Put(schedule.NewTarget(&e, compiler(t))) }
	ids := func(eventType string) (ids []int64) {
		for _, s := range o.Subscribers(eventType) {
			ids = append(ids, s.ID)
		}
		return ids
	}
	require.Empty(t, ids("task.post_create"))
	put(delivery.Endpoint{ID: 2, Enabled: true, FromPosition: 10})
	put(delivery.Endpoint{ID: 1, Enabled: true, FromPosition: -1, EventTypes: []string{"task.*"}})
	put(delivery.Endpoint{ID: 3})
	require.Equal(t, []int64{1, 2}, ids("task.post_create"))
	require.Equal(t, []int64{2}, ids("step.passed"))
	put(delivery.Endpoint{ID: 2, Enabled: true, Archived: true})
	require.Equal(t, []int64{1}, ids("task.post_create"))
	ev := &schedule.Event{EventType: "task.post_create"}
	for position, want := range map[int64]bool{9: false, 10: false, 11: true} {
		got, err := schedule.NewTarget(&delivery.Endpoint{Enabled: true, FromPosition: 10}, compiler(t)).Wants(t.Context(), ev, position)
		require.NoError(t, err)
		require.Equal(t, want, got, position)
	}
	got, err := o.Get(1).Wants(t.Context(), ev, 1<<40)
	require.NoError(t, err)
	require.False(t, got, "its own creation has not been passed")
	for i := range 1500 { // types are remembered up to a bound
		o.Subscribers(fmt.Sprintf("task.a%d", i))
	}
	require.Equal(t, []int64{1}, ids("task.post_create"))
}
