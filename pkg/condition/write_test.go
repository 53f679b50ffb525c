package condition_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sametick/sametick/pkg/condition"
)

func TestWrites(t *testing.T) {
	c, err := condition.NewWriteCompiler(10)
	require.NoError(t, err)
	update, err := condition.NewWrite([]byte(`{"event_type":"employee.pre_update","before":{"attributes":{"salary":100}},"after":{"name":" ","attributes":{"salary":300}},"changed":["name","attributes.salary"]}`))
	require.NoError(t, err)
	create, err := condition.NewWrite([]byte(`{"event_type":"task.pre_create","after":{"name":"x"},"before":null}`))
	require.NoError(t, err)
	past, err := condition.NewWrite([]byte(`{"event_type":"task.post_update","payload":{"changes":{"name":{"before":"a","after":"b"},"attributes":{"before":{"x":1},"after":{"x":2,"y":3}}}}}`))
	require.NoError(t, err)
	for _, tt := range []struct {
		text  string
		event *condition.Event
		want  bool
	}{
		{`"attributes.salary" in changed && after.attributes.salary > before.attributes.salary * 2`, update, true},
		{`after.name.trim() == ""`, update, true},
		{`has(event.before) || has(event.changed)`, update, false},
		{`before == null && after.name == "x" && size(changed) == 0`, create, true},
		{`before != null && before.name == "x"`, create, false},
		{`changed == ["attributes.x", "attributes.y", "name"] && after == null`, past, true},
	} {
		p, err := c.Compile(tt.text, condition.Bool)
		require.NoError(t, err, tt.text)
		got, err := p.Bool(t.Context(), tt.event)
		require.NoError(t, err, tt.text)
		require.Equal(t, tt.want, got, tt.text)
	}
	p, err := c.Compile(`before.name == "x"`, condition.Bool)
	require.NoError(t, err)
	_, err = p.Bool(t.Context(), create)
	require.Error(t, err, "null has no name")
	_, err = compiler(t).Compile(`after.name == ""`, condition.Bool)
	require.Error(t, err, "events alone have no after")
}

func TestAny(t *testing.T) {
	for text, want := range map[string]string{`1 + 1`: `2`, `event.payload.tags`: `["b","a"]`, `{"a": true}`: `{"a":true}`, `null`: `null`} {
		p, err := compiler(t).Compile(text, condition.Any)
		require.NoError(t, err, text)
		out, err := p.JSON(t.Context(), parsed(t, sample))
		require.NoError(t, err, text)
		require.Equal(t, want, string(out))
	}
}
