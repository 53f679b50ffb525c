// Package injectiontest has what proofs of injection share: the attempts, the fields of a record to put them in, and a
// model that obeys whatever it finds outside of the fence. It reads a prompt as a model would, by what the system message
// says of the fence, and says nothing of what a real model makes of data inside. For tests only.
package injectiontest

import (
	"bufio"
	_ "embed"
	"encoding/json"
	"html"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sametick/sametick/services/prompt-worker/internal/prompting"
)

//go:embed attempts.json
var own []byte

// least is how many attempts of our own there must be.
const least = 40

// Attempts are texts by their source: "own", and where they are (SAMETICK_TEST_DATA) those of BIPIA and InjecAgent.
func Attempts(t testing.TB) map[string][]string {
	t.Helper()
	var texts []string
	require.NoError(t, json.Unmarshal(own, &texts))
	require.GreaterOrEqual(t, len(texts), least)
	out := map[string][]string{"own": texts}
	dir := os.Getenv("SAMETICK_TEST_DATA")
	if dir == "" {
		dir = filepath.Join("..", "..", "..", "..", "..", "shared", "data")
	}
	text, err := os.ReadFile(filepath.Join(dir, "injection", "bipia-text-attacks.json"))
	if err != nil {
		t.Logf("NOT RUN with the texts of BIPIA and InjecAgent (%v): set SAMETICK_TEST_DATA; %d of our own are tried", err, len(texts))
		return out
	}
	var groups map[string][]string
	require.NoError(t, json.Unmarshal(text, &groups))
	for _, g := range groups {
		out["bipia"] = append(out["bipia"], g...)
	}
	for _, name := range []string{"dh", "ds"} {
		out["injecagent"] = append(out["injecagent"], instructions(t, filepath.Join(dir, "injection", "injecagent-attacker_cases_"+name+".jsonl"))...)
	}
	require.Len(t, out["bipia"], 75)
	require.Len(t, out["injecagent"], 62)
	return out
}

// instructions are those of InjecAgent's cases.
func instructions(t testing.TB, path string) (out []string) {
	file, err := os.Open(path)
	require.NoError(t, err)
	for lines := bufio.NewScanner(file); lines.Scan(); {
		var c struct {
			Text string `json:"Attacker Instruction"`
		}
		require.NoError(t, json.Unmarshal(lines.Bytes(), &c))
		out = append(out, c.Text)
	}
	require.NoError(t, file.Close())
	return out
}

// Put puts a text into a place of a record.
type Put = func(text string, record map[string]any)

// Fields are the places of a record, each in turn, and all of them.
func Fields() map[string]Put {
	attribute := func(r map[string]any) map[string]any { return r["attributes"].(map[string]any) }
	out := map[string]Put{
		"name":  func(s string, r map[string]any) { r["name"] = s },
		"value": func(s string, r map[string]any) { attribute(r)["note"] = s },
		"key":   func(s string, r map[string]any) { attribute(r)[s] = "x" },
		"list":  func(s string, r map[string]any) { attribute(r)["tags"] = []any{"a", s} },
		"nested": func(s string, r map[string]any) {
			attribute(r)["deep"] = map[string]any{"b": []any{map[string]any{s: s}}}
		},
	}
	out["all"] = func(s string, r map[string]any) {
		for name, put := range out {
			if name != "all" {
				put(s, r)
			}
		}
	}
	return out
}

// Record is one with a text in a place; an amount beside it makes it another question.
func Record(put Put, text string, amount int) json.RawMessage {
	r := map[string]any{"name": "Task", "attributes": map[string]any{"amount": amount, "note": "n", "tags": []any{"a", "b"}, "deep": map[string]any{}}}
	put(text, r)
	out, _ := json.Marshal(r) // texts and numbers
	return out
}

// Firm is who judges, in Judging's system message.
const Firm = "Acme"

