package chaos_test

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/sametick/sametick/deploy/torture/internal/chaos"
	"github.com/sametick/sametick/deploy/torture/internal/hooks"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// replica counts what is done to it.
type replica struct {
	up, held   bool
	terminated int
	fail       error
}

func (r *replica) Name() string                { return "relay 0" }
func (r *replica) Start(context.Context) error { r.up = true; return nil }
func (r *replica) Kill()                       { r.up = false }
func (r *replica) Pause()                      { r.held = true }
func (r *replica) Continue()                   { r.held = false }
func (r *replica) Terminate(time.Duration) error {
	r.up = false
	r.terminated++
	return r.fail
}

// storm runs campaigns in a bubble of time and gives the journal.
func storm(t *testing.T, seed uint64, campaigns ...chaos.Campaign) (text string, j *chaos.Journal) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		var b bytes.Buffer
		j = chaos.NewJournal(&b)
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
		defer cancel()
		chaos.Run(ctx, seed, j, campaigns)
		text = b.String()
	})
	return text, j
}

func TestASeedRepeatsThePlan(t *testing.T) {
	one, j := storm(t, 7, chaos.Relay(&replica{up: true}, 5*time.Second))
	again, _ := storm(t, 7, chaos.Relay(&replica{up: true}, 5*time.Second))
	other, _ := storm(t, 8, chaos.Relay(&replica{up: true}, 5*time.Second))
	require.Equal(t, one, again)
	require.NotEqual(t, one, other)
	counts, kills := j.Counts()
	require.Greater(t, kills, 50)
	require.Len(t, counts, 3, "%v", counts)
	require.Empty(t, j.Failed())
}

// How much a fault draws must not move the faults after it: the replica's own luck is not the plan's.
func TestAFaultsDrawsDoNotMoveThePlan(t *testing.T) {
	plan := func(draws int) (names []string) {
		fault := func(name string) chaos.Fault {
			return chaos.Fault{Name: name, Weight: 1, Do: func(_ context.Context, rng *rand.Rand) (string, error) {
				names = append(names, name)
				for range draws {
					rng.Uint64()
				}
				return "", nil
			}}
		}
		storm(t, 7, chaos.Campaign{Name: "c", Every: time.Second, Faults: []chaos.Fault{fault("a"), fault("b"), fault("c")}})
		return names
	}
	require.Equal(t, plan(0), plan(9))
}

func TestEveryFaultIsUndone(t *testing.T) {
	for seed := range uint64(30) {
		r, extra := &replica{up: true}, &replica{}
		_, _ = storm(t, seed, chaos.Relay(r, time.Second), chaos.Extra(extra, time.Second))
		require.True(t, r.up)
		require.False(t, r.held)
		require.False(t, extra.up)
	}
}

func TestAReplicaThatGoesUncleanlyIsReported(t *testing.T) {
	r := &replica{up: true, fail: errors.New("ended with code 3")}
	_, j := storm(t, 7, chaos.Gateway(r, 5*time.Second))
	require.Positive(t, r.terminated)
	require.Len(t, j.Failed(), r.terminated)
}

// moods notes what receivers are put into.
type moods struct{ failing, hanging []hooks.Mood }

func (m *moods) Fail(to hooks.Mood) { m.failing = append(m.failing, to) }
func (m *moods) Hang(to hooks.Mood) { m.hanging = append(m.hanging, to) }

func TestReceiversGetWellAgain(t *testing.T) {
	m := &moods{}
	_, j := storm(t, 7, chaos.FarEnd(m, 3*time.Second))
	counts, kills := j.Counts()
	require.Len(t, counts, 2)
	require.Zero(t, kills, "receivers die of nothing")
	for _, list := range [][]hooks.Mood{m.failing, m.hanging} {
		require.Greater(t, len(list), 20)
		for i, mood := range list {
			require.Equal(t, i%2 == 1, mood == hooks.Well, "%d: %s", i, mood)
		}
	}
	require.Subset(t, m.failing, []hooks.Mood{hooks.Failing, hooks.Busy, hooks.Resetting})
}
