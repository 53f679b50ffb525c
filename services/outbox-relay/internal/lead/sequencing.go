package lead

import (
	"context"
	"time"

	"github.com/sametick/sametick/pkg/errs"
	"github.com/sametick/sametick/services/outbox-relay/internal/sequence"
)

// Session is one session of Postgres that polls and claims; see internal/sequence for why one.
type Session interface {
	Load() (sequence.Cursor, []sequence.Bound, error)
	Poll(q sequence.Query) (sequence.Answer, error)
	Claim(b *sequence.Batch) (uint64, error)
	Close()
}

// Publisher takes what is claimed.
type Publisher interface {
	Offer(ctx context.Context, b *sequence.Batch)
	Resync() <-chan struct{}
	Ahead() <-chan sequence.Positions
	Run(ctx context.Context)
	Finish()
}

const (
	// The pause between polls is pollMin right after a batch, doubles to pollMax, and is pollRest when
	// nothing has come for restAfter polls (about five seconds). A poll from rest costs 0.9 ms of processor
	// time, however little it asks: Go's sysmon and the futexes that hand threads over (strace), not the
	// query. Every 50 ms that was 1.8 % of a core. Wake ends any pause.
	pollMin   = time.Millisecond
	pollMax   = 20 * time.Millisecond
	pollRest  = 100 * time.Millisecond
	restAfter = 255
	// comparePatience is how long sequencing waits for the streams to be compared at its start. Nothing
	// is wrong in going on without, unless Postgres may have lost commits.
	comparePatience = 2 * time.Second
)

// sequencing is the loop that polls and claims, of one term.
type sequencing struct {
	*Lead
	publisher Publisher
}

// run works until take ends. Its claims belong to work, so that a drain does not cut one off.
func (s *sequencing) run(take, work context.Context) {
	for failures := 0; take.Err() == nil; {
		claimed, err := s.session(take, work)
		if take.Err() != nil {
			return
		}
		if claimed {
			failures = 0
		}
		failures++
		s.note(err)
		s.Stats.Restarts.Add(1)
		s.Logger.WarnContext(take, "sequencing stopped, will start again from the ledger", "error", err, "failures", failures)
		s.pause(take, retry.Next(failures))
	}
}

// session sequences in one session until an error.
func (s *sequencing) session(take, work context.Context) (claimed bool, err error) {
	session, err := s.Open(work)
	if err != nil {
		return false, err
	}
	defer session.Close()
	for {
		cursor, bounds, err := session.Load()
		if err != nil {
			return claimed, err
		}
		s.note(nil)
		s.Stats.stands(cursor)
		compared := s.publisher.Resync()
		seq := sequence.New(cursor, bounds, s.BatchEvents)
		if err := s.compare(take, work, session, seq, compared); err == nil {
			err = s.loop(take, work, session, seq, &claimed)
			if !errs.HasReason(err, s.ClaimLost) {
				return claimed, err
			}
		} else if !errs.HasReason(err, s.ClaimLost) {
			return claimed, err
		}
		s.Stats.ClaimsLost.Add(1)
	}
}

// compare waits until the streams are compared with the ledger, so that no position is given that
// a stream already holds with another event. Only a failover may lose commits, so only a new timeline is
// worth waiting for Redis as long as it takes.
func (s *sequencing) compare(take, work context.Context, session Session, seq *sequence.Sequencer, compared <-chan struct{}) error {
	c := seq.Cursor()
	changed := c.Batch > 0 && c.Claimed != c.Identity
	t := time.NewTimer(comparePatience)
	defer t.Stop()
	patience := t.C
	if changed {
		patience = nil
		s.Logger.WarnContext(take, "Postgres has failed over: waiting for the streams before going on",
			"timeline", c.Identity.Timeline, "was", c.Claimed.Timeline)
	}
	for {
		select {
		case <-take.Done():
			return take.Err()
		case <-compared:
			return nil
		case <-patience:
			return nil
		case past := <-s.publisher.Ahead():
			if err := s.jump(work, session, seq, past); err != nil {
				return err
			}
		}
	}
}

// loop polls and claims.
func (s *sequencing) loop(take, work context.Context, session Session, seq *sequence.Sequencer, claimed *bool) error {
	idle := newIdler()
	defer idle.stop()
	for take.Err() == nil {
		began := time.Now()
		answer, err := session.Poll(seq.Next())
		if err != nil {
			return err
		}
		s.Stats.Poll(time.Since(began))
		batch, again := seq.Take(answer)
		if batch != nil {
			if err := s.claim(session, seq, batch); err != nil {
				return err
			}
			*claimed = true
			s.publisher.Offer(take, batch)
			idle.busy()
		}
		if again {
			continue
		}
		select {
		case past := <-s.publisher.Ahead():
			if err := s.jump(work, session, seq, past); err != nil {
				return err
			}
		case <-take.Done():
		case <-s.wake:
			idle.busy()
		case <-idle.next():
		}
	}
	return take.Err()
}

func (s *sequencing) claim(session Session, seq *sequence.Sequencer, b *sequence.Batch) error {
	xid, err := session.Claim(b)
	if err != nil {
		return err
	}
	seq.Claimed(b, xid)
	s.Stats.claimed(b)
	return nil
}

// jump raises the positions past those of streams that are ahead.
func (s *sequencing) jump(ctx context.Context, session Session, seq *sequence.Sequencer, past sequence.Positions) error {
	s.Stats.Jumps.Add(1)
	s.Logger.ErrorContext(ctx, "the streams hold events that Postgres has lost: their positions are left to them",
		"ledger", seq.Cursor().Positions, "streams", past)
	return s.claim(session, seq, seq.Jump(past))
}

// idler paces the polls.
type idler struct {
	polls int // since the last batch or wake
	timer *time.Timer
}

func newIdler() *idler { return &idler{timer: time.NewTimer(pollMax)} }

func (i *idler) busy() { i.polls = 0 }

func (i *idler) next() <-chan time.Time {
	wait := pollRest
	if i.polls < restAfter {
		wait = min(pollMin<<min(i.polls, 10), pollMax)
	}
	i.polls++
	i.timer.Reset(wait)
	return i.timer.C
}

func (i *idler) stop() { i.timer.Stop() }
