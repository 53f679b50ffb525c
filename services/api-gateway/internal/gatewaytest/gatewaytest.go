// Package gatewaytest starts the whole of api-gateway for tests that know it from outside alone: by its
// environment, its REST and gRPC addresses and its database. What is inside is tested in package app.
package gatewaytest

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"github.com/sametick/sametick/pkg/auth"
	"github.com/sametick/sametick/pkg/pgtest"
	"github.com/sametick/sametick/pkg/rpc"
	"github.com/sametick/sametick/services/api-gateway/internal/app"
	"github.com/sametick/sametick/services/api-gateway/internal/identity"
	"github.com/sametick/sametick/services/api-gateway/internal/store"
)

// Password is that of every organisation's first user.
const Password = "correct horse battery staple"

// Org is an organisation with its first user and an API key with every scope.
type Org struct {
	identity.Founded
	Email string
}

// Gateway is a running api-gateway with a database of its own and two organisations.
type Gateway struct {
	// URL is where REST is, Conn leads to gRPC.
	URL  string
	Conn *grpc.ClientConn
	// DB is its database; Admin is connected to it as the superuser.
	DB    *pgtest.DB
	Admin *pgxpool.Pool
	A, B  Org
	// Log is what the service has logged.
	Log *Buffer
}

// Buffer is a buffer for several writers.
type Buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

// Write implements io.Writer.
func (l *Buffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

// String is all that has been written.
func (l *Buffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// Database gives a migrated database.
func Database(t testing.TB) *pgtest.DB {
	t.Helper()
	sum, err := store.Schema().Fingerprint()
	if err != nil {
		t.Fatalf("gatewaytest: %v", err)
	}
	return pgtest.Migrated(t, "api-gateway "+pgtest.Fingerprint(sum...), func(ctx context.Context, url string) error {
		return store.Schema().Migrate(ctx, url, slog.New(slog.DiscardHandler))
	})
}

// Start runs the service until the test ends. change, if any, may change its environment.
func Start(t testing.TB, change func(env map[string]string)) *Gateway {
	t.Helper()
	g := &Gateway{DB: Database(t), Log: &Buffer{}}
	g.Admin = g.DB.Pool(t)
	env, addrs := environment(t, g.DB)
	if change != nil {
		change(env)
	}
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	ended, code := make(chan struct{}), 0
	go func() {
		defer close(ended)
		code = app.Run(ctx, app.Process{Getenv: func(k string) string { return env[k] }, In: strings.NewReader(""), Out: g.Log, Err: g.Log})
	}()
	t.Cleanup(func() {
		stop()
		if <-ended; code != 0 {
			t.Errorf("gatewaytest: api-gateway ended with %d:\n%s", code, g.Log)
		}
	})
	if !ready(t.Context(), "http://"+addrs["OPS_ADDR"]+"/readyz", ended) {
		t.Fatalf("gatewaytest: api-gateway does not become ready:\n%s", g.Log)
	}
	var err error
	if g.Conn, err = rpc.Dial(addrs["GRPC_ADDR"], rpc.ClientOptions{}); err != nil {
		t.Fatalf("gatewaytest: %v", err)
	}
	t.Cleanup(func() { _ = g.Conn.Close() })
	g.URL = "http://" + addrs["HTTP_ADDR"]
	g.A = g.Found(t, "Acme", "ann@acme.example")
	g.B = g.Found(t, "Bolt", "bob@bolt.example")
	return g
}

// environment is what the service needs; the addresses are free ones.
func environment(t testing.TB, db *pgtest.DB) (env, addrs map[string]string) {
	t.Helper()
	addrs = map[string]string{}
	for _, name := range []string{"HTTP_ADDR", "GRPC_ADDR", "OPS_ADDR"} {
		l, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // no name to resolve
		if err != nil {
			t.Fatalf("gatewaytest: no free port: %v", err)
		}
		defer func() { _ = l.Close() }() // all at the end, so that none is given twice
		addrs[name] = l.Addr().String()
	}
	signing, public, err := auth.GenerateKey("test")
	if err != nil {
		t.Fatalf("gatewaytest: %v", err)
	}
	env = map[string]string{"DATABASE_URL": db.URLAs(t, "sametick_api"), "INTERNAL_TOKEN": "0123456789abcdef",
		"TOKEN_SIGNING_KEY": signing, "TOKEN_PUBLIC_KEYS": public, "RELAY_ADDR": "127.0.0.1:1", "WEBHOOK_ADDR": "127.0.0.1:1",
		"SSE_URL": "http://127.0.0.1:1", "RATE_LIMIT_ORG": "0", "RATE_LIMIT_CALLER": "0"}
	maps.Copy(env, addrs)
	return env, addrs
}

// ready waits until the service is, and tells whether it is.
func ready(ctx context.Context, url string, ended <-chan struct{}) bool {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	late := time.NewTimer(time.Minute)
	defer late.Stop()
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	for {
		select {
		case <-ctx.Done():
			return false
		case <-late.C:
			return false
		case <-ended:
			return false
		case <-tick.C:
		}
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return false
		}
		if res, err := client.Do(req); err == nil {
			_ = res.Body.Close()
			if res.StatusCode == http.StatusOK {
				return true
			}
		}
	}
}

// Found makes another organisation.
func (g *Gateway) Found(t testing.TB, org, email string) Org {
	t.Helper()
	env := map[string]string{"DATABASE_URL": g.DB.URL, "PASSWORD": Password}
	var out, errs bytes.Buffer
	code := app.Run(t.Context(), app.Process{Args: []string{"bootstrap", "--org", org, "--email", email, "--password-env", "PASSWORD"},
		Getenv: func(k string) string { return env[k] }, In: strings.NewReader(""), Out: &out, Err: &errs})
	o := Org{Email: email}
	if err := json.Unmarshal(out.Bytes(), &o.Founded); code != 0 || err != nil {
		t.Fatalf("gatewaytest: bootstrap ended with %d, %v: %s", code, err, errs.String())
	}
	return o
}

// As puts a bearer token beside a gRPC call.
func As(ctx context.Context, token string) context.Context {
	return metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+token)
}

// Answer is what REST said.
type Answer struct {
	Status int
	Header http.Header
	Body   string
	// Trailer is what came after the body.
	Trailer http.Header
}

// Do sends a request and reads the whole answer.
func Do(req *http.Request) (Answer, error) {
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	res, err := client.Do(req)
	if err != nil {
		return Answer{}, err
	}
	defer func() { _ = res.Body.Close() }()
	text, err := io.ReadAll(res.Body)
	return Answer{res.StatusCode, res.Header, string(text), res.Trailer}, err
}
