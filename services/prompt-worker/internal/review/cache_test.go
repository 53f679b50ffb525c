package review

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sametick/sametick/services/prompt-worker/internal/prompting"
)

type answering = map[int64]func(context.Context, Ask) (prompting.Response, error)

func TestVerdictsAreRemembered(t *testing.T) {
	for name, tt := range map[string]struct {
		answer func(context.Context, Ask) (prompting.Response, error)
		kept   time.Duration
	}{
		"approve":   {verdict("approve", "", false), keepApproval},
		"reject":    {verdict("reject", "", false), keepReject},
		"suspected": {verdict("approve", "", true), 0},
		"failed":    {fails(prompting.CauseRefused), 0},
		"invalid":   {func(context.Context, Ask) (prompting.Response, error) { return prompting.Response{}, nil }, 0},
	} {
		synctest.Test(t, func(t *testing.T) {
			b := newBench(hookList{hook(t, 1)}, answering{1: tt.answer})
			defer b.Close()
			first := b.one(t, create("Call"))
			time.Sleep(max(tt.kept-time.Nanosecond, 0))
			again := b.one(t, create("Call"))
			require.Equal(t, names(first), names(again))
			require.Equal(t, tt.kept > 0, b.records.runs[1].Cached, name)
			if tt.kept > 0 {
				require.EqualValues(t, 1, b.models.asked.Load(), name)
				require.Zero(t, b.records.runs[1].Usage, "paid for once")
			}
			time.Sleep(time.Nanosecond)
			asked := b.models.asked.Load()
			b.one(t, create("Call"))
			require.Equal(t, asked+1, b.models.asked.Load(), name)
		})
	}
}

// TestQuestionsDiffer: nothing that could change an answer is left out of its key.
func TestQuestionsDiffer(t *testing.T) {
	render := func(name string) prompting.Prompt {
		s, err := prompting.ParseSubject(fmt.Appendf(nil, `{"payload":{"record_name":%q}}`, name))
		require.NoError(t, err)
		p, err := templateOf(t, "{{ name }}").Render(t.Context(), s, nil)
		require.NoError(t, err)
		return p
	}
	ask := func(change func(*Ask)) key {
		a := Ask{1, hook(t, 1), 1, render("x")}
		change(&a)
		return keyOf(a)
	}
	same := ask(func(*Ask) {})
	require.Equal(t, same, ask(func(a *Ask) { a.Prompt = render("x") }), "another nonce")
	for name, change := range map[string]func(*Ask){
		"org": func(a *Ask) { a.OrgID = 2 }, "hook": func(a *Ask) { a.Hook.ID = 2 }, "revision": func(a *Ask) { a.Hook.Revision = 2 },
		"version": func(a *Ask) { a.Version = 2 }, "provider": func(a *Ask) { a.Hook.ProviderID = 2 }, "model": func(a *Ask) { a.Hook.Model = "n" },
		"parameters": func(a *Ask) { a.Hook.Parameters = json.RawMessage(`{"temperature":1}`) }, "prompt": func(a *Ask) { a.Prompt = render("y") },
	} {
		require.NotEqual(t, same, ask(change), name)
	}
}

// TestSingleFlight: twenty who ask the same at once cost one call; one who leaves takes nothing from the others, and
// when the last one leaves the call is ended.
func TestSingleFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ended := make(chan struct{}, 1)
		b := newBench(hookList{hook(t, 1)}, answering{1: func(ctx context.Context, a Ask) (prompting.Response, error) {
			select {
			case <-time.After(time.Second):
				return verdict("approve", "", false)(ctx, a)
			case <-ctx.Done():
				ended <- struct{}{}
				return prompting.Response{}, ctx.Err()
			}
		}})
		defer b.Close()
		review := func(timeout time.Duration) string {
			ctx, cancel := context.WithTimeout(t.Context(), timeout+DefaultReserve)
			defer cancel()
			out, err := b.Review(ctx, Request{OrgID: 1, Writes: []Write{create("Call")}})
			require.NoError(t, err)
			return names(out[0])[0]
		}
		var all sync.WaitGroup
		all.Go(func() { require.Equal(t, "failed", review(500*time.Millisecond)) }) // the first, whose question it is
		synctest.Wait()
		for range 20 {
			all.Go(func() { require.Equal(t, "approve", review(1500*time.Millisecond)) })
		}
		all.Wait()
		require.EqualValues(t, 1, b.models.asked.Load())
		require.Empty(t, ended)

		time.Sleep(keepApproval)
		require.Equal(t, "failed", review(500*time.Millisecond))
		synctest.Wait()
		require.Len(t, ended, 1)
		require.Equal(t, "approve", review(1500*time.Millisecond), "its error is nobody's")
	})
}

func TestCloseWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(hookList{hook(t, 1)}, answering{1: hangs})
		go func() {
			time.Sleep(time.Second)
			b.Close()
		}()
		start := time.Now()
		require.True(t, b.one(t, create("Call")).Rejected)
		require.Equal(t, time.Second, time.Since(start))
		require.True(t, b.one(t, create("Call")).Rejected, "who asks after it is not approved")
		require.EqualValues(t, 1, b.models.asked.Load())
	})
}

func TestCandidate(t *testing.T) {
	h := hook(t, 7)
	h.Candidate = &Version{2, h.Stable.Template}
	chosen := func(percentage int) map[int64]bool {
		h.CandidatePercentage = percentage
		out := map[int64]bool{}
		for id := int64(1); id <= 10_000; id++ {
			out[id] = h.version(&Write{AggregateType: "task", AggregateID: id}, "").Number == 2
		}
		return out
	}
	count := func(m map[int64]bool) (n int) {
		for _, yes := range m {
			if yes {
				n++
			}
		}
		return n
	}
	require.Zero(t, count(chosen(0)))
	require.Equal(t, 10_000, count(chosen(100)))
	ten, thirty := chosen(10), chosen(30)
	require.InDelta(t, 1000, count(ten), 150)
	require.InDelta(t, 3000, count(thirty), 250)
	require.Equal(t, ten, chosen(10))
	for id, yes := range ten {
		require.True(t, !yes || thirty[id], "who tries it goes on trying it")
	}
	require.Equal(t, 80, Bucket(1, "task 1"), "for ever")
	h.CandidatePercentage = 50
	byHash := map[int]bool{}
	for i := range 50 {
		byHash[h.version(&Write{AggregateType: "task"}, fmt.Sprint(i)).Number] = true
	}
	require.Len(t, byHash, 2, "what is new is spread too")
}
