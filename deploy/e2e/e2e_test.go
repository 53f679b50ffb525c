package e2e_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/redis/rueidis"
	"github.com/stretchr/testify/require"
)

// TestTheSuite walks through one running suite; the steps build on each other.
func TestTheSuite(t *testing.T) {
	b := up(t)
	listener := b.startTail(t)
	require.True(t, t.Run("login and history", func(t *testing.T) { testLoginAndHistory(t, b) }))
	require.True(t, t.Run("stream and resume", func(t *testing.T) { testStreamAndResume(t, b, listener) }))
	require.True(t, t.Run("logout ends the stream", func(t *testing.T) { testLogoutEndsTheStream(t, b) }))
	require.True(t, t.Run("emit", func(t *testing.T) { testEmit(t, b, listener) }))
	require.True(t, t.Run("import", func(t *testing.T) { testImport(t, b, listener) }))
	require.True(t, t.Run("webhooks", func(t *testing.T) { testWebhooks(t, b) }))
	require.True(t, t.Run("portal", func(t *testing.T) { testPortal(t, b) }))
	require.True(t, t.Run("prompts", func(t *testing.T) { testPrompts(t, b) }))
	require.True(t, t.Run("terminate each service under load", func(t *testing.T) { testTerminate(t, b, listener) }))
	require.True(t, t.Run("counts agree", func(t *testing.T) { testCounts(t, b, listener) }))
	require.True(t, t.Run("up again", func(t *testing.T) { testUpAgain(t, b, listener) }))
}

func testLoginAndHistory(t *testing.T, b *bench) {
	var session struct {
		AccessToken string `json:"access_token"`
		TokenType   string `json:"token_type"`
	}
	status, text, err := b.ask(t.Context(), http.MethodPost, "/api/auth/login", "",
		map[string]string{"email": b.Secrets.Email, "password": b.Secrets.Password}, &session)
	require.NoError(t, err)
	require.Equal(t, http.StatusOK, status, text)
	require.Equal(t, "Bearer", session.TokenType)

	task := b.create(t, "a \"task\"\nid: 0\n\ndata: forged")
	var events list
	text = b.get(t, "/api/events?aggregate_type=task&limit=10", session.AccessToken, &events)
	require.Equal(t, 2, events.Total, text)
	require.Equal(t, "task.post_create", events.Data[0].EventType)
	require.Equal(t, "task.pre_create", events.Data[1].EventType)
	require.Equal(t, task, events.Data[0].AggregateID)
	require.Regexp(t, `^\{"data":\[\{"id":\d+,"org_id":\d+,"aggregate_type":"task","aggregate_id":\d+,"event_type":"task.post_create","payload":\{.*\},`+
		`"occurred_at":"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"\},`, strings.Join(strings.Fields(text), ""))

	var history list
	b.get(t, fmt.Sprintf("/api/events/task/%d", task), b.Token, &history)
	require.Equal(t, []string{"task.pre_create", "task.post_create"}, []string{history.Data[0].EventType, history.Data[1].EventType})

	for _, token := range []string{"", "stk_" + strings.Repeat("x", 43), session.AccessToken + "x"} {
		status, text, err := b.ask(t.Context(), http.MethodGet, "/api/events", token, nil, nil)
		require.NoError(t, err)
		require.Equal(t, http.StatusUnauthorized, status, text)
	}
}

// frame is one event of a stream with its position.
type frame struct {
	id   string
	data event
}

// stream reads frames with data until take says enough.
func (b *bench) stream(ctx context.Context, query, last string, opened func(), take func(frame) bool) error {
	return streamAt(ctx, b.URL+"/api/events/stream?"+query, last, opened, take)
}

