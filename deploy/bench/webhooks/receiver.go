package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sametick/sametick/deploy/bench/internal/latency"
)

// The receiver's paths. A hanging one answers nobody.
const (
	pathWell    = "/well/"
	pathHanging = "/hanging/"
)

// receiver takes what every contender posts, and counts what it answers with 200.
type receiver struct {
	url, refused string
	server       *http.Server
	served       sync.WaitGroup
	taken        atomic.Int64
	clock        atomic.Pointer[latency.Clock]
}

// listen starts it on loopback, and finds an address at which nobody listens.
func listen(ctx context.Context) (*receiver, error) {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("listen for webhooks: %w", err)
	}
	// Port 1025 is below those that the kernel hands out, and nobody listens there by default.
	r := &receiver{url: "http://" + listener.Addr().String(), refused: "http://127.0.0.1:1025/"}
	r.server = &http.Server{Handler: r, ReadHeaderTimeout: 30 * time.Second}
	r.served.Go(func() { _ = r.server.Serve(listener) }) // ends when close closes it
	return r, nil
}

func (r *receiver) close() error {
	err := r.server.Close()
	r.served.Wait()
	return err
}

// ServeHTTP reads the body and answers 200.
func (r *receiver) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	at := time.Now()
	if _, err := io.Copy(io.Discard, req.Body); err != nil {
		return
	}
	if strings.HasPrefix(req.URL.Path, pathHanging) {
		<-req.Context().Done()
		return
	}
	if clock := r.clock.Load(); clock != nil {
		first, _, _ := strings.Cut(strings.TrimPrefix(req.Header.Get("webhook-id"), "msg_"), "_")
		if id, err := strconv.ParseInt(first, 10, 64); err == nil {
			clock.Arrived(id, at)
		}
	}
	r.taken.Add(1)
}
