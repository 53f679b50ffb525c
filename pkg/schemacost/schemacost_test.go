package schemacost_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/stretchr/testify/require"

	"github.com/sametick/sametick/pkg/schemacost"
)

func tooHigh(t *testing.T, text string) bool {
	t.Helper()
	doc, err := jsonschema.UnmarshalJSON(strings.NewReader(text))
	require.NoError(t, err)
	c := jsonschema.NewCompiler()
	require.NoError(t, c.AddResource("mem:s", doc))
	s, err := c.Compile("mem:s")
	require.NoError(t, err)
	return schemacost.TooHigh(s)
}

// doubling has n definitions each of which names the next one twice by a keyword, given as %s around the references.
func doubling(n int, keyword string) string {
	var b strings.Builder
	b.WriteString(`{"$ref":"#/$defs/d0","$defs":{`)
	for i := range n {
		next := fmt.Sprintf(`{"$ref":"#/$defs/d%d"}`, i+1)
		fmt.Fprintf(&b, `"d%d":{`+keyword+`},`, i, next, next)
	}
	fmt.Fprintf(&b, `"d%d":{"type":"object"}}}`, n)
	return b.String()
}

// Whatever keyword doubles, it is counted: a few definitions pass, a few more do not.
func TestDoubling(t *testing.T) {
	for _, keyword := range []string{
		`"allOf":[%s,%s]`, `"anyOf":[%s,%s]`, `"oneOf":[%s,%s]`, `"prefixItems":[%s,%s]`, `"if":%s,"then":%s`, `"not":%s,"else":%s,"if":{"type":"string"}`,
		`"properties":{"a":%s,"b":%s}`, `"patternProperties":{"a":%s,"b":%s}`, `"dependentSchemas":{"a":%s,"b":%s}`,
		`"additionalProperties":%s,"propertyNames":%s`, `"items":%s,"contains":%s`, `"unevaluatedItems":%s,"unevaluatedProperties":%s`,
	} {
		require.False(t, tooHigh(t, doubling(6, keyword)), keyword)
		require.True(t, tooHigh(t, doubling(12, keyword)), keyword)
	}
}

func TestRecursionIsTooHigh(t *testing.T) {
	require.True(t, tooHigh(t, `{"$ref":"#/$defs/a","$defs":{"a":{"properties":{"child":{"$ref":"#/$defs/a"}}}}}`))
	require.True(t, tooHigh(t, `{"$dynamicAnchor":"n","properties":{"child":{"$dynamicRef":"#n"}}}`))
	require.False(t, tooHigh(t, `{"properties":{"a":{"$ref":"#/$defs/a"}},"$defs":{"a":{"type":"string"},"unused":{"$ref":"#/$defs/unused"}}}`))
}
