package prompting

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/sametick/sametick/pkg/errs"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const taskEvent = `{"id":8401,"org_id":1,"aggregate_type":"task","aggregate_id":234,"event_type":"task.pre_update",
	"payload":{"record_name":"Call the client","actor_id":7},
	"before":{"name":"Call","attributes":{"amount":10}},
	"after":{"name":"Call the client","none":[],"attributes":{"amount":9007199254740993,"rate":0.5,"tags":["a b","c"],"password":"hunter2","nested":{"iban":"DE00","x":1}}},
	"changed":["name","attributes.amount"]}`

func subject(t testing.TB, text string) *Subject {
	t.Helper()
	s, err := ParseSubject([]byte(text))
	require.NoError(t, err)
	return s
}

// user makes a version of one user's message.
func user(text string, variables ...Variable) Version {
	return Version{[]Message{{RoleUser, text}}, variables}
}

func data(name, path string) Variable { return Variable{Name: name, Path: path} }

// rendered is the text of the only message, with the nonce taken out.
func rendered(t testing.TB, v Version, event string) string {
	t.Helper()
	template, err := Compile(v)
	require.NoError(t, err)
	p, err := template.Render(t.Context(), subject(t, event), nil)
	require.NoError(t, err)
	return strings.ReplaceAll(p.User[0], "-"+p.Fence.nonce, "")
}

func TestRender(t *testing.T) {
	after, tags := data("after", "after"), data("tags", "after.attributes.tags")
	name, amount := data("name", "payload.record_name"), data("amount", "after.attributes.amount")
	language := Variable{Name: "language", Value: "Ger<man"}
	for text, want := range map[string]string{
		"Title: {{ name }}.":             `Title: <data>"Call^the^client"</data>.`,
		"{{ amount }}":                   `<data>9007199254740993</data>`,
		"{{ after.attributes.rate }}":    `<data>0.5</data>`,
		"{{ name | upcase }}":            `<data>"CALL^THE^CLIENT"</data>`,
		"{{ name | truncate: 6 }}":       `<data>"Call^…"</data>`,
		"{{ name | split: ' ' | last }}": `<data>"client"</data>`,
		"{{ tags }}":                     `<data>["a^b","c"]</data>`,
		"{% for tag in tags reversed limit: 1 %}{{ forloop.index }}={{ tag }};{% endfor %}": `1=<data>"c"</data>;`,
		"{% for pair in after.attributes.nested %}{{ pair[0] }}{% endfor %}":                `<data>"iban"</data><data>"x"</data>`,
		"{{ after.attributes.nested }}":                                                     `<data>{"iban":"DE00","x":1}</data>`,
		"In {{ language | downcase }}":                                                      `In ger<man`,
		"{{ language | append: name }}":                                                     `<data>"Ger\u003cmanCall^the^client"</data>`,
		"{% assign l = language %}{{ l }}":                                                  `<data>"Ger\u003cman"</data>`,
		"{% if amount > 5 and name contains 'client' %}big{% else %}small{% endif %}":       `big`,
		"{% case name %}{% when 'x', 'y' %}1{% else %}2{% endcase %}":                       `2`,
		"a {{- name -}} b": `a<data>"Call^the^client"</data>b`,
		"{% raw %}{{ name }}{% endraw %}{% comment %}{% nothing %}{% endcomment %}": `{{ name }}`,
		"{{ tags | join: ', ' }}":                                                                       `<data>"a^b,^c"</data>`,
		"{{ after.nothing }}|{{ after.nothing | default: 'none' }}":                                     `|<data>"none"</data>`,
		"{% unless after.nothing %}x{% endunless %}":                                                    `x`,
		"{% for tag in tags %}{% if tag == 'c' %}{% continue %}{% endif %}{{ tag }}{% endfor %}":        `<data>"a^b"</data>`,
		"{% for tag in after.none %}x{% else %}none{% endfor %}":                                        `none`,
		"{{ amount | plus: 1 }}{{ tags.size }}{{ name | replace: 'client', 'firm' | remove: 'Call ' }}": `<data>9007199254740992</data><data>2</data><data>"the^firm"</data>`,
	} {
		require.Equal(t, want, rendered(t, user(text, after, tags, name, amount, language), taskEvent), text)
	}
}

func TestValuesAreNotRenderedTwice(t *testing.T) {
	got := rendered(t, user("{{ name }}", data("name", "payload.record_name")), `{"payload":{"record_name":"{{ secret }}{% include '/etc/passwd' %}"}}`)
	require.Equal(t, `<data>"{{^secret^}}{%^include^'/etc/passwd'^%}"</data>`, got)
}

func TestCompileRefuses(t *testing.T) {
	name := data("name", "payload.record_name")
	system := Version{[]Message{{RoleSystem, "About\n{{ name }}"}, {RoleUser, "x"}}, []Variable{name}}
	for _, tt := range []struct {
		v      Version
		field  string
		reason string
		text   string
	}{
		{user("a\nb\n{{ title }}", name), "messages[0].text", "UNDECLARED_VARIABLE", "line 3:"},
		{user("{{ name }}{% if title %}{% endif %}", name), "messages[0].text", "UNDECLARED_VARIABLE", `"title"`},
		{user("{{ name[title] }}", name), "messages[0].text", "UNDECLARED_VARIABLE", `"title"`},
		{user("{{ name | append: title }}", name), "messages[0].text", "UNDECLARED_VARIABLE", `"title"`},
		{user("{% for x in x %}{% endfor %}", name), "messages[0].text", "UNDECLARED_VARIABLE", `"x"`},
		{user("{% for a in name limit: n %}{% endfor %}", name), "messages[0].text", "UNDECLARED_VARIABLE", `"n"`},
		{system, "messages[0].text", "NOT_ALLOWED", "line 2: name comes from the event"},
		{user("{% include '/etc/passwd' %}"), "messages[0].text", "UNKNOWN_TAG", "include"},
		{user("{% sametick_plain name %}", name), "messages[0].text", "UNKNOWN_TAG", ""},
		{user("{% capture x %}{% endcapture %}"), "messages[0].text", "UNKNOWN_TAG", "capture"},
		{user("{% tablerow x in name %}{% endtablerow %}", name), "messages[0].text", "UNKNOWN_TAG", "tablerow"},
		{user("{% assign name = 'x' %}", name), "messages[0].text", "NOT_ALLOWED", "keeps its value"},
		{user("{% for forloop in name %}{% endfor %}", name), "messages[0].text", "SYNTAX", "forloop"},
		{user("{% for i in (1..1000000000) %}{% endfor %}"), "messages[0].text", "SYNTAX", ".."},
		{user("{{ name | sort }}", name), "messages[0].text", "UNKNOWN_FILTER", `"sort"`},
		{user("{{ name | date: '%999999999Y' }}", name), "messages[0].text", "UNKNOWN_FILTER", ""},
		{user("{{ name | }}", name), "messages[0].text", "SYNTAX", ""},
		{user("{{ %assign x = 1 }}"), "messages[0].text", "SYNTAX", ""},
		{user("{{ name; }}", name), "messages[0].text", "SYNTAX", ""},
		{user(`{{ "%}" }}`), "messages[0].text", "SYNTAX", ""},
		{user("{{ 99999999999999999999 }}"), "messages[0].text", "SYNTAX", ""},
		{user("{{ name", name), "messages[0].text", "SYNTAX", "does not close"},
		{user("x\n\n{% if name ", name), "messages[0].text", "SYNTAX", "line 3"},
		{user("{% if name %}", name), "messages[0].text", "SYNTAX", "if does not end"},
		{user("{% raw %}"), "messages[0].text", "SYNTAX", "raw does not end"},
		{user("{% endif %}"), "messages[0].text", "SYNTAX", "endif without if"},
		{user("{% else %}"), "messages[0].text", "SYNTAX", "else without"},
		{user("{% if name %}{% for x in name %}{% endif %}{% endfor %}", name), "messages[0].text", "SYNTAX", "endif without if"},
		{user("{% break %}"), "messages[0].text", "SYNTAX", "outside of a loop"},
		{user("{{ 1" + strings.Repeat(" | abs", maxWork+1) + " }}"), "messages[0].text", "TOO_COMPLEX", ""},
		{user("{% if name %}"+strings.Repeat("{% elsif name contains 1 %}", maxWork+1)+"{% endif %}", name), "messages[0].text", "TOO_COMPLEX", ""},
		{user("x", data("name", "record_name")), "variables[0].path", "INVALID_FORMAT", "begins with"},
		{user("x", data("name", "payload..x")), "variables[0].path", "INVALID_FORMAT", ""},
		{user("x", data("name", "payload.\u202ex")), "variables[0].path", "INVALID_FORMAT", ""},
		{user("x", data("for me", "payload")), "variables[0].name", "INVALID_FORMAT", ""},
		{user("x", data("forloop", "payload")), "variables[0].name", "NOT_ALLOWED", ""},
		{user("x", name, name), "variables[1].name", "DUPLICATE", ""},
		{user("x", Variable{Name: "both", Path: "payload", Value: "x"}), "variables[0]", "INVALID_FORMAT", ""},
		{user("x", Variable{Name: "none"}), "variables[0]", "INVALID_FORMAT", ""},
		{user(strings.Repeat("x", MaxText+1)), "messages", "OUT_OF_RANGE", ""},
		{user(" \n"), "messages[0].text", "REQUIRED", ""},
		{user("\xff"), "messages[0].text", "INVALID_FORMAT", ""},
		{Version{Messages: []Message{{RoleSystem, "x"}}}, "messages", "REQUIRED", ""},
		{Version{Messages: []Message{{"assistant", "x"}, {RoleUser, "x"}}}, "messages[0].role", "NOT_IN_ENUM", ""},
		{Version{Messages: make([]Message, MaxMessages+1)}, "messages", "OUT_OF_RANGE", ""},
	} {
		_, err := Compile(tt.v)
		var e *errs.Error
		require.ErrorAs(t, err, &e, "%v", tt.v)
		require.Equal(t, errs.Invalid, e.Kind)
		require.Equal(t, tt.field, e.Fields[0].Field, "%v", e.Fields)
		require.Equal(t, tt.reason, e.Fields[0].Reason, "%v", e.Fields)
		require.Contains(t, e.Fields[0].Description, tt.text)
	}
}

// TestBounds has templates that take all the time or room there is, when nothing stops them.
func TestBounds(t *testing.T) {
	list := "[" + strings.TrimSuffix(strings.Repeat("1,", 2000), ",") + "]"
	event := `{"after":{"list":` + list + `,"text":"` + strings.Repeat("a", 1000) + `","weird":"` + strings.Repeat("<", 100_000) + `"}}`
	v := []Variable{data("list", "after.list"), data("text", "after.text"), data("weird", "after.weird")}
	loop := "{% for a in list %}{% for b in list %}{% for c in list %}%%{% endfor %}{% endfor %}{% endfor %}"
	nest := func(inner string) string { return strings.Replace(loop, "%%", inner, 1) }
	for name, text := range map[string]string{
		"output":            nest("x" + strings.Repeat("y", 100)),
		"steps":             nest(""),
		"failing in a loop": nest("{{ text }}"),
		"doubling":          "{% assign s = text %}{% for a in list %}{% assign s = s | append: s %}{% endfor %}",
		"multiplying":       "{% assign s = text | replace: 'a', text %}{{ s | replace: 'a', s }}",
		"joining":           "{% assign s = text | replace: 'a', '0123456789012345678901234567890123456789' %}{{ list | join: s }}",
		"concatenating":     "{% assign l = list %}{% for a in list %}{% assign l = l | concat: l %}{% endfor %}",
		"escaping":          "{{ weird }}{{ weird }}{{ weird }}",
		"splitting":         "{{ weird | split: '' | size }}",
		"comparing":         nest("{% if list == false %}" + strings.Repeat("{% elsif list contains 2 %}", maxWork-1) + "{% endif %}"),
	} {
		template, err := Compile(user(text, v...))
		require.NoError(t, err, name)
		start := time.Now()
		_, err = template.Render(t.Context(), subject(t, event), nil)
		var failure *ModelError
		require.ErrorAs(t, err, &failure, name)
		require.Equal(t, CauseTemplate, failure.Cause)
		require.NotContains(t, failure.Text, "goroutine", "no stack")
		require.Less(t, time.Since(start), 30*time.Second, "%s: unbounded it takes hours", name)
	}
}

func TestRenderEnds(t *testing.T) {
	template, err := Compile(user("{{ name }}", Variable{Name: "name", Path: "payload.record_name", Required: true}))
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = template.Render(ctx, subject(t, taskEvent), nil)
	var failure *ModelError
	require.True(t, errors.As(err, &failure) && failure.Cause == CauseTimeout)
	_, err = template.Render(t.Context(), subject(t, `{"payload":{"record_name":null}}`), nil)
	require.True(t, errors.As(err, &failure) && failure.Cause == CauseTemplate)
	require.Contains(t, failure.Text, "payload.record_name")
	_, err = template.Render(t.Context(), subject(t, `{"payload":{"record_name":"`+strings.Repeat("x", maxData)+`"}}`), nil)
	require.True(t, errors.As(err, &failure) && failure.Cause == CauseTemplate)
}

func TestRuntimeFaultsHaveALine(t *testing.T) {
	template, err := Compile(user("\n\n{{ n | divided_by: 0 }}", data("n", "id")))
	require.NoError(t, err)
	_, err = template.Render(t.Context(), subject(t, `{"id":1}`), nil)
	require.ErrorContains(t, err, "messages[0]: line 3")
	require.ErrorContains(t, err, "division by zero")
}

func TestSystemMessage(t *testing.T) {
	template, err := Compile(Version{
		[]Message{{RoleSystem, "You are {{ who }}."}, {RoleUser, "{{ name }}"}, {RoleSystem, "Be brief."}},
		[]Variable{{Name: "who", Value: "a reviewer"}, data("name", "payload.record_name")},
	})
	require.NoError(t, err)
	p, err := template.Render(t.Context(), subject(t, taskEvent), nil)
	require.NoError(t, err)
	require.Equal(t, "You are a reviewer.\n\nBe brief.\n\n"+p.Fence.Sentence(), p.System)
	require.Equal(t, []Message{{RoleSystem, p.System}, {RoleUser, p.User[0]}}, p.Messages())
}

// TestDigest: caches find the same question again, and no other.
func TestDigest(t *testing.T) {
	template, err := Compile(user("{% for p in all %}{{ p }}{% endfor %}", data("all", "after.attributes")))
	require.NoError(t, err)
	digest := func(event string) string {
		p, err := template.Render(t.Context(), subject(t, event), nil)
		require.NoError(t, err)
		return p.Digest()
	}
	for range 20 {
		require.Equal(t, digest(taskEvent), digest(taskEvent))
	}
	require.NotEqual(t, digest(taskEvent), digest(strings.Replace(taskEvent, "a b", "a  b", 1)))
}
