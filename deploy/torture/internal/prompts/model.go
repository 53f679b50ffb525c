package prompts

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Mood is how the moody model answers.
type Mood int32

// The moods.
const (
	// Well: a text.
	Well Mood = iota
	// Failing: 503.
	Failing
	// Busy: 429 with Retry-After of one second.
	Busy
	// Resetting: the connection is closed without an answer.
	Resetting
	// Hanging: no answer until the caller gives up.
	Hanging
)

// Moods are the names of the moods.
func (m Mood) String() string { return [...]string{"well", "503", "429", "reset", "hangs"}[m] }

const (
	maxBody = 1 << 20
	// The models' names are the first part of their paths.
	steadyPath = "/steady/v1"
	moodyPath  = "/moody/v1"
)

// Models are a server that speaks chat completions (platform.openai.com/docs/api-reference/chat) for two models: one that
// is always well, and one that gets into moods. Each call is in the record before it is answered.
type Models struct {
	record *Record
	server *http.Server
	base   string
	served sync.WaitGroup
	mood   atomic.Int32
	// thinking is how long an answer takes, in nanoseconds.
	thinking time.Duration
}

// Listen starts the models on a free port of loopback; they write to record, and answer after thinking so long.
func Listen(ctx context.Context, record *Record, thinking time.Duration) (*Models, error) {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("listen for calls of models: %w", err)
	}
	m := &Models{record: record, base: "http://" + listener.Addr().String(), thinking: thinking}
	m.server = &http.Server{Handler: m, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second}
	m.served.Go(func() { _ = m.server.Serve(listener) }) // ends when Close closes it
	return m, nil
}

// Close ends the server with its connections, and waits.
func (m *Models) Close() error {
	err := m.server.Close()
	m.served.Wait()
	return err
}

// URL is the base URL of a hook's model.
func (m *Models) URL(moody bool) string {
	if moody {
		return m.base + moodyPath
	}
	return m.base + steadyPath
}

// Put puts the moody model into a mood.
func (m *Models) Put(mood Mood) { m.mood.Store(int32(mood)) }

// subject is the event's id, as data inside its fence.
var subject = regexp.MustCompile(`event <data-[a-z0-9]+>(\d+)</data-`)

// request is what is read of a call.
type request struct {
	Model    string `json:"model"`
	Messages []struct {
		Role    string `json:"role"`
		Content string `json:"content"`
	} `json:"messages"`
}

// call tells whose call it is.
func (r *request) call() (c Call, ok bool) {
	number, ok := numberOf(r.Model)
	for _, m := range r.Messages {
		found := subject.FindStringSubmatch(m.Content)
		if m.Role != "user" || found == nil {
			continue
		}
		id, err := strconv.ParseInt(found[1], 10, 64)
		return Call{Hook: number, EventID: id}, ok && err == nil
	}
	return c, false
}

// ServeHTTP takes one call: recorded, answered.
func (m *Models) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	var r request
	body, err := io.ReadAll(io.LimitReader(req.Body, maxBody))
	if err != nil {
		return // cut off: nobody waits for an answer
	}
	_ = json.Unmarshal(body, &r) // what is none is of no hook
	c, ok := r.call()
	mood := Well
	if strings.HasPrefix(req.URL.Path, moodyPath+"/") {
		mood = Mood(m.mood.Load())
	}
	switch {
	case !ok:
		c.Answer = Foreign
	case mood == Well:
		c.Answer = Answered
	case mood == Failing, mood == Busy:
		c.Answer = Refused
	default:
		c.Answer = Silent
	}
	if m.record.Append(c) != nil { // what is not in the record must not count as answered
		w.WriteHeader(http.StatusInternalServerError)
		return
	}
	if !ok {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	m.answer(w, req, mood, c)
}

func (m *Models) answer(w http.ResponseWriter, req *http.Request, mood Mood, c Call) {
	switch mood {
	case Failing:
		fail(w, http.StatusServiceUnavailable)
	case Busy:
		w.Header().Set("Retry-After", "1")
		fail(w, http.StatusTooManyRequests)
	case Resetting:
		panic(http.ErrAbortHandler)
	case Hanging:
		<-req.Context().Done()
	default:
		timer := time.NewTimer(m.thinking)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-req.Context().Done():
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = fmt.Fprintf(w, `{"id":"c","object":"chat.completion","created":1,"model":"m","choices":[{"index":0,"finish_reason":"stop",`+
			`"message":{"role":"assistant","content":%q}}],"usage":{"prompt_tokens":10,"completion_tokens":5,"total_tokens":15}}`, Text(c.EventID)) // a caller that has gone is no fault
	}
}

func fail(w http.ResponseWriter, status int) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = io.WriteString(w, `{"error":{"message":"not now","type":"server_error","code":null}}`)
}

// Text is what a well model says of an event.
func Text(eventID int64) string { return fmt.Sprintf("Event %d is fine.", eventID) }
