package review

import (
	"context"
	"crypto/sha256"
	"fmt"
	"sync"
	"time"

	"github.com/sametick/sametick/services/prompt-worker/internal/prompting"
)

// How long a model's verdict answers the same question. An approval is short-lived: the longer it stands, the longer a
// write goes through that the model would refuse by now. Failures and suspicions are never kept.
const (
	keepApproval = 30 * time.Second
	keepReject   = 5 * time.Minute
	maxKept      = 10_000
)

// answer is a model's sound verdict and what it came with.
type answer struct {
	verdict  prompting.Verdict
	response prompting.Response
}

type key [sha256.Size]byte

// keyOf names a question: all that could change its answer.
func keyOf(a Ask) key {
	_, schema := prompting.VerdictSchema()
	return sha256.Sum256(fmt.Appendf(nil, "%d %d %d %d %d %q %q %q %s",
		a.OrgID, a.Hook.ID, a.Hook.Revision, a.Version, a.Hook.ProviderID, a.Hook.Model, a.Hook.Parameters, schema, a.Prompt.Digest()))
}

// flight is one question on its way to a model, for as long as anybody waits for it.
type flight struct {
	done    chan struct{}
	cancel  context.CancelFunc
	waiting int
	answer  answer
	err     error
}

type kept struct {
	answer
	until time.Time
}

// answers asks each question once at a time, whoever asks it, and remembers what came back. A caller leaves when its
// own time is over, whatever the model does. Safe for concurrent use.
type answers struct {
	mu      sync.Mutex
	flights map[key]*flight
	kept    map[key]kept
	closed  bool
	running sync.WaitGroup
}

func newAnswers() *answers {
	return &answers{flights: map[key]*flight{}, kept: map[key]kept{}}
}

// get answers a question from memory, from a flight or by ask. Its error is ask's, or ctx's cause.
func (s *answers) get(ctx context.Context, k key, ask func(context.Context) (answer, error)) (a answer, remembered bool, err error) {
	s.mu.Lock()
	if known, ok := s.kept[k]; ok && time.Now().Before(known.until) {
		s.mu.Unlock()
		return known.answer, true, nil
	}
	f, ok := s.flights[k]
	if !ok {
		if f = s.start(ctx, k, ask); f == nil {
			s.mu.Unlock()
			return a, false, errClosed
		}
	}
	f.waiting++
	s.mu.Unlock()
	select {
	case <-f.done:
		return f.answer, ok, f.err
	case <-ctx.Done():
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if f.waiting--; f.waiting == 0 {
		f.cancel()
		s.forget(k, f)
	}
	return a, false, context.Cause(ctx)
}

// forget lets the next one ask anew. The flight may have ended, and another of its name begun.
func (s *answers) forget(k key, f *flight) {
	if s.flights[k] == f {
		delete(s.flights, k)
	}
}

var errClosed = &prompting.ModelError{Cause: prompting.CauseUnavailable, Text: "the service is stopping"}

// start begins a flight that outlives its first caller. Called with the lock.
func (s *answers) start(ctx context.Context, k key, ask func(context.Context) (answer, error)) *flight {
	if s.closed {
		return nil
	}
	own, cancel := context.WithCancel(context.WithoutCancel(ctx))
	f := &flight{done: make(chan struct{}), cancel: cancel}
	s.flights[k] = f
	s.running.Go(func() {
		defer cancel()
		f.answer, f.err = guarded(func() (answer, error) { return ask(own) })
		defer close(f.done) // after it is kept: who asks next must find it
		s.mu.Lock()
		defer s.mu.Unlock()
		s.forget(k, f)
		if f.err == nil {
			s.keep(k, f.answer)
		}
	})
	return f
}

// keep remembers an answer. When there are too many it begins again empty. Called with the lock.
func (s *answers) keep(k key, a answer) {
	life := keepReject
	switch {
	case a.verdict.InjectionSuspected:
		return
	case a.verdict.Verdict == prompting.Approve:
		life = keepApproval
	}
	if len(s.kept) >= maxKept {
		clear(s.kept)
	}
	s.kept[k] = kept{a, time.Now().Add(life)}
}

// close ends all flights and waits for them.
func (s *answers) close() {
	s.mu.Lock()
	s.closed = true
	for _, f := range s.flights {
		f.cancel()
	}
	s.mu.Unlock()
	s.running.Wait()
}

// guarded makes a panic that one's own failure: a hook's fault is no other hook's.
func guarded[T any](f func() (T, error)) (out T, err error) {
	defer func() {
		if r := recover(); r != nil {
			var none T
			out, err = none, &prompting.ModelError{Cause: prompting.CauseInvalid, Text: fmt.Sprintf("panic: %v", r)}
		}
	}()
	return f()
}
