package prompting_test

import (
	"encoding/json"
	"math"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/sametick/sametick/services/prompt-worker/internal/prompting"
)

func TestPrices(t *testing.T) {
	p, err := prompting.ParsePrices("gpt-6*=2.5/0.25/10, meta/llama-*=0/0/0\nclaude-*=3/0.3/15,")
	require.NoError(t, err)
	for _, c := range []struct {
		model string
		usage prompting.Usage
		cost  int64
		known bool
	}{
		{"gpt-6-astra", prompting.Usage{Input: 1e6, Cached: 1e6, Output: 1e6}, 12_750_000, true},
		{"gpt-6-astra", prompting.Usage{Cached: 1}, 1, true}, // a quarter of a millionth, rounded up
		{"claude-x", prompting.Usage{Output: 7}, 105, true},
		{"meta/llama-9/chat", prompting.Usage{Input: 1e9}, 0, true},
		{"other", prompting.Usage{Input: 1}, 0, false},
		{"claude-x", prompting.Usage{Input: math.MaxInt64, Output: math.MaxInt64}, 1e18, true},
	} {
		cost, known := p.Cost(c.model, c.usage)
		require.Equal(t, c.cost, cost, c.model)
		require.Equal(t, c.known, known, c.model)
	}
}

func TestParsePricesRefuses(t *testing.T) {
	for _, table := range []string{
		"m", "m=1/1", "m=1/1/1/1", "=1/1/1", "m=a/1/1", "m=-1/0/1", "m=1e3/1/1", "m=1/0.0000001/1", "m=1000001/1/1", "[=1/1/1", "m=1/2/1", "m=1//1",
	} {
		_, err := prompting.ParsePrices(table)
		require.ErrorIs(t, err, prompting.ErrPrices, table)
	}
}

// No call costs more than its worst case, whatever of its input was cached.
func TestWorstCaseCost(t *testing.T) {
	p, err := prompting.ParsePrices("*=3/0.3/15")
	require.NoError(t, err)
	rapid.Check(t, func(t *rapid.T) {
		r := prompting.Request{
			System: rapid.String().Draw(t, "system"), MaxTokens: rapid.IntRange(0, 1e5).Draw(t, "max"),
			Turns: []prompting.Turn{{Role: "user", Text: rapid.String().Draw(t, "text")}},
		}
		if rapid.Bool().Draw(t, "schema") {
			r.Schema = json.RawMessage(`{"type":"object"}`)
		}
		worst := r.WorstCase()
		// A token for each byte.
		input := int64(len(r.System) + len(r.Turns[0].Text) + len(r.Schema))
		require.GreaterOrEqual(t, worst.Input, input)
		cached := rapid.Int64Range(0, input).Draw(t, "cached")
		limit := max(r.MaxTokens, 0)
		if limit == 0 {
			limit = prompting.DefaultMaxTokens
		}
		cost, _ := p.Cost("m", prompting.Usage{Input: input - cached, Cached: cached, Output: int64(limit)})
		most, known := p.Cost("m", worst)
		require.True(t, known)
		require.GreaterOrEqual(t, most, cost)
	})
}

func FuzzParsePrices(f *testing.F) {
	f.Add("m=1/0.1/2, *=0/0/0")
	f.Fuzz(func(t *testing.T, table string) {
		p, err := prompting.ParsePrices(table)
		require.True(t, err == nil || p == nil)
		for _, one := range p {
			require.True(t, one.Cached <= one.Input && one.Cached >= 0 && one.Output >= 0)
		}
	})
}
