package harness

import (
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/pprof"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/sametick/sametick/deploy/torture/internal/chaos"
	"github.com/sametick/sametick/deploy/torture/internal/follow"
	"github.com/sametick/sametick/deploy/torture/internal/rig"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A client that does not come on makes the run unclean, and what the processes did meanwhile is kept.
func TestAStalledClientIsInquiredInto(t *testing.T) {
	mux := http.NewServeMux()
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	ops := httptest.NewServer(mux)
	defer ops.Close()
	dir := t.TempDir()
	r := &run{o: &Options{Dir: dir, Out: io.Discard}, report: &Report{}, journal: chaos.NewJournal(io.Discard),
		suite: &suite{processes: []*rig.Process{rig.NewProcess("gateway 0", "", nil, "")}, ops: []string{ops.URL}}}
	file := filepath.Join(dir, "gateway 0.goroutines")

	r.inquire(t.Context(), nil)
	require.True(t, r.report.Clean())
	require.NoFileExists(t, file)

	r.inquire(t.Context(), []follow.Place{{Life: &follow.Life{Name: "client 13.31"}, Last: 32087, Gateway: "http://g", Local: ops.Listener.Addr().String(),
		Since: time.Now().Add(-time.Minute), Event: time.Now().Add(-30 * time.Second)}})
	require.False(t, r.report.Clean())
	require.Regexp(t, `^stalled: client 13\.31 .* is at 32087: last event 30s ago, last heartbeat never, connected 1m0s ago as 127\.0\.0\.1:\d+ to http://g \(`, r.report.Unclean[0])
	stacks, err := os.ReadFile(file)
	require.NoError(t, err)
	require.Contains(t, string(stacks), "goroutine ")
	require.Contains(t, string(stacks), "pprof")
}
