package report_test

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"math"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sametick/sametick/deploy/bench/internal/report"
)

func TestQuantile(t *testing.T) {
	values := []float64{4, 1, 3, 2}
	require.InDelta(t, 1, report.Quantile(values, 0), 1e-9)
	require.InDelta(t, 2.5, report.Quantile(values, 0.5), 1e-9)
	require.InDelta(t, 4, report.Quantile(values, 1), 1e-9)
	require.Equal(t, []float64{4, 1, 3, 2}, values, "the caller's slice stays as it was")
	require.True(t, math.IsNaN(report.Quantile(nil, 0.5)))
}

func TestVerdicts(t *testing.T) {
	r := &report.Report{}
	r.AtLeast("reached", 0.9, 0.85)
	r.AtLeast("not reached", 0.8, 0.85)
	r.AtMost("within", 3, 3)
	r.AtMost("beyond", 3.1, 3)
	r.AtLeast("not measured", r.Median("no leg", "nobody"), 1)
	require.Len(t, r.Verdicts, 4, "what was not measured is no verdict")
	require.Equal(t, 2, r.Missed())
}

func TestPrintAndSave(t *testing.T) {
	r := &report.Report{Title: "A bench", Facts: []report.Fact{{Name: "machine", Value: "two cores"}}}
	for _, v := range []float64{10, 30, 20} {
		r.Add("drain", "ours", "events/s", v)
		r.Add("drain", "theirs", "events/s", v/10)
	}
	r.Add("idle", "ours", "% of a core", 0.5)
	r.AtLeast("ours ÷ theirs ≥ 8", r.Median("drain", "ours")/r.Median("drain", "theirs"), 8)
	var out bytes.Buffer
	require.NoError(t, r.Print(&out))
	require.Contains(t, out.String(), "two cores")
	require.Regexp(t, `ours\s+20\.0\s+10\.0\s+30\.0\s+3\s+events/s`, out.String())
	require.Regexp(t, `ours ÷ theirs ≥ 8\s+10\.0\s+met`, out.String())

	files, err := r.Save(filepath.Join(t.TempDir(), "out"), "bench")
	require.NoError(t, err)
	require.Len(t, files, 2)
	svg, err := os.Open(files[1])
	require.NoError(t, err)
	defer func() { _ = svg.Close() }()
	for d := xml.NewDecoder(svg); ; {
		if _, err := d.Token(); err != nil {
			require.True(t, errors.Is(err, io.EOF), "the plot is well-formed: %v", err)
			return
		}
	}
}
