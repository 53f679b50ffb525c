package store_test

import (
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sametick/sametick/services/prompt-worker/internal/prompting"
	"github.com/sametick/sametick/services/prompt-worker/internal/runs"
	"github.com/sametick/sametick/services/prompt-worker/internal/workertest"
)

// Batches begin at once that mix hooks with a budget and without, of several organisations, in any order: nobody deadlocks,
// a budget is never exceeded, and what is held is the sum of what was begun. Control: some are refused.
func TestBeginAtOnce(t *testing.T) {
	t.Parallel()
	w := workertest.NewWorld(t, prompting.Limits{})
	const orgs, perHook, most = 4, 24, int64(70)
	_, err := w.Admin.Exec(t.Context(), `INSERT INTO sametick.prompt_queue (id, org_id, shard, hook_id, event_id, event, event_type, aggregate_type, aggregate_id, due_at, created_at)
		SELECT row_number() OVER (), o, 0, 10 * o + h, n, '{}', 'task.post_create', 'task', n, now(), now()
		  FROM generate_series(1, $1) o, generate_series(1, 4) h, generate_series(1, $2) n`, orgs, perHook)
	require.NoError(t, err)
	limit := most
	var all []runs.Beginning
	// Row n is of organisation o's hook h; even hooks have a budget.
	for n := range int64(orgs * 4 * perHook) {
		at := n / perHook
		b := runs.Beginning{Item: &runs.Item{ID: n + 1, OrgID: at/4 + 1, HookID: 10*(at/4+1) + at%4 + 1}, Until: time.Now().Add(time.Hour),
			Worst: prompting.Amount{Runs: 1, Tokens: 10, Cost: 3}}
		if b.Item.HookID%2 == 0 {
			b.Limits = prompting.Limits{Tokens: &limit}
		}
		all = append(all, b)
	}
	const workers = 8
	answers := make([][]runs.Answer, workers)
	batches := make([][]runs.Beginning, workers)
	for i := range all { // one batch of all hooks for each worker, half of them backwards
		k := i % workers
		if k%2 == 0 {
			batches[k] = append(batches[k], all[i])
		} else {
			batches[k] = append([]runs.Beginning{all[i]}, batches[k]...)
		}
	}
	var group sync.WaitGroup
	for k := range workers {
		group.Go(func() {
			got, err := w.Store.Begin(t.Context(), batches[k])
			if err != nil {
				t.Error(err)
			}
			answers[k] = got
		})
	}
	group.Wait()
	begun, refused := map[int64]int64{}, 0
	for k := range workers {
		require.Len(t, answers[k], len(batches[k]))
		for i, a := range answers[k] {
			switch hook := batches[k][i].Item.HookID; {
			case a.Begun:
				begun[hook]++
			default:
				require.Equal(t, "hook", a.Refused)
				require.Zero(t, hook%2)
				refused++
			}
		}
	}
	require.Equal(t, orgs*2*int(perHook-most/10), refused)
	for org := int64(1); org <= orgs; org++ {
		var sum int64
		for hook := 10*org + 1; hook <= 10*org+4; hook++ {
			want := int64(perHook)
			if hook%2 == 0 {
				want = most / 10
			}
			require.Equal(t, want, begun[hook], "hook %d", hook)
			sum += want
			_, held, err := w.Store.Spent(t.Context(), org, hook, time.Now().UTC().Truncate(24*time.Hour))
			require.NoError(t, err)
			require.Equal(t, prompting.Amount{Runs: want, Tokens: 10 * want, Cost: 3 * want}, held)
		}
		_, held, err := w.Store.Spent(t.Context(), org, 0, time.Now().UTC().Truncate(24*time.Hour))
		require.NoError(t, err)
		require.Equal(t, prompting.Amount{Runs: sum, Tokens: 10 * sum, Cost: 3 * sum}, held)
	}
	require.Equal(t, len(all)-refused, w.Count(`SELECT count(*) FROM sametick.prompt_reservations`))
	require.Equal(t, len(all)-refused, w.Count(`SELECT count(*) FROM sametick.prompt_queue WHERE calling AND attempts = 1`))
}
