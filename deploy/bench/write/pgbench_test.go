package main

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sametick/sametick/deploy/bench/internal/rig"
)

func TestScriptLine(t *testing.T) {
	arg := func(s string) *string { return &s }
	line := scriptLine(rig.Statement{
		SQL:  "INSERT INTO t\n\tVALUES ($1, $2, $3::jsonb, $4, $5::jsonb, $11)",
		Args: []*string{arg("42"), arg(`it's "a": \b`), arg(`[{"org_id":42,"aggregate_id": 42}, {"aggregate_id":42,"x":421}]`), nil, arg(`{"request_id": "Q", "ip": "::1"}`)},
	}, "42")
	require.Equal(t, `INSERT INTO t VALUES (:id::bigint, E'it''s "a"\x3a \\b', `+
		`replace(E'[{"org_id"\x3a42,"aggregate_id"\x3a @}, {"aggregate_id"\x3a@,"x"\x3a421}]', '@', :id::text)::jsonb, NULL, replace(E'{"request_id"\x3a "@", "ip"\x3a "\x3a\x3a1"}', '@', left(md5(:id::text), 26))::jsonb, $11);`, line)
}

func TestIsTransactional(t *testing.T) {
	require.True(t, isTransactional("BEGIN"))
	require.True(t, isTransactional(" commit "))
	require.False(t, isTransactional("SELECT sametick.commit()"))
}
