package xes_test

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/require"

	"github.com/sametick/sametick/services/tick/internal/xes"
)

const small = `<?xml version="1.0" encoding="UTF-8"?>
<!-- a log with all that the standard allows -->
<x:log xmlns:x="http://www.xes-standard.org/" xes.version="1.0">
  <extension name="Concept" prefix="concept" uri="http://www.xes-standard.org/concept.xesext"/>
  <global scope="trace"><string key="concept:name" value="UNKNOWN"/></global>
  <classifier name="Activity" keys="concept:name"/>
  <float key="meta" value="1.5"><float key="inner" value="2"/></float>
  <x:trace>
    <string key="concept:name" value="case &amp; one"/>
    <event>
      <string key="concept:name" value="Confirm"/>
      <date key="time:timestamp" value="2011-10-11T13:45:40.276+02:00"/>
      <int key="count" value="007"/>
      <float key="cost" value="12.50"/>
      <float key="odd" value="NaN"/>
      <boolean key="ok" value="true"/>
      <id key="ref" value="5f0b"/>
      <string key="org:resource" value="R1"><string key="role" value="clerk"/></string>
      <list key="l"><values><string key="a" value="1"/><string key="a" value="2"/></values></list>
      <container key="c"><string key="x" value="y"/></container>
    </event>
    <event><string key="concept:name" value="Decide"/></event>
  </x:trace>
  <trace/>
</x:log>`

func read(t *testing.T, log string) (traces []xes.Trace, failed error) {
	t.Helper()
	for trace, err := range xes.Read(strings.NewReader(log)) {
		if err != nil {
			return traces, err
		}
		traces = append(traces, trace)
	}
	return traces, nil
}

func TestReadKeepsTypesAndNesting(t *testing.T) {
	t.Parallel()
	traces, err := read(t, small)
	require.NoError(t, err)
	require.Len(t, traces, 2)
	require.Equal(t, "case & one", traces[0].Attributes.String(xes.Name))
	require.Len(t, traces[0].Events, 2)
	got, err := json.Marshal(traces[0].Events[0].Attributes.Map())
	require.NoError(t, err)
	require.JSONEq(t, `{"concept:name":"Confirm","time:timestamp":"2011-10-11T13:45:40.276+02:00","count":7,"cost":12.5,
		"odd":"NaN","ok":true,"ref":"5f0b","org:resource":{"value":"R1","attributes":{"role":"clerk"}},
		"l":[{"a":"1"},{"a":"2"}],"c":{"x":"y"}}`, string(got))
}

func TestReadTellsGzipByContent(t *testing.T) {
	t.Parallel()
	var z bytes.Buffer
	w := gzip.NewWriter(&z)
	_, err := w.Write([]byte(small))
	require.NoError(t, err)
	require.NoError(t, w.Close())
	traces, err := read(t, z.String())
	require.NoError(t, err)
	require.Len(t, traces, 2)
	_, err = read(t, z.String()[:z.Len()/2])
	require.ErrorContains(t, err, "the file ends")
}

func TestReadSaysWhereAndWhat(t *testing.T) {
	t.Parallel()
	for log, want := range map[string]string{
		"":       "1:1: expected <log>",
		"{}":     "1:3: expected <log>",
		"<html>": "expected <log>",
		"<log>\n<trace>\n<event><int key='n' value='x'/>":           "3:32: attribute \"n\": \"x\" is no whole number",
		"<log><trace><event><date key='d' value='today'/>":          "is no date such as",
		"<log><trace><event><boolean key='b' value='ja'/>":          "neither true nor false",
		"<log><trace><event><string value='x'/>":                    "<string> has no key",
		"<log><trace><event><string key='x'/>":                      "<string> has no value",
		"<log><trace><event><blob key='x' value='y'/>":              "is no attribute",
		"<log><trace><event></trace></log>":                         "1:28: element <event> closed by </trace>",
		"<log><trace>" + strings.Repeat("<container key='k'>", 100): "nest deeper",
	} {
		_, err := read(t, log)
		require.ErrorContains(t, err, want, log)
	}
}

func TestReadTakesOldEncodingsAndLocalTimes(t *testing.T) {
	t.Parallel()
	traces, err := read(t, "<?xml version='1.0' encoding='ISO-8859-1'?><log><trace><string key='concept:name' value='Stra\xdfe'/>"+
		"<date key='d' value='2011-10-11T13:45:40'/></trace></log>")
	require.NoError(t, err)
	require.Equal(t, "Straße", traces[0].Attributes.String(xes.Name))
	require.Equal(t, "2011-10-11T13:45:40", traces[0].Attributes.String("d"))
}

// TestReadTheRealLog reads the municipality's log beside the checkout, where there is one.
func TestReadTheRealLog(t *testing.T) {
	t.Parallel()
	dir := os.Getenv("SAMETICK_TEST_DATA")
	if dir == "" {
		dir = filepath.Join("..", "..", "..", "..", "..", "shared", "data")
	}
	f, err := os.Open(filepath.Join(dir, "receipt.xes.gz"))
	if err != nil {
		t.Skipf("the real log is not here (%v): set SAMETICK_TEST_DATA to run this; the small log is tested above", err)
	}
	defer func() { _ = f.Close() }()
	traces, events := 0, 0
	for trace, err := range xes.Read(f) {
		require.NoError(t, err)
		traces++
		events += len(trace.Events)
	}
	require.Equal(t, []int{1434, 8577}, []int{traces, events})
}

// FuzzRead: a log says the same however it arrives, and all that is read of it is JSON.
func FuzzRead(f *testing.F) {
	f.Add([]byte(small))
	f.Add([]byte("<log><trace><event><int key='n' value='-0'/></event></trace></log>"))
	f.Add([]byte("<log><trace><event><float key='n' value='1e999'/><float key='m' value='-INF'/></event></trace></log>"))
	f.Add([]byte("<?xml version='1.0' encoding='UTF-16'?><log/>"))
	f.Add([]byte("<!DOCTYPE log [<!ENTITY a 'aaaa'><!ENTITY b '&a;&a;'>]><log><trace><string key='&b;' value='&b;'/></trace></log>"))
	f.Add([]byte{0x1f, 0x8b, 0})
	f.Fuzz(func(t *testing.T, log []byte) {
		collect := func(r io.Reader) (traces []xes.Trace, failed bool) {
			for trace, err := range xes.Read(r) {
				if err != nil {
					return traces, true
				}
				traces = append(traces, trace)
			}
			return traces, false
		}
		whole, broken := collect(bytes.NewReader(log))
		pieces, again := collect(iotest.OneByteReader(bytes.NewReader(log)))
		if broken != again || !reflect.DeepEqual(whole, pieces) {
			t.Fatalf("%+v (broken %v), in pieces %+v (broken %v)", whole, broken, pieces, again)
		}
		for _, trace := range whole {
			for _, e := range append(trace.Events, xes.Event{Attributes: trace.Attributes}) {
				if _, err := json.Marshal(e.Attributes.Map()); err != nil {
					t.Fatalf("an event that is no JSON: %v", err)
				}
			}
		}
	})
}