func streamAt(ctx context.Context, url, last string, opened func(), take func(frame) bool) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	if last != "" {
		req.Header.Set("Last-Event-ID", last)
	}
	req.Header.Set("Origin", "http://localhost:3000") // as EventSource in a page sends it
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = res.Body.Close() }()
	if got := res.Header.Get("Content-Type"); res.StatusCode != http.StatusOK || !strings.HasPrefix(got, "text/event-stream") {
		return fmt.Errorf("%s, %s", res.Status, got)
	}
	if got := res.Header.Get("Access-Control-Allow-Origin"); got == "" {
		return errors.New("a page may not read the stream")
	}
	if opened != nil {
		opened()
	}
	var f frame
	for lines := bufio.NewScanner(res.Body); lines.Scan(); {
		field, value, _ := strings.Cut(lines.Text(), ": ")
		switch field {
		case "id":
			f.id = value
		case "data":
			if err := json.Unmarshal([]byte(value), &f.data); err != nil {
				return fmt.Errorf("%s: %w", value, err)
			}
			if !take(f) {
				return nil
			}
			f = frame{}
		}
	}
	return fmt.Errorf("the stream ended: %w", ctx.Err())
}

// frames reads n frames.
func (b *bench) frames(t *testing.T, n int, query, last string, opened func()) (got []frame) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	require.NoError(t, b.stream(ctx, query, last, opened, func(f frame) bool {
		got = append(got, f)
		return len(got) < n
	}), "after %d of %d", len(got), n)
	return got
}

