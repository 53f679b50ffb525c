package delivery

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"
)

// Sender makes one attempt and tells what it met; it keeps a deadline of its own. Safe for concurrent use.
type Sender interface {
	Send(ctx context.Context, e *Endpoint, d *Delivery) Result
}

// Queue reads what waits in the table. Safe for concurrent use.
type Queue interface {
	// Waiting gives the endpoints of a shard that something waits for.
	Waiting(ctx context.Context, shard int) ([]Waiting, error)
	// Load gives a window, with its events.
	Load(ctx context.Context, w Want) (Window, error)
}

// History keeps what came of attempts. Safe for concurrent use.
type History interface {
	// Save keeps outcomes and changes of endpoints, takes final deliveries from the table and puts off the others. After
	// an error the same batch is saved again, also when it may have been saved. It gives the ids that could not be put off, because the table has them differently or not
	// any more.
	Save(ctx context.Context, b *Batch) (refused []int64, err error)
	// Cancel ends what waits for an endpoint if it is closed, up to a limit, and gives how many deliveries these were.
	Cancel(ctx context.Context, w Want) (int, error)
}

// Waiting is an endpoint that something waits for, due at the earliest at Due.
type Waiting struct {
	OrgID, EndpointID int64
	Due               time.Time
}

// Want asks for what waits for an endpoint.
type Want struct {
	Shard             int
	OrgID, EndpointID int64
	// Conf: the endpoint is wanted too.
	Conf bool
	// Ordered asks by id for whatever waits; else by due time for what is due by Until.
	Ordered bool
	Until   time.Time
	// From leaves out what was due before as long as that leaves more than Limit: rows that were taken off lie there, which
	// cost as much as others until they are vacuumed. Zero for nothing.
	From time.Time
	// IDs are those wanted of an ordered endpoint, if it is known which come next: to find that out takes looking at all.
	IDs   []int64
	Limit int
	// Except are ids that are in memory already.
	Except []int64
}

// Window is what waits for an endpoint, the first of it.
type Window struct {
	// Endpoint is as it is now; nil unless wanted.
	Endpoint *Endpoint
	// Deliveries have their events, but for those that retention has dropped.
	Deliveries []*Delivery
	// Next is when what else waits is due at the earliest; zero when nothing does.
	Next time.Time
	// Ahead are ids that come after Deliveries, in order, if the endpoint is ordered: some or all of them.
	Ahead []int64
}

// Batch is what is saved at once.
type Batch struct {
	Outcomes []Outcome
	Changes  []Change
	// Again: it may have been saved, but the answer was lost.
	Again bool
}

// Arrival is what one batch of a shard's events led to, once it is committed.
type Arrival struct {
	Shard int
	// Deliveries are new, in the order of ids, with their events.
	Deliveries []*Delivery
	// Endpoints are those of the deliveries.
	Endpoints []*Endpoint
	// Changed are endpoints of which the batch had an event: they, or what waits for them, are not as they were.
	Changed []*Endpoint
}

// Config of an Engine.
type Config struct {
	Sender  Sender
	Queue   Queue
	History History
	// Deadline is the longest that an attempt takes: none begins unless its shard is held for longer.
	Deadline time.Duration
	// PerEndpoint, PerOrg and InAll bound the attempts under way.
	PerEndpoint, PerOrg, InAll int
	// MaxBytes bounds the events in memory; what is loaded when it is reached comes on top, maxLoads times loadSize.
	MaxBytes int64
	// Observe, if set, is told of each outcome, by the engine's goroutine.
	Observe func(*Outcome)
	Log     *slog.Logger
	Stats   *Stats
}

// Stats are gauges of this replica.
type Stats struct {
	// Flying are attempts under way, Unsaved those that have ended and are not persisted; Waiting and Bytes what memory
	// holds; Endpoints those known, Broken those whose breaker is open; Shards those held.
	Flying, Unsaved, Waiting, Bytes, Endpoints, Broken, Shards atomic.Int64
}

const (
	// window is how many deliveries of an endpoint memory holds, modest how many it may when memory is half full: greed
	// must leave room for the others. So many are loaded at a time, when so few are left; an ordered endpoint's are
	// sorted to be found, so more.
	window        = 1024
	modest        = 16
	loadAt        = 64
	loadSize      = 256
	orderedWindow = 512
	// keep: what is due later than so is left to the table.
	keep = 10 * time.Second
	// saveAfter and saveAt: outcomes are persisted so long after the first, or when there are so many.
	saveAfter = 20 * time.Millisecond
	saveAt    = 500
	// maxUnsaved and maxUnsavedBytes: when so much waits to be persisted nothing more is sent.
	maxUnsaved      = 5000
	maxUnsavedBytes = 32 << 20
	// saveTimeout is how long persisting a batch may take, lastSave once work has ended.
	saveTimeout = 15 * time.Second
	lastSave    = 2 * time.Second
	// maxLoads is how many windows are loaded at a time, cancelAt how many deliveries a transaction cancels.
	maxLoads = 4
	cancelAt = 1000
	// A window goes on where the last one ended, but settled before: what is queued meanwhile may have been due since then.
	// Every so many windows goes by the whole table, so that nothing waits as long as the backlog lasts.
	settled    = 5 * time.Second
	wholeEvery = 32
	// maxIdle is how many goroutines wait for work.
	maxIdle = 256
	// maxHold bounds how long Retry-After keeps an endpoint's other deliveries back.
	maxHold = 5 * time.Minute
	// idleAfter is when an endpoint that nothing happens at is forgotten.
	idleAfter = 10 * time.Minute
	// breathe is when what memory has no room for is tried again.
	breathe = 50 * time.Millisecond
)

