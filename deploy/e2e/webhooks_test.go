package e2e_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	webhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
	"github.com/stretchr/testify/require"
)

// testWebhooks makes an endpoint over REST and a task, and a receiver that nobody here wrote the verifying of takes
// what comes, once; then the endpoint's history, a redelivery and its end.
func testWebhooks(t *testing.T, b *bench) {
	type request struct {
		header http.Header
		body   []byte
	}
	got := make(chan request, 10)
	receiver := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		got <- request{r.Header, body}
		w.WriteHeader(http.StatusNoContent)
	}))
	defer receiver.Close()
	call := func(method, path string, body, out any) {
		t.Helper()
		status, text, err := b.ask(t.Context(), method, path, b.Token, body, out)
		require.NoError(t, err)
		require.Equal(t, http.StatusOK, status, "%s %s: %s", method, path, text)
	}
	receive := func(secret string) (id string, data event) {
		t.Helper()
		select {
		case r := <-got:
			wh, err := webhooks.NewWebhook(secret)
			require.NoError(t, err)
			require.NoError(t, wh.Verify(r.body, r.header), "%v %s", r.header, r.body)
			require.Error(t, wh.Verify(append(r.body, ' '), r.header), "the control: another body")
			var sent struct {
				Type string
				Data event
			}
			require.NoError(t, json.Unmarshal(r.body, &sent))
			require.Equal(t, sent.Type, sent.Data.EventType)
			return r.header.Get("webhook-id"), sent.Data
		case <-time.After(time.Minute):
			require.FailNow(t, "nothing came")
			return "", event{}
		}
	}
	var made struct {
		Endpoint struct{ ID int64 }
		Secret   string
	}
	call("POST", "/api/webhooks/endpoints", map[string]any{"url": receiver.URL, "event_types": []string{"task.post_create"}}, &made)
	path := fmt.Sprintf("/api/webhooks/endpoints/%d", made.Endpoint.ID)
	task := b.create(t, "for the webhook")
	id, data := receive(made.Secret)
	require.Equal(t, []any{"task.post_create", task}, []any{data.EventType, data.AggregateID})
	require.Equal(t, fmt.Sprintf("msg_%d_%d", data.ID, made.Endpoint.ID), id)

	type delivery struct {
		ID     int64
		Status string
	}
	var list struct{ Data []delivery }
	await(t, "the delivery's end", func() bool {
		call("GET", fmt.Sprintf("/api/webhooks/deliveries?endpoint_id=%d", made.Endpoint.ID), nil, &list)
		return len(list.Data) == 1 && list.Data[0].Status == "delivered"
	})
	call("POST", fmt.Sprintf("/api/webhooks/deliveries/%d:redeliver", list.Data[0].ID), map[string]any{}, nil)
	again, _ := receive(made.Secret)
	require.Equal(t, id, again, "the same event for the same endpoint")
	call("POST", path+":test", map[string]any{}, nil)
	_, data = receive(made.Secret)
	require.Equal(t, "webhook_endpoint.test", data.EventType)
	call("POST", path+":replay", map[string]any{"after_position": 0}, nil)
	for first := true; first || data.AggregateID != task; first = false { // all tasks up to that one
		_, data = receive(made.Secret)
		require.Equal(t, "task.post_create", data.EventType)
	}
	var stats struct{ Attempts, Delivered int64 }
	await(t, "the statistics", func() bool {
		call("GET", path+"/stats", nil, &stats)
		return stats.Attempts >= 4 && stats.Attempts == stats.Delivered
	})
	call("DELETE", path, nil, nil)
	status, text, err := b.ask(t.Context(), "POST", "/api/webhooks/endpoints", b.Token, map[string]any{"url": "https://169.254.169.254/latest"}, nil)
	require.NoError(t, err)
	require.Equal(t, http.StatusBadRequest, status, text)
	require.Contains(t, text, "INVALID_URL")
}
