package importer_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"

	"github.com/sametick/sametick/services/tick/internal/client"
	"github.com/sametick/sametick/services/tick/internal/importer"
)

// TestNamesFitTheServer: names of 500 characters and external ids of 255 are its limits.
func TestNamesFitTheServer(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("ü", 600)
	a := &api{}
	im := &importer.Importer{To: a, Source: "s", Parallel: 1}
	event := `<event><string key="concept:name" value=" "/><string key="org:resource" value="` + long + `"/></event>`
	require.NoError(t, im.Run(t.Context(), strings.NewReader(`<log><trace><string key="concept:name" value="`+long+`1"/>`+event+`</trace>`+
		`<trace><string key="concept:name" value="`+long+`2"/>`+event+`</trace></log>`)))
	require.Len(t, a.records, 5, "two workflows that differ at their end, two steps, one employee")
	for _, r := range a.records {
		require.LessOrEqual(t, utf8.RuneCountInString(r.Name), 500)
		require.LessOrEqual(t, utf8.RuneCountInString(r.Attributes["external_id"].(string)), 255)
	}
	require.Equal(t, "unnamed", a.of("step")[0].Name)
	require.Equal(t, long+"1", a.of("workflow")[0].Attributes["concept:name"], "the whole name is kept")
}

// away fails as a server does that is not there.
type away struct{ calls int }

func (a *away) Create(context.Context, client.NewRecord) (client.Record, error) {
	a.calls++
	return client.Record{}, errors.New("connection refused")
}

func TestAServerThatNeverAnsweredIsNotWaitedFor(t *testing.T) {
	t.Parallel()
	a := &away{}
	require.ErrorContains(t, (&importer.Importer{To: a, Source: "s", Parallel: 1}).Run(t.Context(), strings.NewReader("<log><trace/></log>")), "refused")
	require.Equal(t, 1, a.calls)
}
