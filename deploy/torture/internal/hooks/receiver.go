package hooks

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"github.com/sametick/sametick/deploy/torture/internal/envelope"
)

// Mood is how a receiver answers.
type Mood int32

// The moods.
const (
	// Well: 204.
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
func (m Mood) String() string {
	return [...]string{"well", "503", "429", "reset", "hangs"}[m]
}

// maxBody bounds what is read of a request.
const maxBody = 1 << 20

// The receivers' names are the first part of their paths.
const (
	steadyPath  = "/steady"
	failingPath = "/failing"
	hangingPath = "/hanging"
)

// Receivers are a server with three receivers: one that is always well, and two that get into moods. Each request is in
// the record before it is answered.
type Receivers struct {
	record *Record
	server *http.Server
	base   string
	served sync.WaitGroup

	failing, hanging atomic.Int32

	mu        sync.RWMutex
	endpoints map[int64]*known
}

// known is an endpoint with what verifies its requests.
type known struct {
	*Endpoint
	verifier *standardwebhooks.Webhook
}

// Listen starts the receivers on a free port of loopback; they write to record.
func Listen(ctx context.Context, record *Record) (*Receivers, error) {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("listen for webhooks: %w", err)
	}
	r := &Receivers{record: record, base: "http://" + listener.Addr().String(), endpoints: map[int64]*known{}}
	r.server = &http.Server{Handler: r, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second}
	r.served.Go(func() { _ = r.server.Serve(listener) }) // ends when Close closes it
	return r, nil
}

// Close ends the server with its connections, and waits.
func (r *Receivers) Close() error {
	err := r.server.Close()
	r.served.Wait()
	return err
}

// Locate gives an endpoint its address; what is sent to it is taken once it is known by Add. number is the run's own.
func (r *Receivers) Locate(e *Endpoint, number int) {
	e.URL = r.base + e.URL + "/" + strconv.Itoa(number)
}

// Add lets the requests of an endpoint be verified.
func (r *Receivers) Add(e *Endpoint) error {
	verifier, err := standardwebhooks.NewWebhook(e.Secret)
	if err != nil {
		return fmt.Errorf("secret of %s: %w", e.Name(), err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.endpoints[e.ID] = &known{e, verifier}
	return nil
}

// Fail puts the failing receiver into a mood, Hang the hanging one.
func (r *Receivers) Fail(m Mood) { r.failing.Store(int32(m)) }

// Hang puts the hanging receiver into a mood.
func (r *Receivers) Hang(m Mood) { r.hanging.Store(int32(m)) }

// mood of the receiver at a path.
func (r *Receivers) mood(path string) Mood {
	switch {
	case strings.HasPrefix(path, failingPath+"/"):
		return Mood(r.failing.Load())
	case strings.HasPrefix(path, hangingPath+"/"):
		return Mood(r.hanging.Load())
	default:
		return Well
	}
}

// ServeHTTP takes one request: verified, recorded, answered.
func (r *Receivers) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	body, err := io.ReadAll(io.LimitReader(req.Body, maxBody))
	if err != nil {
		return // cut off: nobody waits for an answer
	}
	receipt, reason := r.read(req, body)
	mood := r.mood(req.URL.Path)
	switch {
	case reason != "":
		receipt.Answer = Forged
	case mood == Well:
		receipt.Answer = Accepted
	default:
		receipt.Answer = Refused
	}
	if r.record.Append(receipt, reason) != nil { // what is not in the record must not count as received
		w.WriteHeader(http.StatusInternalServerError)
		return
	}
	if receipt.Answer == Forged {
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	answer(w, req, mood)
}

func answer(w http.ResponseWriter, req *http.Request, mood Mood) {
	switch mood {
	case Failing:
		w.WriteHeader(http.StatusServiceUnavailable)
	case Busy:
		w.Header().Set("Retry-After", "1")
		w.WriteHeader(http.StatusTooManyRequests)
	case Resetting:
		panic(http.ErrAbortHandler)
	case Hanging:
		<-req.Context().Done()
	default:
		w.WriteHeader(http.StatusNoContent)
	}
}

// message is what a body must be.
type message struct {
	Type string          `json:"type"`
	Data json.RawMessage `json:"data"`
}

// about is what the data of a message says of itself.
type about struct {
	ID        int64  `json:"id"`
	EventType string `json:"event_type"`
}

// read verifies a request; reason tells what is wrong with it.
func (r *Receivers) read(req *http.Request, body []byte) (got Receipt, reason string) {
	var ok bool
	id := req.Header.Get("webhook-id")
	if got.EventID, got.EndpointID, ok = parseID(id); !ok {
		return got, "webhook-id " + id
	}
	r.mu.RLock()
	e := r.endpoints[got.EndpointID]
	r.mu.RUnlock()
	if e == nil || !strings.HasSuffix(e.URL, req.URL.Path) {
		return got, "sent to the address of another endpoint"
	}
	if err := e.verifier.Verify(body, req.Header); err != nil {
		return got, err.Error()
	}
	if err := got.take(body); err != nil {
		return got, err.Error()
	}
	return got, ""
}

// take reads a body.
func (got *Receipt) take(body []byte) error {
	var m message
	var a about
	if err := json.Unmarshal(body, &m); err != nil {
		return fmt.Errorf("body: %w", err)
	}
	if err := json.Unmarshal(m.Data, &a); err != nil {
		return fmt.Errorf("data: %w", err)
	}
	if a.ID != got.EventID || a.EventType != m.Type {
		return fmt.Errorf("webhook-id is of event %d, the body of event %d, %s as %s", got.EventID, a.ID, a.EventType, m.Type)
	}
	got.Hash = envelope.Hash(m.Data)
	return nil
}

// parseID reads msg_<event>_<endpoint>.
func parseID(id string) (event, endpoint int64, ok bool) {
	var rest string
	if rest, ok = strings.CutPrefix(id, "msg_"); !ok {
		return 0, 0, false
	}
	first, second, _ := strings.Cut(rest, "_")
	event, eventErr := strconv.ParseInt(first, 10, 64)
	endpoint, endpointErr := strconv.ParseInt(second, 10, 64)
	return event, endpoint, eventErr == nil && endpointErr == nil
}