func testStreamAndResume(t *testing.T, b *bench, listener *tail) {
	// A stream that asks for no position begins with what is published next: let what was written be it.
	before := b.create(t, "before")
	await(t, "tick tail to show what was before", func() bool { return faults([]int64{before}, listener.seen()) == "" })

	query := "event_type=task.post_create&token=" + b.Token
	var tasks []int64
	live := b.frames(t, 1, query, "", func() { tasks = append(tasks, b.create(t, "live\r\n\r\ndata: {}")) })
	require.Equal(t, tasks[0], live[0].data.AggregateID)

	// Away for three events, then back: those three, nothing else, and the next live one.
	for i := range 3 {
		tasks = append(tasks, b.create(t, fmt.Sprint("away ", i)))
	}
	back := b.frames(t, 4, query, live[0].id, func() { tasks = append(tasks, b.create(t, "back")) })
	for i, f := range back {
		require.Equal(t, tasks[i+1], f.data.AggregateID)
	}

	// The same over the parameters of browsers that cannot set the header.
	for _, name := range []string{"last_event_id", "lastEventId"} {
		require.Equal(t, back, b.frames(t, 4, query+"&"+name+"="+live[0].id, "", nil))
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	require.ErrorContains(t, b.stream(ctx, "token=wrong", "", nil, nil), "401")
}

// testLogoutEndsTheStream through every service: api-gateway, the relay, Redis and sse-gateway.
func testLogoutEndsTheStream(t *testing.T, b *bench) {
	var session struct {
		AccessToken  string `json:"access_token"`
		RefreshToken string `json:"refresh_token"`
	}
	status, text, err := b.ask(t.Context(), http.MethodPost, "/api/auth/login", "",
		map[string]string{"email": b.Secrets.Email, "password": b.Secrets.Password}, &session)
	require.NoError(t, err)
	require.Equal(t, http.StatusOK, status, text)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	opened, ended := make(chan struct{}), make(chan error, 1)
	go func() {
		ended <- b.stream(ctx, "token="+session.AccessToken, "", func() { close(opened) }, func(frame) bool { return true })
	}()
	select {
	case <-opened:
	case err := <-ended:
		require.NoError(t, err, "before it opened")
	}
	status, text, err = b.ask(t.Context(), http.MethodPost, "/api/auth/logout", "", map[string]string{"refresh_token": session.RefreshToken}, nil)
	require.NoError(t, err)
	require.Equal(t, http.StatusOK, status, text)
	<-ended
	require.NoError(t, ctx.Err(), "it ended by itself")
	err = b.stream(ctx, "token="+session.AccessToken, "", nil, func(frame) bool { return true })
	require.ErrorContains(t, err, "401")
}

func testEmit(t *testing.T, b *bench, listener *tail) {
	out, err := b.command(t.Context(), "emit", "announcement", "Hello", "--attr", "loud=true").Output()
	require.NoError(t, err)
	var made struct {
		ID         int64          `json:"id"`
		Attributes map[string]any `json:"attributes"`
	}
	require.NoError(t, json.Unmarshal(out, &made))
	require.Equal(t, map[string]any{"loud": true}, made.Attributes)
	id := fmt.Sprint(made.ID)
	for _, args := range [][]string{{"announcement", "Hello again", "--update", id}, {"announcement", "--archive", id}} {
		out, err := b.command(t.Context(), append([]string{"emit"}, args...)...).CombinedOutput()
		require.NoError(t, err, "%s", out)
	}
	var types []string
	await(t, "tick tail to show the announcement's end", func() bool {
		types = nil
		for _, e := range listener.seen() {
			if e.AggregateType == "announcement" && e.AggregateID == made.ID {
				types = append(types, e.EventType)
			}
		}
		return len(types) == 6
	})
	require.Equal(t, []string{
		"announcement.pre_create", "announcement.post_create", "announcement.pre_update", "announcement.post_update",
		"announcement.pre_archive", "announcement.post_archive",
	}, types)
}

// testImport imports a log, stops in the middle, and goes on.
func testImport(t *testing.T, b *bench, listener *tail) {
	const traces, each = 40, 5
	var log strings.Builder
	log.WriteString("<log>")
	for i := range traces {
		fmt.Fprintf(&log, `<trace><string key="concept:name" value="case-%d"/>`, i)
		for k := range each {
			fmt.Fprintf(&log, `<event><string key="concept:name" value="act %d"/><string key="lifecycle:transition" value="complete"/>`+
				`<date key="time:timestamp" value="2011-10-11T13:45:%02d.276+02:00"/><string key="org:resource" value="R%d"/>`+
				`<string key="org:group" value="G"/></event>`, k, k, k%3)
		}
		log.WriteString("</trace>")
	}
	log.WriteString("</log>")
	file := filepath.Join(t.TempDir(), "small.xes")
	require.NoError(t, os.WriteFile(file, []byte(log.String()), 0o600))

	before := len(listener.seen())
	interrupted := b.command(t.Context(), "import", file)
	interrupted.Stderr = t.Output()
	require.NoError(t, interrupted.Start())
	await(t, "the import to begin", func() bool { return len(listener.seen()) > before+10 })
	require.NoError(t, interrupted.Process.Signal(os.Interrupt))
	_ = interrupted.Wait() // 130, or 0 when it was quicker

	out, err := b.command(t.Context(), "import", file).CombinedOutput()
	require.NoError(t, err, "%s", out)
	require.Contains(t, string(out), "40 workflows, 200 steps, 3 employees, 1 teams")

	// Each record once: its post_create and nothing twice; and the steps of a workflow in order.
	counts := func() map[string]int {
		n := map[string]int{}
		for _, e := range listener.seen()[before:] {
			n[e.EventType]++
		}
		return n
	}
	await(t, "tick tail to show the whole import", func() bool { return counts()["step.post_create"] >= traces*each })
	require.Equal(t, map[string]int{
		"workflow.pre_create": traces, "workflow.post_create": traces, "step.pre_create": traces * each, "step.post_create": traces * each,
		"employee.pre_create": 3, "employee.post_create": 3, "team.pre_create": 1, "team.post_create": 1,
	}, counts())
	next := map[any]int{}
	for _, e := range listener.seen()[before:] {
		if e.EventType == "step.post_create" {
			workflow := e.Payload["workflow_id"]
			require.NotNil(t, workflow)
			require.Equal(t, fmt.Sprintf("act %d", next[workflow]), e.Payload["record_name"])
			next[workflow]++
		}
	}
}

// writer creates tasks until ctx ends; a failed try is repeated under the same external id, so that
// each task exists once however often a service goes away.
type writer struct {
	mu      sync.Mutex
	created []int64
}

func (w *writer) run(ctx context.Context, b *bench, name string) {
	for i := 0; ctx.Err() == nil; i++ {
		body := map[string]any{"name": name, "attributes": map[string]any{"external_id": fmt.Sprintf("%s-%d", name, i)}}
		for ctx.Err() == nil {
			if id, ok := try(ctx, b, body); ok {
				w.mu.Lock()
				w.created = append(w.created, id)
				w.mu.Unlock()
				break
			}
			select {
			case <-ctx.Done():
			case <-time.After(20 * time.Millisecond):
			}
		}
	}
}

// try makes a task, or finds that an earlier try whose answer was lost has made it.
func try(ctx context.Context, b *bench, body map[string]any) (int64, bool) {
	var made struct {
		ID int64 `json:"id"`
	}
	status, text, err := b.ask(ctx, http.MethodPost, "/api/records/task", b.Token, body, &made)
	switch {
	case err != nil:
		return 0, false
	case status == http.StatusConflict:
		var problem struct {
			Metadata struct {
				ID int64 `json:"id,string"`
			} `json:"metadata"`
		}
		return problem.Metadata.ID, json.Unmarshal([]byte(text), &problem) == nil && problem.Metadata.ID != 0
	default:
		return made.ID, status == http.StatusOK
	}
}

func (w *writer) count() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.created)
}

