package listen_test

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
	"github.com/stretchr/testify/require"

	"github.com/sametick/sametick/services/tick/internal/listen"
	"github.com/sametick/sametick/services/tick/internal/tail"
)

// A receiver that knows the secret accepts what is delivered; one with another does not.
func TestDeliver(t *testing.T) {
	var header http.Header
	var body []byte
	status := http.StatusNoContent
	receiver := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		header = r.Header
		body, _ = io.ReadAll(r.Body)
		w.Header().Set("Location", "/elsewhere")
		w.WriteHeader(status)
	}))
	defer receiver.Close()
	f, err := listen.New(receiver.URL, "")
	require.NoError(t, err)
	raw := `{"id":8401,"event_type":"task.post_create","big":12345678901234567890}`
	e := tail.Event{ID: 8401, EventType: "task.post_create", OccurredAt: time.Date(2026, 4, 12, 14, 30, 0, 5e6, time.UTC)}
	got, err := f.Deliver(t.Context(), e, raw)
	require.NoError(t, err)
	require.Equal(t, 204, got)
	right, err := standardwebhooks.NewWebhook(f.Secret)
	require.NoError(t, err)
	require.NoError(t, right.Verify(body, header))
	other, err := listen.New(receiver.URL, "")
	require.NoError(t, err)
	wrong, err := standardwebhooks.NewWebhook(other.Secret)
	require.NoError(t, err)
	require.Error(t, wrong.Verify(body, header), "each has a secret of its own")
	require.Equal(t, "msg_8401_0", header.Get("webhook-id"))
	var sent struct {
		Type, Timestamp string
		Data            json.RawMessage
	}
	require.NoError(t, json.Unmarshal(body, &sent))
	require.Equal(t, []string{"task.post_create", "2026-04-12T14:30:00.005Z", raw}, []string{sent.Type, sent.Timestamp, string(sent.Data)})

	status = http.StatusFound
	got, err = f.Deliver(t.Context(), e, raw)
	require.NoError(t, err)
	require.Equal(t, 302, got, "redirects are not followed, as by webhook-worker")
	receiver.Close()
	_, err = f.Deliver(t.Context(), e, raw)
	require.Error(t, err)
}

func TestNewRefuses(t *testing.T) {
	for _, address := range []string{"", "127.0.0.1:3000", "ftp://x", "http://"} {
		_, err := listen.New(address, "")
		require.ErrorContains(t, err, "is no address", address)
	}
	_, err := listen.New("http://127.0.0.1:1", "whsec_!sesame")
	require.ErrorContains(t, err, "--secret")
	require.NotContains(t, err.Error(), "sesame")
}
