package hooks_test

import (
	"bytes"
	"encoding/base64"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/sametick/sametick/deploy/torture/internal/envelope"
	"github.com/sametick/sametick/deploy/torture/internal/hooks"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// far is receivers with one endpoint behind each, in the order of Plan.
type far struct {
	*hooks.Receivers
	t         *testing.T
	path      string
	record    *hooks.Record
	endpoints []*hooks.Endpoint
	client    http.Client
}

func newFar(t *testing.T) *far {
	f := &far{t: t, path: filepath.Join(t.TempDir(), "webhooks"), client: http.Client{Timeout: 300 * time.Millisecond, Transport: &http.Transport{DisableKeepAlives: true}}}
	var err error
	f.record, err = hooks.CreateRecord(f.path)
	require.NoError(t, err)
	f.Receivers, err = hooks.Listen(t.Context(), f.record)
	require.NoError(t, err)
	f.endpoints = hooks.Plan([]int64{1, 2}, []string{"task", "employee", "team"}, 3)
	for n, e := range f.endpoints {
		f.Locate(e, n)
		e.ID, e.Secret = int64(n)+1, "whsec_"+base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{byte(n)}, 32))
		require.NoError(t, f.Add(e))
	}
	return f
}

const (
	data = `{"id":5,"event_type":"task.post_update"}`
	body = `{"type":"task.post_update","timestamp":"2026-04-12T14:30:00.000Z","data":` + data + `}`
)

// send posts a body signed with a secret and gives the status; 0 for none.
func (f *far) send(url, id, secret, body string) int {
	f.t.Helper()
	signer, err := standardwebhooks.NewWebhook(secret)
	require.NoError(f.t, err)
	now := time.Now()
	signature, err := signer.Sign(id, now, []byte(body))
	require.NoError(f.t, err)
	req, err := http.NewRequestWithContext(f.t.Context(), http.MethodPost, url, bytes.NewReader([]byte(body)))
	require.NoError(f.t, err)
	req.Header = http.Header{"Webhook-Id": {id}, "Webhook-Timestamp": {strconv.FormatInt(now.Unix(), 10)}, "Webhook-Signature": {signature}}
	resp, err := f.client.Do(req)
	if err != nil {
		return 0
	}
	require.NoError(f.t, resp.Body.Close())
	return resp.StatusCode
}

// receipts ends the receivers and reads their record.
func (f *far) receipts() (list []hooks.Receipt) {
	f.t.Helper()
	require.NoError(f.t, f.Close())
	require.NoError(f.t, f.record.Close())
	file, err := os.Open(f.path)
	require.NoError(f.t, err)
	defer func() { require.NoError(f.t, file.Close()) }()
	require.NoError(f.t, hooks.Read(file, func(r hooks.Receipt) error { list = append(list, r); return nil }))
	return list
}

func TestWhatComesIsInTheRecord(t *testing.T) {
	f := newFar(t)
	steady, failing, other := f.endpoints[0], f.endpoints[1], f.endpoints[3]
	hash := envelope.Hash([]byte(data))
	require.Equal(t, 204, f.send(steady.URL, "msg_5_1", steady.Secret, body))
	require.Equal(t, 204, f.send(failing.URL, "msg_5_2", failing.Secret, body))
	want := []hooks.Receipt{{Answer: hooks.Accepted, EndpointID: 1, EventID: 5, Hash: hash}, {Answer: hooks.Accepted, EndpointID: 2, EventID: 5, Hash: hash}}
	for name, send := range map[string]func() int{
		"wrong secret":     func() int { return f.send(steady.URL, "msg_5_1", other.Secret, body) },
		"other address":    func() int { return f.send(other.URL, "msg_5_1", steady.Secret, body) },
		"other event":      func() int { return f.send(steady.URL, "msg_6_1", steady.Secret, body) },
		"other type":       func() int { return f.send(steady.URL, "msg_5_1", steady.Secret, `{"type":"x","data":`+data+`}`) },
		"no id":            func() int { return f.send(steady.URL, "nothing", steady.Secret, body) },
		"no body":          func() int { return f.send(steady.URL, "msg_5_1", steady.Secret, "") },
		"unknown endpoint": func() int { return f.send(steady.URL, "msg_5_99", steady.Secret, body) },
		"longer path":      func() int { return f.send(steady.URL+"0", "msg_5_1", steady.Secret, body) },
	} {
		require.Equal(t, http.StatusUnauthorized, send(), name)
	}
	got := f.receipts()
	require.Equal(t, want, got[:2])
	require.Len(t, got, 10)
	for _, r := range got[2:] {
		require.Equal(t, hooks.Forged, r.Answer)
	}
	require.Equal(t, hooks.Counts{Accepted: 2, Forged: 8}, f.record.Counts())
}

func TestMoods(t *testing.T) {
	f := newFar(t)
	steady, failing, hanging := f.endpoints[0], f.endpoints[1], f.endpoints[4]
	f.Hang(hooks.Hanging)
	require.Zero(t, f.send(hanging.URL, "msg_5_5", hanging.Secret, body))
	for mood, status := range map[hooks.Mood]int{hooks.Failing: 503, hooks.Busy: 429, hooks.Resetting: 0} {
		f.Fail(mood)
		require.Equal(t, status, f.send(failing.URL, "msg_5_2", failing.Secret, body), mood)
	}
	require.Equal(t, 204, f.send(steady.URL, "msg_5_1", steady.Secret, body), "it has no moods")
	f.Fail(hooks.Well)
	f.Hang(hooks.Well)
	require.Equal(t, 204, f.send(failing.URL, "msg_5_2", failing.Secret, body))
	require.Equal(t, 204, f.send(hanging.URL, "msg_5_5", hanging.Secret, body))
	require.Equal(t, hooks.Counts{Accepted: 3, Refused: 4}, f.record.Counts())
	require.Len(t, f.receipts(), 7)
}

func TestSelects(t *testing.T) {
	e := &hooks.Endpoint{Types: []string{"task"}, IDs: []int64{1, 2}}
	require.True(t, e.Selects("task.post_create", "task", 1))
	require.True(t, e.Selects("task.started", "task", 1))
	require.False(t, e.Selects("task.pre_create", "task", 1))
	require.False(t, e.Selects("task.post_create", "task", 3))
	require.False(t, e.Selects("team.post_create", "team", 1))
	require.True(t, (&hooks.Endpoint{}).Selects("team.post_create", "team", 9))
}