// Engine sends what waits for the endpoints of the shards that this replica holds. All its state belongs to the
// goroutine of Run; whatever else wants something of it leaves a function in its inbox.
type Engine struct {
	c     Config
	inbox chan func()
	ended chan struct{}

	take, work context.Context
	shards     map[int]*shard
	lost       []*shard // with attempts that are still open
	releases   []release
	orgs       map[int64]*org
	line       []*org // organisations with ready endpoints and room, in turn
	// parked are endpoints whose turn came when too many attempts of their kind were under way, trusted counts these.
	parked   [proven + 1][]*endpoint
	trusted  [proven + 1]int
	alarms   alarms
	loadLine []*endpoint
	loads    int

	flying, running int
	// hands wait for work at idle, up to a number; hired waits for their ends.
	idle  chan func()
	hired sync.WaitGroup
	hands atomic.Int64
	bytes int64

	unsaved      int // pending and being saved
	unsavedBytes int
	pending      []*flight
	pendingSince time.Time
	changes      map[int64]Change
	urgent       bool
	saving       bool
	sweepAt      time.Time
}

// New makes an engine that holds nothing yet.
func New(c Config) *Engine {
	return &Engine{
		c: c, inbox: make(chan func(), 1024), ended: make(chan struct{}), idle: make(chan func()),
		shards: map[int]*shard{}, orgs: map[int64]*org{}, changes: map[int64]Change{},
	}
}

// post leaves a function for the engine's goroutine. After Run it does nothing.
func (e *Engine) post(f func()) {
	select {
	case e.inbox <- f:
	case <-e.ended:
	}
}

// async does work beside the engine; what it gives is done by the engine's goroutine.
func (e *Engine) async(work func() (then func())) {
	e.running++
	do := func() {
		then := work()
		e.inbox <- func() { // Run reads until nothing runs
			e.running--
			then()
		}
	}
	select {
	case e.idle <- do:
	default:
		e.hired.Go(func() { e.hand(do) })
	}
}

// hand works, and waits for more if few others do: a goroutine that is there has the stack that an attempt needs.
func (e *Engine) hand(do func()) {
	for {
		do()
		if e.hands.Add(1) > maxIdle {
			e.hands.Add(-1)
			return
		}
		select {
		case do = <-e.idle:
			e.hands.Add(-1)
		case <-e.ended:
			return
		}
	}
}

// Run works until take ends and what is in hand is finished and persisted; when work ends first, attempts are broken
// off and count for nothing. It is a lifecycle.RunFunc.
func (e *Engine) Run(take, work context.Context) error {
	defer e.hired.Wait()
	defer close(e.ended)
	e.take, e.work = take, work
	e.sweepAt = time.Now().Add(idleAfter)
	timer := time.NewTimer(0)
	defer timer.Stop()
	taking := take.Done()
	for {
		select {
		case f := <-e.inbox:
			f()
			e.rest()
		case <-timer.C:
		case <-taking:
			taking = nil
			e.held(nil, time.Time{})
		}
		now := time.Now()
		e.wake(now)
		e.dispatch(now)
		e.save(now)
		e.gauge()
		if taking == nil && e.running == 0 && len(e.pending) == 0 {
			return nil
		}
		timer.Reset(e.pause(now))
	}
}

// rest does what else the inbox has, a bounded number: what they lead to is then looked at once.
func (e *Engine) rest() {
	for range cap(e.inbox) {
		select {
		case f := <-e.inbox:
			f()
		default:
			return
		}
	}
}

// wake settles the endpoints whose time has come.
func (e *Engine) wake(now time.Time) {
	for len(e.alarms) > 0 && !e.alarms[0].alarm.After(now) {
		ep := e.alarms[0]
		e.alarms.set(ep, time.Time{})
		e.settle(ep, now)
	}
	if !now.Before(e.sweepAt) {
		e.sweepAt = now.Add(idleAfter)
		e.sweep(now)
	}
}

// pause is how long nothing is to be done unless something comes.
func (e *Engine) pause(now time.Time) time.Duration {
	next := e.sweepAt
	if len(e.alarms) > 0 && e.alarms[0].alarm.Before(next) {
		next = e.alarms[0].alarm
	}
	if at := e.pendingSince.Add(saveAfter); len(e.pending) > 0 && !e.saving && at.Before(next) {
		next = at
	}
	return max(next.Sub(now), 0)
}

func (e *Engine) gauge() {
	e.c.Stats.Flying.Store(int64(e.flying))
	e.c.Stats.Unsaved.Store(int64(e.unsaved))
	e.c.Stats.Bytes.Store(e.bytes)
	e.c.Stats.Shards.Store(int64(len(e.shards)))
}
