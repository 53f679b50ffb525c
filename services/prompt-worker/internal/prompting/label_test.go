package prompting

import (
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func TestLabels(t *testing.T) {
	l := Labels{Latest: 3}
	version, err := l.Resolve(0, LabelLatest)
	require.NoError(t, err)
	require.Equal(t, 3, version)
	version, err = l.Resolve(2, "")
	require.NoError(t, err)
	require.Equal(t, 2, version)
	_, err = l.Resolve(0, LabelProduction)
	require.ErrorIs(t, err, ErrNoLabel)
	_, err = l.Resolve(4, "")
	require.ErrorIs(t, err, ErrNoVersion)

	moved, err := l.Set(Move{Label: LabelProduction, Version: 1})
	require.NoError(t, err)
	require.Equal(t, Label{1, true}, moved.Named[LabelProduction])
	require.Nil(t, l.Named, "what was read before stays as it was")
	_, err = moved.Set(Move{Label: LabelProduction, Version: 2})
	require.ErrorIs(t, err, ErrUntested)
	for _, m := range []Move{{Label: LabelProduction, Version: 2, Tested: true}, {Label: LabelProduction, Version: 2, Force: true}} {
		next, err := moved.Set(m)
		require.NoError(t, err)
		require.Equal(t, Label{2, true}, next.Named[LabelProduction])
		version, err := next.Resolve(0, LabelProduction)
		require.NoError(t, err)
		require.Equal(t, 2, version, "at once")
	}
	open := false
	next, err := moved.Set(Move{Label: LabelProduction, Version: 1, Protected: &open})
	require.NoError(t, err)
	require.Equal(t, Label{1, false}, next.Named[LabelProduction])
	for _, name := range []string{"", LabelLatest, "Prod", "1a", "a b"} {
		_, err := l.Set(Move{Label: name, Version: 1})
		require.Error(t, err, name)
	}
	_, err = l.Set(Move{Label: "beta", Version: 4})
	require.ErrorIs(t, err, ErrNoVersion)
}

// TestLabelsFollow: after any moves a label gives the version of its last move that was allowed.
func TestLabelsFollow(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := Labels{Latest: rapid.IntRange(1, 5).Draw(t, "latest")}
		want := map[string]int{}
		for range 20 {
			m := Move{
				Label: rapid.SampledFrom([]string{"production", "beta"}).Draw(t, "label"), Version: rapid.IntRange(0, 6).Draw(t, "version"),
				Force: rapid.Bool().Draw(t, "force"), Tested: rapid.Bool().Draw(t, "tested"),
			}
			next, err := l.Set(m)
			if err == nil {
				want[m.Label] = m.Version
			} else {
				require.Equal(t, l, next)
			}
			l = next
			for name, version := range want {
				got, err := l.Resolve(0, name)
				require.NoError(t, err)
				require.Equal(t, version, got)
			}
		}
	})
}

func TestDiff(t *testing.T) {
	one := Version{[]Message{{RoleSystem, "Be brief."}, {RoleUser, "Title: {{ name }}\nEnd"}}, []Variable{{Name: "name", Path: "payload.record_name"}}}
	two := Version{[]Message{{RoleSystem, "Be brief."}, {RoleUser, "Task: {{ name }}\nEnd"}}, []Variable{{Name: "name", Path: "payload.record_name", Required: true}}}
	require.Equal(t, `--- 1
+++ 2
@@ -1,6 +1,6 @@
 --- system
 Be brief.
 --- user
-Title: {{ name }}
+Task: {{ name }}
 End
---- variable name from payload.record_name
+--- variable name from payload.record_name, required
`, Diff("1", one, "2", two))
	require.Empty(t, Diff("1", one, "1", one))
}

func TestMask(t *testing.T) {
	mask, err := NewMask([]string{"attributes.amount", "items.*.code", "record_name"}, DefaultMaskedKeys())
	require.NoError(t, err)
	event := subject(t, `{"payload":{"record_name":"Ann","changes":{"attributes.amount":{"before":1,"after":2},"attributes.API-Key":{"before":"a"},"name":{"before":"x"},"attributes":{"before":{"amount":1,"n":1},"after":{"items":[{"code":"a"}],"secret":1}}}},
		"before":{"attributes":{"amount":1,"kept":2,"Password":"a","userToken":null}},
		"after":{"attributes":{"amount":2,"items":[{"code":"a","n":1}],"bank":{"IBAN":"DE"},"secrets":["a"]}}}`)
	template, err := Compile(user("{{ payload }}|{{ before }}|{{ after }}|{{ secret }}|{{ deep }}",
		data("payload", "payload"), data("before", "before"), data("after", "after"), data("secret", "before.attributes.Password"), data("deep", "after.attributes.bank.IBAN.0")))
	require.NoError(t, err)
	p, err := template.Render(t.Context(), event, mask)
	require.NoError(t, err)
	require.Equal(t, `{"changes":{"attributes":{"after":{"items":[{"code":"[masked]"}],"secret":"[masked]"},"before":{"amount":"[masked]","n":1}},"attributes.API-Key":"[masked]","attributes.amount":"[masked]","name":{"before":"x"}},"record_name":"[masked]"}|`+
		`{"attributes":{"Password":"[masked]","amount":"[masked]","kept":2,"userToken":null}}|`+
		`{"attributes":{"amount":"[masked]","bank":{"IBAN":"[masked]"},"items":[{"code":"[masked]","n":1}],"secrets":"[masked]"}}|"[masked]"|`,
		regexpTags.ReplaceAllString(p.User[0], ""))
	_, err = NewMask([]string{"a..b"}, nil)
	require.Error(t, err)
	_, err = NewMask(nil, []string{"__"})
	require.Error(t, err, "it would hide everything")
}
