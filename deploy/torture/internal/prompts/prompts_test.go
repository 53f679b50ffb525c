package prompts_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/sametick/sametick/deploy/torture/internal/prompts"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// far is models with their record.
type far struct {
	*prompts.Models
	t      *testing.T
	path   string
	record *prompts.Record
	client http.Client
}

func newFar(t *testing.T) *far {
	f := &far{t: t, path: filepath.Join(t.TempDir(), "prompts"), client: http.Client{Timeout: 300 * time.Millisecond, Transport: &http.Transport{DisableKeepAlives: true}}}
	var err error
	f.record, err = prompts.CreateRecord(f.path)
	require.NoError(t, err)
	f.Models, err = prompts.Listen(t.Context(), f.record, time.Millisecond)
	require.NoError(t, err)
	return f
}

const question = `{"model":"hook-3","messages":[{"role":"system","content":"event <data-ab>9</data-ab>"},{"role":"user","content":"about event <data-ab>5</data-ab>."}]}`

// ask gives the status, 0 for none, and what was answered.
func (f *far) ask(moody bool, body string) (int, string) {
	f.t.Helper()
	resp, err := f.client.Post(f.URL(moody)+"/chat/completions", "application/json", bytes.NewReader([]byte(body)))
	if err != nil {
		return 0, ""
	}
	text, err := io.ReadAll(resp.Body)
	require.NoError(f.t, err)
	require.NoError(f.t, resp.Body.Close())
	return resp.StatusCode, string(text)
}

// calls ends the models and reads their record.
func (f *far) calls() (list []prompts.Call) {
	f.t.Helper()
	require.NoError(f.t, f.Close())
	require.NoError(f.t, f.record.Close())
	file, err := os.Open(f.path)
	require.NoError(f.t, err)
	defer func() { require.NoError(f.t, file.Close()) }()
	require.NoError(f.t, prompts.Read(file, func(c prompts.Call) { list = append(list, c) }))
	return list
}

func TestEachCallIsInTheRecord(t *testing.T) {
	f := newFar(t)
	status, text := f.ask(false, question)
	require.Equal(t, 200, status)
	require.Contains(t, text, prompts.Text(5))
	for name, body := range map[string]string{
		"of no hook":         strings.Replace(question, "hook-3", "gpt", 1),
		"of no event":        strings.Replace(question, "event <data-ab>5", "event <data-ab>x", 1),
		"outside the fence":  strings.Replace(question, "<data-ab>5</data-ab>", "5", 1),
		"in a system's word": strings.Replace(question, `"user"`, `"system"`, 1),
		"no JSON":            "hook-3",
	} {
		status, _ := f.ask(false, body)
		require.Equal(t, http.StatusBadRequest, status, name)
	}
	got := f.calls()
	require.Equal(t, prompts.Call{Answer: prompts.Answered, Hook: 3, EventID: 5}, got[0])
	require.Len(t, got, 6)
	for _, c := range got[1:] {
		require.Equal(t, prompts.Foreign, c.Answer)
	}
}

func TestMoods(t *testing.T) {
	f := newFar(t)
	for mood, want := range map[prompts.Mood]int{prompts.Failing: 503, prompts.Busy: 429, prompts.Resetting: 0, prompts.Hanging: 0} {
		f.Put(mood)
		status, _ := f.ask(true, question)
		require.Equal(t, want, status, mood)
		status, _ = f.ask(false, question)
		require.Equal(t, 200, status, "it has no moods")
	}
	f.Put(prompts.Well)
	status, _ := f.ask(true, question)
	require.Equal(t, 200, status)
	require.Equal(t, prompts.Counts{Answered: 5, Refused: 2, Silent: 2}, f.record.Counts())
	require.Len(t, f.calls(), 9)
}

func TestPlan(t *testing.T) {
	plan := prompts.Plan([]int64{1, 2, 3}, []string{"task", "employee", "team"}, 400)
	require.Len(t, plan, 3*2+2)
	for n, h := range plan {
		require.Equal(t, n, h.Number)
		require.NotEqual(t, "task", h.Type, "it is left alone")
	}
	edge := plan[6]
	require.Positive(t, edge.Runs)
	require.True(t, edge.Selects("team", 10_002))
	require.False(t, edge.Selects("team", 10_001))
	require.Len(t, edge.Burst(), 100)
	require.Empty(t, plan[1].Burst())
	require.False(t, edge.Selects("team", 2))
	require.False(t, edge.Selects("employee", 10_002))
}

// A writer knows what it was told, and of nothing else.
func TestWriters(t *testing.T) {
	answers := []string{`201 {"id":1}`, `422 {"reason":"REVIEW_REJECTED"}`, `503 {"reason":"REVIEW_UNAVAILABLE"}`, `503 {"reason":"UNAVAILABLE"}`, `500 {}`, ""}
	ctx, cancel := context.WithCancel(t.Context())
	var names []string
	n := 0
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var body struct{ Name string }
		_ = json.NewDecoder(r.Body).Decode(&body)
		names = append(names, body.Name)
		answer := answers[n]
		if n++; n == len(answers) {
			cancel()
		}
		if answer == "" {
			panic(http.ErrAbortHandler)
		}
		w.WriteHeader(map[string]int{"201": 201, "422": 422, "503": 503, "500": 500}[answer[:3]])
		_, _ = io.WriteString(w, answer[4:])
	}))
	defer server.Close()
	w := &prompts.Writers{URL: server.URL, Token: "t", Types: []*prompts.Reviewed{{Type: "feedback"}}}
	w.Run(ctx, 1)
	var outcomes []prompts.Outcome
	for i, v := range w.Writes() {
		outcomes = append(outcomes, v.Outcome)
		require.Equal(t, names[i], v.Name)
		require.Equal(t, v.Bad, strings.HasSuffix(v.Name, " bad"))
	}
	require.Equal(t, []prompts.Outcome{prompts.Created, prompts.Rejected, prompts.Unavailable, prompts.Unknown, prompts.Unknown, prompts.Unknown}, outcomes)
}
