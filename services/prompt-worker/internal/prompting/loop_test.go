package prompting_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sametick/sametick/services/prompt-worker/internal/prompting"
)

// model answers the n-th request by its script.
type model struct {
	script func(n int, r prompting.Request) (prompting.Response, error)
	asked  []prompting.Request
}

func (m *model) Complete(_ context.Context, r prompting.Request) (prompting.Response, error) {
	m.asked = append(m.asked, r)
	return m.script(len(m.asked)-1, r)
}

// box is a Toolbox that notes what it is called with.
type box struct {
	called []string
	answer func(ctx context.Context, tool string) (json.RawMessage, error)
}

func (b *box) Call(ctx context.Context, server prompting.ServerRef, tool string, arguments json.RawMessage) (json.RawMessage, error) {
	b.called = append(b.called, fmt.Sprintf("%d/%s%s", server.ID, tool, arguments))
	return b.answer(ctx, tool)
}

func wish(names ...string) prompting.Response {
	r := prompting.Response{Usage: prompting.Usage{Input: 10, Output: 1}, From: prompting.Source{ProviderID: 1, Model: "m"}}
	for i, n := range names {
		r.Calls = append(r.Calls, prompting.ToolCall{ID: fmt.Sprint("c", i), Name: n, Arguments: json.RawMessage(`{}`)})
	}
	return r
}

func grant(names ...string) (out []prompting.Granted) {
	for i, n := range names {
		out = append(out, prompting.Granted{
			Server: prompting.ServerRef{OrgID: 1, ID: int64(i + 1)}, Tool: prompting.Tool{Name: n, Schema: json.RawMessage(`{"type":"object"}`)},
		})
	}
	return out
}

func always(text string) *box {
	return &box{answer: func(context.Context, string) (json.RawMessage, error) { return json.Marshal(text) }}
}

func then(responses ...prompting.Response) *model {
	return &model{script: func(n int, _ prompting.Request) (prompting.Response, error) {
		return responses[min(n, len(responses)-1)], nil
	}}
}

func cause(t *testing.T, err error) string {
	t.Helper()
	var e *prompting.ModelError
	require.ErrorAs(t, err, &e)
	return e.Cause
}

func TestLoop(t *testing.T) {
	answer := prompting.Response{Text: "done", Usage: prompting.Usage{Input: 20, Cached: 5, Output: 2}, From: prompting.Source{ProviderID: 1, Model: "m"}}
	m, b := then(wish("look", "look_2"), answer), always("seen")
	r := prompting.Request{Turns: []prompting.Turn{{Role: "user", Text: "go"}}, Tools: []prompting.Tool{{Name: "smuggled"}}}
	got, err := prompting.Loop{Model: m, Tools: b}.Run(t.Context(), r, grant("look", "look"))
	require.NoError(t, err)
	require.Equal(t, "done", got.Response.Text)
	require.Equal(t, []string{"1/look{}", "2/look{}"}, b.called, "two servers' tools of one name")
	require.Equal(t, []prompting.Spent{{Source: answer.From, Usage: prompting.Usage{Input: 30, Cached: 5, Output: 3}}}, got.Spent)
	require.Len(t, got.Calls, 2)
	require.Equal(t, `"seen"`, string(got.Calls[1].Result))
	require.Equal(t, int64(2), got.Calls[1].Server.ID)

	require.Len(t, m.asked[0].Tools, 2)
	require.NotContains(t, m.asked[0].Tools[0].Name+m.asked[0].Tools[1].Name, "smuggled")
	turns := m.asked[1].Turns
	require.Equal(t, []string{"user", "assistant", "tool", "tool"}, []string{turns[0].Role, turns[1].Role, turns[2].Role, turns[3].Role})
	require.Equal(t, "c1", turns[3].CallID)
	require.Equal(t, `<data->"seen"</data->`, turns[2].Text, "what a tool gives is data")
	require.Len(t, r.Turns, 1, "the caller's request is its own")
}

// What is not granted is not called, however it is named; the model is told.
func TestAllowList(t *testing.T) {
	m, b := then(wish("drop", "LOOK", "look.x", ""), prompting.Response{Text: "done"}), always("seen")
	got, err := prompting.Loop{Model: m, Tools: b}.Run(t.Context(), prompting.Request{}, grant("look"))
	require.NoError(t, err)
	require.Empty(t, b.called)
	for i, c := range got.Calls {
		require.Equal(t, "there is no such tool", c.Error)
		require.True(t, m.asked[1].Turns[1+i].Failed)
	}
	// None granted: not even a Toolbox is there to be called.
	_, err = prompting.Loop{Model: then(wish("look"))}.Run(t.Context(), prompting.Request{}, nil)
	require.Equal(t, prompting.CauseInvalid, cause(t, err))
}

// Names that providers would refuse are made fit, and lead back to their tools.
func TestToolNames(t *testing.T) {
	long := strings.Repeat("ü", 70)
	m, b := then(prompting.Response{Text: "done"}), always("seen")
	granted := grant("files.read", "files/read", long, long, "files_read_2")
	_, err := prompting.Loop{Model: m, Tools: b}.Run(t.Context(), prompting.Request{}, granted)
	require.NoError(t, err)
	names := map[string]bool{}
	var all []string
	for _, tool := range m.asked[0].Tools {
		require.Regexp(t, `^[a-zA-Z0-9_-]{1,64}$`, tool.Name)
		names[tool.Name], all = true, append(all, tool.Name)
	}
	require.Len(t, names, len(granted))
	_, err = prompting.Loop{Model: then(wish(all...), prompting.Response{Text: "done"}), Tools: b}.Run(t.Context(), prompting.Request{}, granted)
	require.NoError(t, err)
	require.Equal(t, []string{"1/files.read{}", "2/files/read{}", "3/" + long + "{}", "4/" + long + "{}", "5/files_read_2{}"}, b.called)
}

