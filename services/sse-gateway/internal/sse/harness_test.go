package sse_test

import (
	"bufio"
	"bytes"
	"context"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/sametick/sametick/pkg/auth"
	"github.com/sametick/sametick/pkg/lifecycle"
	"github.com/sametick/sametick/pkg/redistest"
	"github.com/sametick/sametick/pkg/stream"
	"github.com/sametick/sametick/pkg/stream/streamtest"
	"github.com/sametick/sametick/services/sse-gateway/internal/feed"
	"github.com/sametick/sametick/services/sse-gateway/internal/hub"
	"github.com/sametick/sametick/services/sse-gateway/internal/resume"
	"github.com/sametick/sametick/services/sse-gateway/internal/sse"
)

// few is how many programs the property test runs unless -rapid.checks says otherwise: each takes real
// servers through crashes.
const few = "12"

func TestMain(m *testing.M) {
	limitChecks()
	goleak.VerifyTestMain(m)
}

const shard = 3

// gateway is the service over a real Redis and a log in memory, behind real sockets.
type gateway struct {
	t       *testing.T
	url     string
	signer  *auth.Signer
	log     *streamtest.Log
	redis   *streamtest.Publisher
	streams *resume.Streams
	logs    *lockedBuffer
	client  *http.Client
	org     int64
	other   int64
	drained sync.Once
}

// drain ends all streams, once.
func (g *gateway) drain(work context.Context) {
	g.drained.Do(func() {
		take, end := context.WithCancel(context.Background())
		end()
		_ = g.streams.Drain(take, work)
	})
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

type settings struct {
	hub          hub.Options
	heartbeat    time.Duration
	writeTimeout time.Duration
	origins      []string
}

func start(t *testing.T, change func(*settings)) *gateway {
	t.Helper()
	o := settings{hub: hub.Options{RingBytes: 1 << 20, MaxPerOrg: 5000, MaxPerToken: 5000}, heartbeat: 30 * time.Second, writeTimeout: 10 * time.Second}
	if change != nil {
		change(&o)
	}
	orgs := streamtest.Orgs(shard, 2)
	g := &gateway{t: t, log: streamtest.NewLog(), logs: &lockedBuffer{}, org: orgs[0], other: orgs[1]}
	server := redistest.New(t)
	g.redis = streamtest.NewPublisher(t, g.log, server.URL, server)
	source := stream.New(stream.Options{Log: g.log.Direct(), Redis: g.redis.Redis(t), Beat: 50 * time.Millisecond, PollEvery: 10 * time.Millisecond, Limit: 100})
	h := hub.New(o.hub)
	g.streams = &resume.Streams{Hub: h, Reader: feed.Reader{Source: source}, Heartbeat: o.heartbeat, DrainOver: 50 * time.Millisecond}
	signing, public, err := auth.GenerateKey("k1")
	require.NoError(t, err)
	g.signer, err = auth.ParseSigner(signing)
	require.NoError(t, err)
	verifier, err := auth.NewVerifier(public)
	require.NoError(t, err)
	logger := slog.New(slog.NewTextHandler(g.logs, &slog.HandlerOptions{Level: slog.LevelDebug}))
	srv := httptest.NewUnstartedServer(&sse.Handler{Streams: g.streams, Verifier: verifier, WriteTimeout: o.writeTimeout,
		Retry: 2 * time.Second, Origins: o.origins, Log: logger})
	srv.Config.Protocols = new(http.Protocols)
	srv.Config.Protocols.SetHTTP1(true)
	srv.Config.Protocols.SetUnencryptedHTTP2(true)
	srv.Config.ConnContext = lifecycle.LimitUnsent
	srv.Start()
	g.url = srv.URL + sse.Path
	transport := &http.Transport{MaxIdleConnsPerHost: -1, MaxConnsPerHost: 0}
	g.client = &http.Client{Transport: transport}
	take, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan error, 1)
	go func() {
		ended <- (&feed.Feed{Source: source, Hub: h, Linger: 20 * time.Millisecond, Log: logger}).Run(take, take)
	}()
	t.Cleanup(func() {
		g.drain(take)
		stop()
		require.NoError(t, <-ended)
		srv.Close()
		transport.CloseIdleConnections()
	})
	return g
}

