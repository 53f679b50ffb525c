package rest

import (
	"io"
	"net/http"
	"sync/atomic"
	"time"
)

// listener is a body that ends when nothing has come for a while. Its Reads are for one goroutine.
type listener struct {
	io.ReadCloser
	silence time.Duration
	timer   *time.Timer
	silent  atomic.Bool
}

func listen(body io.ReadCloser, silence time.Duration) *listener {
	l := &listener{ReadCloser: body, silence: silence}
	l.timer = time.AfterFunc(silence, func() {
		l.silent.Store(true)
		_ = body.Close() // ends the Read under way
	})
	return l
}

// Read gives io.EOF once it has been silent for too long.
func (l *listener) Read(p []byte) (int, error) {
	n, err := l.ReadCloser.Read(p)
	switch {
	case err == nil:
		l.timer.Reset(l.silence)
	case l.silent.Load():
		err = io.EOF
	}
	return n, err
}

// Close closes the body.
func (l *listener) Close() error {
	l.timer.Stop()
	return l.ReadCloser.Close()
}

// punctual is a response of which each piece must be taken in time.
type punctual struct {
	http.ResponseWriter
	rc      *http.ResponseController
	timeout time.Duration
}

// Write fails with os.ErrDeadlineExceeded when the client takes nothing in time.
func (p *punctual) Write(b []byte) (int, error) {
	if err := p.rc.SetWriteDeadline(time.Now().Add(p.timeout)); err != nil {
		return 0, err
	}
	return p.ResponseWriter.Write(b)
}

// FlushError is what http.ResponseController calls. HTTP/2 resets a stream whose deadline passes, also while nothing
// is written: hence the last call.
func (p *punctual) FlushError() error {
	if err := p.rc.SetWriteDeadline(time.Now().Add(p.timeout)); err != nil {
		return err
	}
	if err := p.rc.Flush(); err != nil {
		return err
	}
	return p.rc.SetWriteDeadline(time.Time{})
}

// Unwrap is for http.ResponseController.
func (p *punctual) Unwrap() http.ResponseWriter { return p.ResponseWriter }