// A tool's failure is the model's to deal with.
func TestToolFails(t *testing.T) {
	m := then(wish("look"), prompting.Response{Text: "sorry"})
	b := &box{answer: func(context.Context, string) (json.RawMessage, error) { return nil, errors.New("it broke") }}
	got, err := prompting.Loop{Model: m, Tools: b}.Run(t.Context(), prompting.Request{}, grant("look"))
	require.NoError(t, err)
	require.Equal(t, "it broke", got.Calls[0].Error)
	require.Equal(t, `error: <data->"it^broke"</data->`, m.asked[1].Turns[1].Text)
	require.True(t, m.asked[1].Turns[1].Failed)
}

// A model that asks for ever is stopped, by each of the bounds, and what it did and cost is kept.
func TestLoopEnds(t *testing.T) {
	for name, c := range map[string]struct {
		loop         prompting.Loop
		wish         prompting.Response
		result       string
		rounds, done int
	}{
		"rounds":       {prompting.Loop{Rounds: 3}, wish("look"), "x", 4, 3},
		"calls":        {prompting.Loop{Calls: 5}, wish("look", "look"), "x", 3, 4},
		"bytes":        {prompting.Loop{MaxBytes: 1000}, wish("look"), strings.Repeat("x", 400), 3, 3},
		"the defaults": {prompting.Loop{}, wish("look"), "x", 9, 8},
	} {
		t.Run(name, func(t *testing.T) {
			m := then(c.wish)
			c.loop.Model, c.loop.Tools = m, always(c.result)
			got, err := c.loop.Run(t.Context(), prompting.Request{}, grant("look"))
			require.Equal(t, prompting.CauseTool, cause(t, err))
			require.Len(t, m.asked, c.rounds)
			require.Len(t, got.Calls, c.done)
			require.Equal(t, int64(10*c.rounds), got.Spent[0].Input)
		})
	}
}

func TestToolTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hangs := &box{answer: func(ctx context.Context, _ string) (json.RawMessage, error) { <-ctx.Done(); return nil, ctx.Err() }}
		begun := time.Now()
		got, err := prompting.Loop{Model: then(wish("look"), prompting.Response{Text: "done"}), Tools: hangs}.Run(t.Context(), prompting.Request{}, grant("look"))
		require.NoError(t, err)
		require.Equal(t, 30*time.Second, time.Since(begun))
		require.Equal(t, 30*time.Second, got.Calls[0].Latency)

		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		got, err = prompting.Loop{Model: then(wish("look")), Tools: hangs}.Run(ctx, prompting.Request{}, grant("look"))
		require.Equal(t, prompting.CauseTimeout, cause(t, err))
		require.Len(t, got.Calls, 1)
	})
}

// A call that fails in the middle costs what it and those before it used.
func TestLoopFailsAtTheModel(t *testing.T) {
	other := prompting.Source{ProviderID: 2, Model: "n"}
	m := &model{script: func(n int, _ prompting.Request) (prompting.Response, error) {
		if n == 0 {
			return wish("look"), nil
		}
		return prompting.Response{}, &prompting.ModelError{Cause: prompting.CauseTruncated, Usage: prompting.Usage{Output: 9}, From: other}
	}}
	got, err := prompting.Loop{Model: m, Tools: always("x")}.Run(t.Context(), prompting.Request{}, grant("look"))
	require.Equal(t, prompting.CauseTruncated, cause(t, err))
	require.Len(t, got.Spent, 2)
	require.Equal(t, prompting.Spent{Source: other, Usage: prompting.Usage{Output: 9}}, got.Spent[1])
	require.Len(t, got.Calls, 1)
}

// The worst model there is, which says and asks for all it may, stays inside the worst case.
func TestLoopWorstCase(t *testing.T) {
	var used prompting.Usage
	m := &model{script: func(_ int, r prompting.Request) (prompting.Response, error) {
		used.Input += r.InputBound()
		used.Output += 50
		return prompting.Response{Text: strings.Repeat("x", 50), Calls: []prompting.ToolCall{{ID: "c", Name: "look", Arguments: json.RawMessage(`{}`)}}}, nil
	}}
	l := prompting.Loop{Model: m, Tools: always(strings.Repeat("x", 200)), MaxBytes: 1700}
	r := prompting.Request{System: "s", MaxTokens: 50, Turns: []prompting.Turn{{Role: "user", Text: "u"}}}
	_, err := l.Run(t.Context(), r, grant("look"))
	require.Equal(t, prompting.CauseTool, cause(t, err))
	worst := l.WorstCase(r, grant("look"))
	require.LessOrEqual(t, used.Input, worst.Input)
	require.LessOrEqual(t, used.Output, worst.Output)
	require.Equal(t, r.WorstCase(), l.WorstCase(r, nil))
}