func (g *gateway) token(scopes ...string) string {
	return g.tokenFor(g.org, time.Hour, scopes...)
}

func (g *gateway) tokenFor(org int64, ttl time.Duration, scopes ...string) string {
	if scopes == nil {
		scopes = []string{auth.EventsRead}
	}
	text, _, err := g.signer.Sign(auth.Principal{OrgID: org, Subject: auth.Subject(auth.SubjectUser, org), Scopes: auth.ScopesOf(scopes...)}, ttl)
	require.NoError(g.t, err)
	return text
}

// emit records n events for each of both organisations and publishes them.
func (g *gateway) emit(n int) {
	g.t.Helper()
	for i := range n {
		g.log.Append(g.org, "task", "post_create", int64(i+1), "mine")
		g.log.Append(g.other, "task", "post_create", int64(i+1), "not yours")
	}
	require.NoError(g.t, g.redis.Publish(context.WithoutCancel(g.t.Context())))
}

// message is a block of the stream.
type message struct {
	id, event, data, retry string
	comment                string
	raw                    string
}

// conn is an open stream.
type conn struct {
	res  *http.Response
	r    *bufio.Reader
	stop context.CancelFunc
}

func (c *conn) close() {
	c.stop()
	_ = c.res.Body.Close()
}

// open sends a request; header lines are "Name: value".
func (g *gateway) open(query string, header ...string) *conn {
	g.t.Helper()
	ctx, stop := context.WithCancel(context.WithoutCancel(g.t.Context()))
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, g.url+query, nil)
	require.NoError(g.t, err)
	for _, h := range header {
		name, value, _ := strings.Cut(h, ": ")
		req.Header.Set(name, value)
	}
	res, err := g.client.Do(req)
	require.NoError(g.t, err)
	return &conn{res: res, r: bufio.NewReader(res.Body), stop: stop}
}

func (g *gateway) bearer() string { return "Authorization: Bearer " + g.token() }

// next reads one block.
func (c *conn) next() (m message, err error) {
	guard := time.AfterFunc(20*time.Second, c.stop)
	defer guard.Stop()
	for {
		line, err := c.r.ReadString('\n')
		if err != nil {
			return m, err
		}
		m.raw += line
		name, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ": ")
		switch name {
		case "":
			if line == "\n" {
				return m, nil
			}
			m.comment = value
		case "id":
			m.id = value
		case "event":
			m.event = value
		case "data":
			m.data = value
		case "retry":
			m.retry = value
		default:
			return m, fmt.Errorf("not a line of an event stream: %q", line)
		}
	}
}

func (g *gateway) read(c *conn) message {
	g.t.Helper()
	m, err := c.next()
	require.NoError(g.t, err)
	return m
}

// events reads n events and gives their positions.
func (g *gateway) events(c *conn, n int) (out []int64) {
	g.t.Helper()
	for len(out) < n {
		if m := g.read(c); m.data != "" {
			out = append(out, number(g.t, m.id))
		}
	}
	return out
}

func number(t *testing.T, s string) int64 {
	t.Helper()
	v, err := strconv.ParseInt(s, 10, 64)
	require.NoError(t, err)
	return v
}

func (g *gateway) want(after int64) (out []int64) {
	for _, e := range g.log.Entries(shard, after, g.org) {
		out = append(out, e.Position)
	}
	return out
}

func body(t *testing.T, c *conn) string {
	t.Helper()
	b, err := io.ReadAll(c.r)
	require.NoError(t, err)
	return string(b)
}

func limitChecks() {
	flag.Parse()
	given := false
	flag.Visit(func(f *flag.Flag) { given = given || f.Name == "rapid.checks" })
	if !given {
		_ = flag.Set("rapid.checks", few) // rapid registers it
	}
}
