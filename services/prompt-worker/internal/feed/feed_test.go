package feed_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sametick/sametick/services/prompt-worker/internal/prompting"
	"github.com/sametick/sametick/services/prompt-worker/internal/runs"
	"github.com/sametick/sametick/services/prompt-worker/internal/store"
	"github.com/sametick/sametick/services/prompt-worker/internal/workertest"
)

func TestMain(m *testing.M) { workertest.Main(m) }

const finished = `SELECT count(*) FROM sametick.prompt_runs`

func TestRunIsRecorded(t *testing.T) {
	t.Parallel()
	w := workertest.NewWorld(t, prompting.Limits{})
	w.Task(1) // before the hook
	h := w.Hook()
	m := &workertest.Model{}
	w.Start("a", m)
	w.Task(2)
	w.Task(3)
	w.Eventually("both run", func() bool { return w.Count(finished) == 2 })
	list, err := w.Store.ListRuns(t.Context(), 1, store.RunFilter{Limit: 10})
	require.NoError(t, err)
	require.Len(t, list, 2)
	require.ElementsMatch(t, []int64{2, 3}, []int64{list[0].AggregateID, list[1].AggregateID})
	require.Equal(t, h.ID, list[0].HookID)
	require.Equal(t, runs.Completed, list[0].Status)
	require.JSONEq(t, `"ok"`, string(list[0].Output))
	require.Len(t, m.Asked(), 2)
	require.Equal(t, 2, w.Count(`SELECT count(*) FROM sametick.events WHERE event_type = 'prompt_run.completed'`))
}
