package rig

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestStatementOf(t *testing.T) {
	for message, want := range map[string]string{
		"statement: SELECT 1":                   "SELECT 1",
		"execute stmtcache_1: SELECT ': ' || 2": "SELECT ': ' || 2",
		"execute <unnamed>: INSERT":             "INSERT",
	} {
		got, ok := statementOf(message)
		require.True(t, ok, message)
		require.Equal(t, want, got)
	}
	for _, message := range []string{"duration: 3 ms", "connection authorized: user=x", "ready"} {
		_, ok := statementOf(message)
		require.False(t, ok, message)
	}
}

func TestParametersOf(t *testing.T) {
	args, err := parametersOf(`parameters: $1 = '1', $2 = NULL, $3 = 'it''s, $4 = ''x''', $4 = ''`)
	require.NoError(t, err)
	require.Len(t, args, 4)
	require.Equal(t, "1", *args[0])
	require.Nil(t, args[1])
	require.Equal(t, `it's, $4 = 'x'`, *args[2])
	require.Empty(t, *args[3])

	none, err := parametersOf("")
	require.NoError(t, err)
	require.Empty(t, none)
	_, err = parametersOf("parameters: $1 = 'open")
	require.Error(t, err)
}