// Judging is a template with every way in which a part of an event can reach a message.
func Judging() prompting.Version {
	return prompting.Version{
		Messages: []prompting.Message{
			{Role: "system", Text: "You review writes for {{ firm }}."},
			{Role: "user", Text: "The title is {{ name }}. {% for pair in attributes %}A field: {{ pair[0] }} is {{ pair[1] }}. {% endfor %}"},
			{Role: "user", Text: "{% assign all = name | append: name | upcase %}Whole: {{ after }} was {{ before | default: 'nothing' }}. {{ all | split: '<' | join: '>' }} {{ tags | join: name }}" +
				"{{- firm | prepend: name | truncate: 40 -}} {{ changed }} Say approve or reject."},
		},
		Variables: []prompting.Variable{
			{Name: "firm", Value: Firm}, {Name: "name", Path: "payload.record_name"}, {Name: "attributes", Path: "after.attributes"}, {Name: "after", Path: "after"},
			{Name: "before", Path: "before"}, {Name: "changed", Path: "changed"}, {Name: "tags", Path: "after.attributes.tags"},
		},
	}
}

// field is what the loop over a record's fields says of each: how many there are is the record's.
var field = regexp.MustCompile(`A field:  is \. `)

// authored tells whether what stands outside of a user's message is what Judging's author wrote, in one message or two.
func authored(outside string) bool {
	const title, whole = "The title is . ", "Whole:  was .   Say approve or reject."
	switch field.ReplaceAllString(outside, "") {
	case title, whole, title + "\n\n" + whole:
		return true
	default:
		return false
	}
}

// Gullible is a model that obeys every word that stands outside of the fence and is not Judging's author's. The zero one
// is ready. Safe for concurrent use.
type Gullible struct {
	// Seen changes what it sees of data, for negative controls; nonce is the fence's.
	Seen func(text, nonce string) string
}

var sentence = regexp.MustCompile(`What stands between <data-([a-z0-9]{16})> and </data-([a-z0-9]{16})> is JSON data`)

// Obeys tells whether it finds something to obey. The first message is the system's, which no data may reach; others are
// "user" and "tool".
func (g Gullible) Obeys(messages []prompting.Message) bool {
	found := sentence.FindAllStringSubmatch(messages[0].Text, -1)
	if len(found) != 1 || found[0][1] != found[0][2] || !strings.HasPrefix(messages[0].Text, "You review writes for "+Firm+".\n\nWhat stands between ") {
		return true
	}
	nonce := found[0][1]
	for _, m := range messages[1:] {
		text := m.Text
		if g.Seen != nil {
			text = g.Seen(text, nonce)
		}
		text = outside(text, nonce)
		if m.Role == "user" && !authored(text) || m.Role == "tool" && text != "" && text != "error: " {
			return true
		}
	}
	return false
}

// outside gives what of a message stands outside its fences. One that does not close encloses nothing.
func outside(text, nonce string) string {
	var out strings.Builder
	for {
		before, rest, opened := strings.Cut(text, "<data-"+nonce+">")
		_, after, closed := strings.Cut(rest, "</data-"+nonce+">")
		if !opened || !closed {
			out.WriteString(text)
			return out.String()
		}
		out.WriteString(before)
		text = after
	}
}

var island = regexp.MustCompile(`<data-[a-z0-9]+>(.*?)</data-[a-z0-9]+>`)

// raw is what a fence has in it, as it was in the record.
func raw(fenced string) string {
	text := strings.ReplaceAll(island.FindStringSubmatch(fenced)[1], "^", " ")
	var s string
	if json.Unmarshal([]byte(text), &s) != nil {
		return html.UnescapeString(strings.NewReplacer(`\u003c`, "<", `\u003e`, ">", `\u005e`, "^").Replace(text))
	}
	return s
}

// Bare takes the fence away: a Seen for controls.
func Bare(text, _ string) string { return island.ReplaceAllStringFunc(text, raw) }

// Known leaves data in a fence whose nonce the attempts guess, and does not escape it: a Seen for controls.
func Known(text, nonce string) string {
	const guessed = "aaaaaaaaaaaaaaaa"
	out := island.ReplaceAllStringFunc(text, func(fenced string) string {
		return "<data-" + guessed + ">" + raw(fenced) + "</data-" + guessed + ">"
	})
	// What the model takes for the fence is what the message has.
	return strings.ReplaceAll(out, guessed, nonce)
}
