package schedule_test

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/sametick/sametick/pkg/condition"
	"github.com/sametick/sametick/pkg/event"
	"github.com/sametick/sametick/services/webhook-worker/internal/delivery"
	"github.com/sametick/sametick/services/webhook-worker/internal/schedule"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func compiler(t testing.TB) *condition.Compiler {
	t.Helper()
	c, err := condition.NewCompiler(100)
	require.NoError(t, err)
	return c
}

func delivered(payload string) *delivery.Delivery {
	e := event.Event{ID: 8401, OrgID: 1, AggregateType: "task", AggregateID: 234, EventType: "task.post_create", Payload: []byte(payload),
		OccurredAt: time.Date(2026, 4, 12, 14, 30, 0, 0, time.UTC)}
	return &delivery.Delivery{OrgID: 1, EventID: 8401, EventType: "task.post_create", Traceparent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
		Event: schedule.Compact(e.AppendJSON(nil))}
}

func build(t *testing.T, e *delivery.Endpoint, d *delivery.Delivery) string {
	t.Helper()
	body, err := schedule.Build(t.Context(), e, d, compiler(t))
	require.NoError(t, err)
	return string(body)
}

func TestBodies(t *testing.T) {
	const ev = `{"id":8401,"org_id":1,"aggregate_type":"task","aggregate_id":234,"event_type":"task.post_create","payload":{"record_name":"a  \"b\" : c"},"occurred_at":"2026-04-12T14:30:00.000Z"}`
	d := delivered(`{ "record_name" : "a  \"b\" : c" }`)
	body := build(t, &delivery.Endpoint{Format: delivery.Standard}, d)
	require.Equal(t, `{"type":"task.post_create","timestamp":"2026-04-12T14:30:00.000Z","data":`+ev+`}`, body)
	body = build(t, &delivery.Endpoint{Format: delivery.CloudEvents}, d)
	require.Equal(t, `{"specversion":"1.0","id":"8401","source":"/organizations/1","type":"task.post_create","subject":"task/234",`+
		`"time":"2026-04-12T14:30:00.000Z","orgid":"1","traceparent":"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",`+
		`"datacontenttype":"application/json","data":`+ev+`}`, body)
	body = build(t, &delivery.Endpoint{Format: delivery.Standard, Transform: `{"name": event.payload.record_name, "n": event.id}`}, d)
	require.Equal(t, `{"type":"task.post_create","timestamp":"2026-04-12T14:30:00.000Z","data":{"n":8401,"name":"a  \"b\" : c"}}`, body)
	_, err := schedule.Build(t.Context(), &delivery.Endpoint{Transform: `{"n": event.payload.missing}`}, d, compiler(t))
	require.ErrorIs(t, err, condition.ErrMissing)
	id, err := schedule.EventID(d.Event)
	require.NoError(t, err)
	require.EqualValues(t, 8401, id)
	for _, bad := range []string{``, `{}`, `{"id":x,`, `{"id":1}`} {
		_, err := schedule.EventID([]byte(bad))
		require.Error(t, err, bad)
		_, err = schedule.OccurredAt([]byte(bad))
		require.Error(t, err, bad)
	}
}

// Real payloads come out as they went in, and no longer than they must be.
func TestPayloadsAreExact(t *testing.T) {
	files := payloads(t)
	if len(files) == 0 {
		t.Skip("../shared/data/github-payloads is not beside this checkout")
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		require.NoError(t, err)
		for _, format := range []string{delivery.Standard, delivery.CloudEvents} {
			body := build(t, &delivery.Endpoint{Format: format}, delivered(string(text)))
			var got struct {
				Data struct{ Payload json.RawMessage }
			}
			require.NoError(t, json.Unmarshal([]byte(body), &got), file)
			var want bytes.Buffer
			require.NoError(t, json.Compact(&want, text))
			require.Equal(t, want.String(), string(got.Data.Payload), file)
		}
	}
}

// payloads finds the files of ../shared beside the checkout, or beside one above it.
func payloads(t *testing.T) []string {
	dir, err := os.Getwd()
	require.NoError(t, err)
	for ; dir != filepath.Dir(dir); dir = filepath.Dir(dir) {
		if list, _ := filepath.Glob(filepath.Join(dir, "shared", "data", "github-payloads", "*.json")); len(list) > 0 {
			return list
		}
	}
	return nil
}

// Whatever is JSON is compacted as encoding/json does it.
func FuzzCompact(f *testing.F) {
	for _, seed := range []string{`{"a": [1, "b \" c", {"\\": null}]}`, ` "x" `, "[\t1 ,\r\n2]", `"\\\\"`, `""`, `1`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		var want bytes.Buffer
		got := schedule.Compact(text)
		if json.Compact(&want, text) == nil && !bytes.Equal(want.Bytes(), got) {
			t.Fatalf("%q became %q, not %q", text, got, want.Bytes())
		}
	})
}
