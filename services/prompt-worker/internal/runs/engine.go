package runs

import (
	"context"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/sametick/sametick/services/prompt-worker/internal/hooks"
	"github.com/sametick/sametick/services/prompt-worker/internal/prompting"
)

// Queue is the table of what waits. Safe for concurrent use.
type Queue interface {
	// Waiting gives the hooks of a shard that something waits for.
	Waiting(ctx context.Context, shard int) ([]Waiting, error)
	// Load gives what is due of a hook, and the hook as it is now.
	Load(ctx context.Context, w Want) (Window, error)
	// Begin marks attempts as begun and holds their budgets, in one transaction. It answers each.
	Begin(ctx context.Context, list []Beginning) ([]Answer, error)
	// Finish keeps what came of attempts, in one transaction: budgets are settled, rows end or are put off, a run that
	// ends gets its history and its event. It answers each with whether the row was still this attempt's.
	Finish(ctx context.Context, list []Outcome) ([]bool, error)
}

// Waiting is a hook that something waits for, due at the earliest at Due.
type Waiting struct {
	OrgID, HookID int64
	Due           time.Time
}

// Want asks for what is due of a hook.
type Want struct {
	Shard         int
	OrgID, HookID int64
	Limit         int
	// Except are ids that are in hand already.
	Except []int64
}

// Window is what is due of a hook, the first of it.
type Window struct {
	// Setup is nil when the hook is gone.
	Setup *hooks.Setup
	Items []*Item
	// Next is when what else waits is due at the earliest; zero when nothing does.
	Next time.Time
}

// Beginning is the wish to make an attempt.
type Beginning struct {
	Item *Item
	// Until is how long the attempt is its worker's: nobody else begins another one before.
	Until time.Time
	// Worst is the most that it can take; Limits are the hook's.
	Worst  prompting.Amount
	Limits prompting.Limits
}

// Answer to a Beginning.
type Answer struct {
	// Begun is false when the row has gone or is another attempt's.
	Begun bool
	// Refused names whose budget does not cover the attempt; then it has not begun.
	Refused string
}

// Outcome is what came of an attempt, or of a run that came to no attempt.
type Outcome struct {
	// Run is whole when it ends; else its id and organisation are.
	Run *Run
	// Attempt as the row has it.
	Attempt int
	// Took is what is settled for the attempt; nil when nothing was held.
	Took *prompting.Amount
	// RetryAt is zero when the run ends.
	RetryAt time.Time
	// Unknown: nobody knows how the attempt ended.
	Unknown bool
}

// Config of an Engine.
type Config struct {
	Queue    Queue
	Executor *Executor
	// PerHook, PerOrg and InAll bound the runs in hand.
	PerHook, PerOrg, InAll int
	// MaxBytes bounds the events in memory; those of one load come on top.
	MaxBytes int64
	// Margin is how long after its deadline an attempt is still its worker's, to be persisted (10 s).
	Margin time.Duration
	// Gather is how long the first of a batch that begins or finishes waits for others (3 ms); negative for not at all.
	Gather time.Duration
	// Observe, if set, is told of each attempt's outcome, by many goroutines.
	Observe func(*Outcome)
	Log     *slog.Logger
	Stats   *Stats
}

// Stats are gauges of this replica.
type Stats struct {
	// Flying are runs in hand, Lanes hooks that something is known to wait for, Shards those held; Late counts results
	// that came when the attempt was no longer this worker's.
	Flying, Lanes, Shards, Late atomic.Int64
}

const (
	// turn is how many runs a hook begins before it is another one's turn.
	turn = 16
	// margin is Config's default.
	margin = 10 * time.Second
	// linger is how long room for less than half a turn may wait for more: a load of one run costs the database as much as
	// one of sixteen, and when many runs end one by one each makes room for one.
	linger = 20 * time.Millisecond
	// again is when a hook is looked at again that another worker is at.
	again = time.Second
	// lastSave is how long persisting may take once work has ended.
	lastSave = 2 * time.Second
	// rescan is how often what waits is looked up anew: what was committed when nobody could be told is found then.
	rescan = 30 * time.Second
	// gather is Gather's default: runs begin and end in bursts, and the first would go alone.
	gather = 3 * time.Millisecond
	// maxBatch bounds what one transaction begins or finishes.
	maxBatch = 200
)

// Engine works off the queues of the shards that this replica holds. Nothing waits in memory: a run is loaded when
// there is room to begin it. Its state belongs to the goroutine of Run; whatever else wants something of it leaves a
// function in its inbox. Two replicas at one shard do no harm: a row's attempt is begun by one of them.
type Engine struct {
	c        Config
	begins   *group[Beginning, Answer]
	finishes *group[Outcome, kept]
	inbox    chan func()
	ended    chan struct{}

	take, work context.Context
	shards     map[int]*shard
	lost       []*shard // with runs still in hand
	releases   []release
	orgs       map[int64]*org
	line       []*org // organisations with something due and room, in turn
	room       room
	flying     int
	running    int // goroutines
	bytes      int64
}

// New makes an engine that holds nothing yet.
func New(c Config) *Engine {
	if c.Margin <= 0 {
		c.Margin = margin
	}
	if c.Gather == 0 {
		c.Gather = gather
	}
	e := &Engine{
		c: c, inbox: make(chan func(), 256), ended: make(chan struct{}), shards: map[int]*shard{}, orgs: map[int64]*org{},
		begins: &group[Beginning, Answer]{do: c.Queue.Begin, most: maxBatch, linger: c.Gather},
	}
	e.finishes = &group[Outcome, kept]{do: e.finish, most: maxBatch, linger: c.Gather}
	return e
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
	go func() {
		then := work()
		e.inbox <- func() { // Run reads until nothing runs
			e.running--
			then()
		}
	}()
}

// Run works until take ends and what is in hand is finished and persisted; when work ends first, calls are broken off
// and their outcome is unknown. It is a lifecycle.RunFunc.
func (e *Engine) Run(take, work context.Context) error {
	defer close(e.ended)
	e.take, e.work = take, work
	taking := take.Done()
	look := time.NewTicker(rescan)
	defer look.Stop()
	for taking != nil || e.running > 0 {
		select {
		case f := <-e.inbox:
			f()
		case <-look.C:
			for _, s := range e.shards {
				e.scan(s)
			}
		case <-taking:
			taking = nil
			e.held(nil)
		}
		e.dispatch()
		e.c.Stats.Flying.Store(int64(e.flying))
		e.c.Stats.Shards.Store(int64(len(e.shards)))
	}
	return nil
}
