package reviewhash_test

import (
	"encoding/json"
	"math/big"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/sametick/sametick/pkg/reviewhash"
)

func ptr(n int64) *int64 { return &n }

func hash(t testing.TB, w reviewhash.Write) string {
	h, err := reviewhash.Hash(w)
	require.NoError(t, err)
	return h
}

func of(t testing.TB, after string) string {
	return hash(t, reviewhash.Write{OrgID: 1, After: []byte(after)})
}

// TestGolden: services of two versions meet, so a hash never changes.
func TestGolden(t *testing.T) {
	full := reviewhash.Write{
		OrgID: 1, EventType: "task.pre_update", AggregateType: "task", AggregateID: 234, BaseVersion: 7, RecordName: "Call the client",
		WorkflowID: ptr(5), Changed: []string{"name", "attributes.amount"}, After: []byte(`{"name":"Call the client","attributes":{"amount":9007199254740993,"é":1.50}}`),
	}
	require.Equal(t, "fe26f8eab4673e4d2f6d6d622007229b459d850471e6674251addea5d902fc30", hash(t, full))
	require.Equal(t, "9dd173551a99b2e6a57ff336ce8632cf008a22fe2dd59191a11fcabb88905ff0", hash(t, reviewhash.Write{}))
}

func TestSame(t *testing.T) {
	for _, group := range [][]string{
		{`{"a":1,"b":[1,2]}`, ` { "b" : [ 1 , 2 ] , "a" : 1.0 } `, `{"b":[1e0,20E-1],"a":0.1e+1}`},
		{`1.50`, `1.5`, `15e-1`, `0.15e1`, `150E-2`},
		{`0`, `-0`, `0.00`, `0e99`},
		{`1e999999999999999999999`, `10e999999999999999999998`},
		{`"é\n\/"`, `"\u00e9\u000a/"`},
		{``, `null`, ` `},
	} {
		for _, text := range group {
			require.Equal(t, of(t, group[0]), of(t, text), text)
		}
	}
	a := reviewhash.Write{Changed: []string{"a", "b"}}
	b := reviewhash.Write{Changed: []string{"b", "a", "b"}}
	require.Equal(t, hash(t, a), hash(t, b))
}

func TestDifferent(t *testing.T) {
	seen := map[string]string{}
	for _, text := range []string{
		`1`, `-1`, `10`, `"1"`, `[1]`, `[1,2]`, `[2,1]`, `[12]`, `{}`, `{"a":1}`, `{"a":"1"}`, `{"a":1,"b":2}`, `{"a":2,"b":1}`, `true`, `null`, `""`,
		`9007199254740992`, `9007199254740993`, `0.1`, `0.10000000000000000001`, `1e400`, `1e401`, `{"a\u0000":1}`, `"e\u0301"`, `"é"`,
	} {
		h := of(t, text)
		require.Empty(t, seen[h], "%s and %s", text, seen[h])
		seen[h] = text
	}
	base := reviewhash.Write{OrgID: 1, EventType: "a.pre_update", AggregateType: "a", AggregateID: 2, BaseVersion: 3, RecordName: "n", WorkflowID: ptr(4), StepID: ptr(5), Changed: []string{"x"}}
	for name, change := range map[string]func(*reviewhash.Write){
		"org": func(w *reviewhash.Write) { w.OrgID = 9 }, "event": func(w *reviewhash.Write) { w.EventType = "a.pre_create" },
		"type": func(w *reviewhash.Write) { w.AggregateType = "b" }, "id": func(w *reviewhash.Write) { w.AggregateID = 9 },
		"version": func(w *reviewhash.Write) { w.BaseVersion = 9 }, "name": func(w *reviewhash.Write) { w.RecordName = `n" 4` },
		"workflow": func(w *reviewhash.Write) { w.WorkflowID = nil }, "step": func(w *reviewhash.Write) { w.StepID = ptr(0) },
		"swapped": func(w *reviewhash.Write) { w.WorkflowID, w.StepID = w.StepID, w.WorkflowID },
		"changed": func(w *reviewhash.Write) { w.Changed = []string{"x", "y"} }, "joined": func(w *reviewhash.Write) { w.Changed = []string{`x" "y`} },
	} {
		w := base
		change(&w)
		require.NotEqual(t, hash(t, base), hash(t, w), name)
	}
}

func TestRefused(t *testing.T) {
	for _, text := range []string{`{`, `{"a":1,"a":2}`, `1 2`, "\"\xff\"", `nul`, `01`} {
		_, err := reviewhash.Hash(reviewhash.Write{After: []byte(text)})
		require.Error(t, err, text)
	}
}

// TestNumbers: two numbers have one hash exactly when they are one number.
func TestNumbers(t *testing.T) {
	number := rapid.StringMatching(`-?(0|[1-9][0-9]{0,3})(\.[0-9]{1,4})?([eE][+-]?[0-9]{1,2})?`)
	rapid.Check(t, func(t *rapid.T) {
		a, b := number.Draw(t, "a"), number.Draw(t, "b")
		ra, _ := new(big.Rat).SetString(a)
		rb, _ := new(big.Rat).SetString(b)
		ha, err := reviewhash.Hash(reviewhash.Write{After: []byte(a)})
		require.NoError(t, err)
		hb, err := reviewhash.Hash(reviewhash.Write{After: []byte(b)})
		require.NoError(t, err)
		require.Equal(t, ra.Cmp(rb) == 0, ha == hb)
	})
}

func FuzzHash(f *testing.F) {
	f.Add(`{"a":[1.5e3,"x",null],"b":{}}`)
	f.Fuzz(func(t *testing.T, text string) {
		h, err := reviewhash.Hash(reviewhash.Write{OrgID: 1, After: []byte(text)})
		if err != nil || strings.TrimSpace(text) == "" {
			return
		}
		// Another writer's text of the same value.
		d := json.NewDecoder(strings.NewReader(text))
		d.UseNumber()
		var v any
		require.NoError(t, d.Decode(&v))
		again, err := json.MarshalIndent(v, " ", "\t")
		require.NoError(t, err)
		require.Equal(t, h, of(t, string(again)))
	})
}