// testTerminate ends each service with SIGTERM while tasks are written: it exits 0 within its grace, and
// whoever listens sees every task once.
func testTerminate(t *testing.T, b *bench, listener *tail) {
	ctx, cancel := context.WithCancel(t.Context())
	var writers sync.WaitGroup
	w := &writer{}
	for i := range 4 {
		writers.Go(func() { w.run(ctx, b, fmt.Sprint("load ", i)) })
	}
	defer func() { cancel(); writers.Wait() }()
	for _, name := range []string{"api-gateway", "outbox-relay", "sse-gateway", "webhook-worker", "prompt-worker"} {
		before := w.count()
		await(t, "some load", func() bool { return w.count() > before+50 })
		began := time.Now()
		require.NoError(t, b.StopService(name, syscall.SIGTERM), "%s must exit 0", name)
		require.Less(t, time.Since(began), 16*time.Second, "%s within its grace", name)
		require.NoError(t, b.StartService(name))
		require.NoError(t, b.AwaitReady(t.Context(), name))
	}
	before := w.count()
	await(t, "load after the last", func() bool { return w.count() > before+50 })
	cancel()
	writers.Wait()
	require.Greater(t, w.count(), 200)
	await(t, "tick tail to show every task", func() bool { return faults(w.created, listener.seen()) == "" })
}

// testCounts compares everyone's count: Postgres, positions, Redis, the API and the listener.
func testCounts(t *testing.T, b *bench, listener *tail) {
	conn, err := pgx.Connect(t.Context(), b.DatabaseURL)
	require.NoError(t, err)
	defer func() { _ = conn.Close(context.WithoutCancel(t.Context())) }()
	var events, positions int
	require.NoError(t, conn.QueryRow(t.Context(), "SELECT count(*) FROM sametick.events").Scan(&events))

	options, err := rueidis.ParseURL(b.RedisURL)
	require.NoError(t, err)
	options.DisableCache = true
	redis, err := rueidis.NewClient(options)
	require.NoError(t, err)
	defer redis.Close()
	streamed := func() (n int) {
		for shard := range 16 {
			length, err := redis.Do(t.Context(), redis.B().Xlen().Key(fmt.Sprintf("sametick:{%d}:events", shard)).Build()).AsInt64()
			require.NoError(t, err)
			n += int(length)
		}
		return n
	}
	await(t, "the streams to have it all", func() bool { return streamed() == events })
	require.NoError(t, conn.QueryRow(t.Context(), "SELECT count(*) FROM sametick.positions").Scan(&positions))
	require.Equal(t, events, positions)
	var page list
	b.get(t, "/api/events?limit=1", b.Token, &page)
	require.Equal(t, events, page.Total)
	await(t, "tick tail to show it all", func() bool { return len(listener.seen()) >= events })
	require.Len(t, listener.seen(), events)
	require.Greater(t, events, 500)
}

// testUpAgain ends the whole suite and starts it on the same data; the listener comes back by itself.
func testUpAgain(t *testing.T, b *bench, listener *tail) {
	token := b.Token
	require.NoError(t, b.Down())
	b.start(t)
	require.Equal(t, token, b.Token)
	task := b.create(t, "after the night")
	await(t, "tick tail to be back", func() bool { return faults([]int64{task}, listener.seen()) == "" })
}
