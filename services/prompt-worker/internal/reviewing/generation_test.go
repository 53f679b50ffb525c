package reviewing_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sametick/sametick/services/prompt-worker/internal/hooks"
	"github.com/sametick/sametick/services/prompt-worker/internal/prompting"
	"github.com/sametick/sametick/services/prompt-worker/internal/reviewing"
	"github.com/sametick/sametick/services/prompt-worker/internal/workertest"
)

// Who names a generation is judged by the hooks of it, if they are at hand, and else by the newest; who names none, by the
// newest.
func TestHooksOfAGeneration(t *testing.T) {
	w := workertest.NewWorld(t, prompting.Limits{})
	h := w.Hook(rules)
	found := reviewing.NewHooks(w.Store, workertest.Compiler(t))
	enforcement := func(generation *int64) string {
		list, err := found.ReviewHooks(t.Context(), 1, generation)
		require.NoError(t, err)
		require.Len(t, list, 1)
		return list[0].Enforcement
	}
	now := func() *int64 {
		n, err := w.Store.Generation(t.Context(), 1)
		require.NoError(t, err)
		return &n
	}
	first := now()
	require.Equal(t, hooks.Enforce, enforcement(first), "it is not at hand yet")
	_, err := w.Store.UpdateHook(t.Context(), w.Call, h.ID, nil, func(was hooks.Hook) (hooks.Settings, error) {
		set := was.Settings
		set.Enforcement = hooks.Shadow
		return set, nil
	})
	require.NoError(t, err)
	require.NotEqual(t, *first, *now())
	require.Equal(t, hooks.Enforce, enforcement(first), "a write by it will be refused")
	require.Equal(t, hooks.Shadow, enforcement(nil))
	require.Equal(t, hooks.Shadow, enforcement(now()))
	require.Equal(t, hooks.Shadow, enforcement(first), "the older ones are forgotten")
}
