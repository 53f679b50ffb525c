package condition_test

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/sametick/sametick/pkg/condition"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const sample = `{"id":9007199254740993,"org_id":1,"aggregate_type":"task","aggregate_id":234,"event_type":"task.post_update",
"payload":{"org_id":1,"actor_id":null,"record_id":234,"record_type":"task","record_name":"Call <the> client é","action":"post_update",
"big":18446744073709551615,"price":1.50,"huge":1e400,"tags":["b","a"],"workflow":null,
"changes":{"priority":{"before":"low","after":"high"}},"timestamp":"2026-04-12T14:30:00.000Z"},"occurred_at":"2026-04-12T14:30:00.120Z"}`

func compiler(t testing.TB) *condition.Compiler {
	c, err := condition.NewCompiler(100)
	require.NoError(t, err)
	return c
}

func parsed(t testing.TB, text string) *condition.Event {
	e, err := condition.NewEvent([]byte(text))
	require.NoError(t, err)
	return e
}

func filter(t testing.TB, text string) (bool, error) {
	p, err := compiler(t).Compile(text, condition.Bool)
	require.NoError(t, err, text)
	return p.Bool(t.Context(), parsed(t, sample))
}

func transform(t testing.TB, text string) (string, error) {
	p, err := compiler(t).Compile(text, condition.Object)
	require.NoError(t, err, text)
	out, err := p.Object(t.Context(), parsed(t, sample))
	return string(out), err
}

func TestFilters(t *testing.T) {
	for text, want := range map[string]bool{
		`event.event_type == "task.post_update"`:                           true,
		`event.payload.changes.priority.after == "high"`:                   true,
		`event.payload["changes"]["priority"]["after"] == "low"`:           false,
		`event.payload.actor_id == null`:                                   true,
		`event.id == 9007199254740993`:                                     true, // 2^53 + 1
		`event.id == 9007199254740992`:                                     false,
		`event.payload.big == 18446744073709551615u`:                       true,
		`event.payload.big > 5`:                                            true,
		`event.payload.price == 1.5`:                                       true,
		`event.payload.record_id < 234.5`:                                  true,
		`"a" in event.payload.tags && size(event.payload.tags) == 2`:       true,
		`event.payload.tags.exists(t, t.startsWith("c"))`:                  false,
		`event.occurred_at > timestamp("2026-04-12T14:30:00Z")`:            true,
		`event.occurred_at.getHours() == 14`:                               true,
		`event.payload.record_name.lowerAscii().matches("^call .*client")`: true,
		`has(event.payload.changes.priority)`:                              true,
		`has(event.payload.step_id)`:                                       false,
		`event.payload.?step_id.orValue(0) == 0`:                           true,
		`event.payload.?workflow.hasValue()`:                               true,
		`has(event.payload.step_id) && event.payload.step_id == 1`:         false,
		`event.payload.step_id == 1 || event.org_id == 1`:                  true,
	} {
		got, err := filter(t, text)
		require.NoError(t, err, text)
		require.Equal(t, want, got, text)
	}
}

// A key that is not there is told from what does not apply, and both from what costs too much.
func TestErrorsAreTyped(t *testing.T) {
	for text, want := range map[string]error{
		`event.payload.step_id == 1`:                                     condition.ErrMissing,
		`event.nothing == 1`:                                             condition.ErrMissing,
		`event.payload["step_id"] == 1`:                                  condition.ErrMissing,
		`event.payload[event.event_type] == 1`:                           condition.ErrMissing,
		`event.payload.changes.title.after == "x"`:                       condition.ErrMissing,
		`event.payload.tags[7] == "x"`:                                   condition.ErrMissing,
		`event.payload.tags.all(t, event.payload.absent == t)`:           condition.ErrMissing,
		`event.payload.workflow.name == "x"`:                             condition.ErrMissing, // null has no name
		`has(event.payload.absent.deep)`:                                 condition.ErrMissing,
		`dyn({"a": 1})["b"] == 1`:                                        condition.ErrMissing,
		`(event.payload.step_id == 1 ? event.payload : event).id == 1`:   condition.ErrMissing,
		`event.payload.record_name > 5`:                                  condition.ErrValue,
		`event.payload.record_name.size() / 0 == 1`:                      condition.ErrValue,
		`event.payload.record_id`:                                        condition.ErrValue,
		`event.payload.record_id + "x" == "x"`:                           condition.ErrValue,
		`int(event.payload.record_name) == 1`:                            condition.ErrValue,
		`event.payload.tags["x"] == "x"`:                                 condition.ErrMissing, // a list has no keys
		`9223372036854775807 + event.org_id == 0`:                        condition.ErrValue,
		`event.payload.record_name.charAt(1000) == "x"`:                  condition.ErrValue,
		`"x".matches(event.payload.record_name + "(")`:                   condition.ErrValue,
		`event.payload.tags.map(t, t).exists(t, event.payload.tags > 5)`: condition.ErrValue,
	} {
		_, err := filter(t, text)
		require.ErrorIs(t, err, want, "%s: %v", text, err)
		require.Less(t, len(err.Error()), 320)
	}
}

func TestTransforms(t *testing.T) {
	for text, want := range map[string]string{
		`{"id": event.id, "big": event.payload.big, "n": 1.0, "x": 1.5e300, "u": 7u}`:                                       `{"big":18446744073709551615,"id":9007199254740993,"n":1,"u":7,"x":1.5e+300}`,
		`{"z": 1, "a": event.payload.tags, "é": [], "m": {}}`:                                                               `{"a":["b","a"],"m":{},"z":1,"é":[]}`,
		`{"text": event.payload.record_name + "\n\"\u2028"}`:                                                                `{"text":"Call <the> client é\n\"` + "\u2028" + `"}`,
		`{"at": event.occurred_at, "later": event.occurred_at + duration("1h1.000001s"), "d": duration("90s"), "b": b"ab"}`: `{"at":"2026-04-12T14:30:00.120Z","b":"YWI=","d":"90s","later":"2026-04-12T15:30:01.120001Z"}`,
		`{?"step": event.payload.?step_id, ?"name": event.payload.?record_name}`:                                            `{"name":"Call <the> client é"}`,
		`{"keys": event.payload.changes.priority.map(k, k), "own": {"z": event.id, "c": 2, "a": 3}.map(k, k), "const": {"z": 1, "c": 2, "a": 3}.map(k, k), "deep": [event.payload].map(p, p.filter(k, k.startsWith("record"))), "ints": {2: "b", 1: "a"}.map(k, k)}`: `{"const":["a","c","z"],"deep":[["record_id","record_name","record_type"]],"ints":[1,2],"keys":["after","before"],"own":["a","c","z"]}`,
		`event.payload.changes`: `{"priority":{"after":"high","before":"low"}}`,
		`{"null": event.payload.workflow, "yes": event.org_id == 1}`: `{"null":null,"yes":true}`,
	} {
		for range 20 { // the maps of Go are shuffled
			got, err := transform(t, text)
			require.NoError(t, err, text)
			require.Equal(t, want, got, text)
		}
	}
}

// A transform that is the event gives the event: the same values, exact to the last digit.
func TestIdentity(t *testing.T) {
	got, err := transform(t, `{"id": event.id, "org_id": event.org_id, "aggregate_type": event.aggregate_type, "payload": {"big": event.payload.big, "price": event.payload.price}, "occurred_at": event.occurred_at}`)
	require.NoError(t, err)
	require.Equal(t, `{"aggregate_type":"task","id":9007199254740993,"occurred_at":"2026-04-12T14:30:00.120Z","org_id":1,"payload":{"big":18446744073709551615,"price":1.5}}`, got)
	// The largest event goes through whole.
	wide := `{"id":1,"payload":{"a":[` + strings.Repeat("1,", 1<<20-50) + `1]}}`
	p, err := compiler(t).Compile("event", condition.Object)
	require.NoError(t, err)
	out, err := p.Object(t.Context(), parsed(t, wide))
	require.NoError(t, err)
	require.Equal(t, wide, string(out))
}

func TestTransformsThatGiveNoObject(t *testing.T) {
	for text, want := range map[string]error{
		`event.payload.record_id`:                                condition.ErrValue,
		`event.payload.workflow`:                                 condition.ErrValue,
		`{"x": event.payload.huge}`:                              condition.ErrValue,
		`{"x": 0.0 / 0.0}`:                                       condition.ErrValue,
		`{1: event.id}`:                                          condition.ErrValue,
		`{"x": type(event)}`:                                     condition.ErrValue,
		`{"x": optional.of(1)}`:                                  condition.ErrValue,
		`{"x": event.payload.absent}`:                            condition.ErrMissing,
		`{"x": event.payload.?absent.value()}`:                   condition.ErrValue,
		`{"x": event.payload.tags.map(t, event.payload.absent)}`: condition.ErrMissing,
	} {
		_, err := transform(t, text)
		require.ErrorIs(t, err, want, "%s: %v", text, err)
	}
}

// nest makes an expression whose value doubles with each of n steps, and its text does not.
func nest(n int, of string) string {
	return "[" + of + "]" + strings.Repeat(".map(a, [a, a])", n)
}

// Each would take the machine's time or memory: it must end soon, as ErrLimit.
func TestBombs(t *testing.T) {
	long := "event.payload.tags"
	for range 5 {
		long = "[1,2,3,4,5,6,7,8,9].map(x, " + long + ")"
	}
	var sum strings.Builder
	sum.WriteString(`event.payload.text`)
	for range 80 {
		sum.WriteString(` + event.payload.text`)
	}
	big := `{"payload":{"tags":[` + strings.Repeat(`"x",`, 1000) + `"x"],"text":"` + strings.Repeat("y", 1<<20) + `","part":"` + strings.Repeat("y", 60000) + `"}}`
	for name, text := range map[string]string{
		"loops in loops":        `event.payload.tags.all(a, event.payload.tags.all(b, event.payload.tags.all(c, a == b && b == c)))`,
		"nested maps":           long + " == []",
		"doubling, compared":    nest(60, "1") + " == " + nest(60, "1"),
		"doubling, converted":   nest(60, `"x"`) + ` == event.payload.tags`,
		"a sum of texts":        sum.String() + ` == "x"`,
		"doubled text":          `["x"]` + strings.Repeat(".map(a, a + a + a + a + a + a + a + a)", 30) + ` == []`,
		"a regex on a megabyte": `event.payload.text.matches("(y*)*(y*)*$")`,
		"a regex in a loop":     `event.payload.tags.all(t, event.payload.text.substring(0, 65000).matches("(y*)*(y?){30}$"))`,
		"regexes in a row":      strings.TrimSuffix(strings.Repeat(`event.payload.part.matches("(y*)*(y?){30}$") && `, 90), " && "),
	} {
		p, err := compiler(t).Compile(text, condition.Bool)
		require.NoError(t, err, name)
		begin := time.Now()
		_, err = p.Bool(t.Context(), parsed(t, big))
		require.ErrorIs(t, err, condition.ErrLimit, "%s: %v", name, err)
		require.Less(t, time.Since(begin), 30*time.Second, name) // on a busy machine; unbounded they take minutes, or never end
	}
	for name, text := range map[string]string{
		"output by doubling": `{"x": ` + nest(40, `"x"`) + `}`,
		"output by text":     `{"a": event.payload.text, "b": event.payload.text, "c": event.payload.text}`,
	} {
		p, err := compiler(t).Compile(text, condition.Object)
		require.NoError(t, err, name)
		_, err = p.Object(t.Context(), parsed(t, big))
		require.ErrorIs(t, err, condition.ErrLimit, "%s: %v", name, err)
	}
	// What is ordinary for a large event is within the bounds.
	p, err := compiler(t).Compile(`event.payload.tags.exists(t, t == "z") || event.payload.text.contains("yz") || event.payload.tags.all(t, t.size() == 1)`, condition.Bool)
	require.NoError(t, err)
	ok, err := p.Bool(t.Context(), parsed(t, big))
	require.NoError(t, err)
	require.True(t, ok)
}

func TestTheCallersContext(t *testing.T) {
	p, err := compiler(t).Compile("event.org_id == 1", condition.Bool)
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = p.Bool(ctx, parsed(t, sample))
	require.ErrorIs(t, err, context.Canceled)
}

func TestFaultsOfTheText(t *testing.T) {
	for text, want := range map[string]condition.Problem{
		"event.id ==":                           {1, 12, "Syntax error"},
		"event.id == 1 &&\n  évent.id == 2":     {2, 3, "Syntax error"},
		"event.id == 1 &&\n  evnt.id == 2":      {2, 3, "undeclared reference to 'evnt'"},
		`event.id.nothing()`:                    {1, 17, "undeclared reference to 'nothing'"},
		`1 + "a" == 2`:                          {1, 3, "found no matching overload for '_+_'"},
		`"a".replace("a", "b") == ""`:           {1, 12, "'replace' is not available"},
		`["a"].join() == ""`:                    {1, 11, "'join' is not available"},
		`"%d".format([1]) == ""`:                {1, 12, "'format' is not available"},
		`"a".matches("(")`:                      {1, 13, "invalid matches argument"},
		`"a".matches("(a{90}){9}")`:             {1, 13, "regex program size"},
		`event.occurred_at > timestamp("noon")`: {1, 31, "invalid timestamp argument"},
		`event.event_type`:                      {0, 0, ""},
		`1`:                                     {0, 0, "it gives int, wanted bool"},
		strings.Repeat("(", 200) + "true" + strings.Repeat(")", 200): {0, 0, ""},
	} {
		_, err := compiler(t).Compile(text, condition.Bool)
		if text == `event.event_type` { // dyn: shows at evaluation
			require.NoError(t, err)
			continue
		}
		var found *condition.Invalid
		require.ErrorAs(t, err, &found, text)
		p := found.Problems[0]
		require.Contains(t, p.Text, want.Text, text)
		if want.Text != "" {
			require.Equal(t, [2]int{want.Line, want.Column}, [2]int{p.Line, p.Column}, "%s: %v", text, err)
		}
		require.NotContains(t, err.Error(), "\n")
	}
	_, err := compiler(t).Compile("true", condition.Object)
	require.EqualError(t, err, "it gives bool, wanted map")
	for _, text := range []string{"", strings.Repeat("a", condition.MaxText+1), "\xff"} {
		_, err := compiler(t).Compile(text, condition.Bool)
		require.ErrorIs(t, err, condition.ErrText)
	}
}

func TestEventsThatAreNone(t *testing.T) {
	for _, text := range []string{"", "null", "[]", "1", "{", `{} {}`, `{"occurred_at":"noon"}`} {
		_, err := condition.NewEvent([]byte(text))
		require.Error(t, err, text)
	}
}

// The cache gives the same program for a text and kind, forgets rather than grows, and is shared.
func TestCache(t *testing.T) {
	c, err := condition.NewCompiler(3)
	require.NoError(t, err)
	a, _ := c.Compile("event.id == 1", condition.Bool)
	again, _ := c.Compile("event.id == 1", condition.Bool)
	require.Same(t, a, again)
	_, err = c.Compile("event.id == 1", condition.Object)
	require.Error(t, err)
	e := parsed(t, sample)
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			for i := range 50 {
				p, err := c.Compile(fmt.Sprintf("event.payload.tags.exists(t, t == 'b') && event.id != %d", (w+i)%7), condition.Bool)
				if err != nil {
					t.Error(err)
					return
				}
				if ok, err := p.Bool(t.Context(), e); !ok || err != nil {
					t.Error(ok, err)
				}
			}
		})
	}
	wg.Wait()
	after, _ := c.Compile("event.id == 1", condition.Bool)
	require.NotSame(t, a, after)
}

// FuzzCompile: whatever the text, it is refused or evaluates within its bounds; what a transform gives is JSON.
func FuzzCompile(f *testing.F) {
	for _, seed := range []string{
		`event.payload.tags.exists(t, t == "a")`, `{"a": event.payload, "b": [event.id]}`, `event`, `event.payload.?x.orValue({})`,
		nest(20, "event"), `{"x": event.payload.record_name.split("").map(c, c + c)}`, `event.occurred_at.getFullYear("Europe/Berlin") > 1`,
		`event.payload.changes.priority.after.matches("h.*") ? {"a": 1} : {"b": 2u}`, "has(event.x)", "\"\\xff\"", `b"\xff" == b""`,
	} {
		f.Add(seed)
	}
	c := compiler(f)
	e := parsed(f, sample)
	f.Fuzz(func(t *testing.T, text string) {
		defer time.AfterFunc(10*time.Second, func() { panic(text) }).Stop()
		if p, err := c.Compile(text, condition.Bool); err == nil {
			_, _ = p.Bool(t.Context(), e)
		}
		if p, err := c.Compile(text, condition.Object); err == nil {
			out, err := p.Object(t.Context(), e)
			if err == nil && (!json.Valid(out) || out[0] != '{' || len(out) > condition.MaxOutput) {
				t.Fatalf("%q gave %q", text, out)
			}
			if again, _ := p.Object(t.Context(), e); string(again) != string(out) {
				t.Fatalf("%q gave %q, then %q", text, out, again)
			}
		}
	})
}

func BenchmarkCompile(b *testing.B) {
	c, err := condition.NewCompiler(1)
	require.NoError(b, err)
	b.ReportAllocs()
	for i := range b.N {
		if _, err := c.Compile(fmt.Sprintf(`event.payload.changes.priority.after == "high" && event.id > %d`, i), condition.Bool); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkBool(b *testing.B) {
	for name, text := range map[string]string{
		"fields": `event.payload.changes.priority.after == "high" && event.org_id == 1`,
		"loop":   `event.payload.tags.exists(t, t == "a")`,
	} {
		b.Run(name, func(b *testing.B) {
			p, err := compiler(b).Compile(text, condition.Bool)
			require.NoError(b, err)
			e := parsed(b, sample)
			b.ReportAllocs()
			for b.Loop() {
				if ok, err := p.Bool(b.Context(), e); !ok || err != nil {
					b.Fatal(ok, err)
				}
			}
		})
	}
}

func BenchmarkNewEvent(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		parsed(b, sample)
	}
}
