package follow

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
)

// Options of a crowd.
type Options struct {
	// Gateways are base URLs; a client takes any of them at each connection.
	Gateways []string
	// Token makes a bearer token for an organisation.
	Token func(orgID int64) (string, error)
	// Header sends all tokens as a header; otherwise half of them are in the query.
	Header bool
	// Orgs, Types and Hot are what filters are made of.
	Orgs  []int64
	Types []string
	// Hot gives the aggregate ids that filters ask for: 1 to Hot.
	Hot int64
	// Clients is how many live at a time.
	Clients int
	// Dir takes the records.
	Dir  string
	Seed uint64
	// LifeTime is the mean time of a life.
	LifeTime time.Duration
}

// Counts tells what a crowd has done.
type Counts struct{ Lives, Reconnects, Delivered, Marks int64 }

// Crowd is a number of clients; when one's life ends another begins.
type Crowd struct {
	options Options
	http    *http.Client
	settled chan struct{}

	mu      sync.Mutex
	lives   []*Life
	current []*client

	refused []string

	seen                         sync.Map // org id → *atomic.Int64, the newest position seen
	reconnects, delivered, marks atomic.Int64
}

// NewCrowd prepares a crowd.
func NewCrowd(o Options) *Crowd {
	return &Crowd{options: o, http: newHTTPClient(), settled: make(chan struct{}), current: make([]*client, o.Clients+1)}
}

// Run lets the clients live until ctx ends. It fails when a record cannot be written.
func (c *Crowd) Run(ctx context.Context) error {
	defer c.http.CloseIdleConnections()
	group, ctx := errgroup.WithContext(ctx)
	for slot := range c.options.Clients {
		rng := rand.New(rand.NewPCG(c.options.Seed, uint64(slot)))
		group.Go(func() error {
			for n := 0; ctx.Err() == nil; n++ {
				if err := c.life(ctx, slot, c.newClient(rng, slot, n)); err != nil {
					return err
				}
			}
			return nil
		})
	}
	group.Go(func() error { return c.latecomer(ctx) })
	return group.Wait()
}

// latecomer comes once all have settled, and asks for everything from the beginning.
func (c *Crowd) latecomer(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return nil
	case <-c.settled:
	}
	slot := c.options.Clients
	one := &client{crowd: c, rng: rand.New(rand.NewPCG(c.options.Seed, uint64(slot))),
		life: &Life{Name: "latecomer", OrgID: c.options.Orgs[0], Path: filepath.Join(c.options.Dir, "latecomer")}}
	return c.life(ctx, slot, one)
}

// Settle ends the coming and going: whoever lives now stays to the end and reads fast.
func (c *Crowd) Settle() { close(c.settled) }

func (c *Crowd) settling() bool {
	select {
	case <-c.settled:
		return true
	default:
		return false
	}
}

// newClient draws a client.
func (c *Crowd) newClient(rng *rand.Rand, slot, n int) *client {
	life := &Life{
		Name: fmt.Sprintf("client %d.%d", slot, n), OrgID: c.options.Orgs[slot%len(c.options.Orgs)],
		Filter: c.filter(rng), Path: filepath.Join(c.options.Dir, fmt.Sprintf("client-%d.%d", slot, n)),
	}
	life.Start = c.start(rng, life.OrgID)
	return &client{crowd: c, life: life, rng: rng, slow: rng.IntN(6) == 0}
}

// life lives one client's life; it ends by its own time, except when the crowd settles before.
func (c *Crowd) life(ctx context.Context, slot int, one *client) error {
	life, rng := one.life, one.rng
	rec, err := newRecorder(life.Path)
	if err != nil {
		return err
	}
	one.rec = rec
	one.last.Store(life.Start)
	c.mu.Lock()
	c.lives = append(c.lives, life)
	c.current[slot] = one
	c.mu.Unlock()

	alive, end := context.WithCancel(ctx)
	timer := time.AfterFunc(c.options.LifeTime/2+time.Duration(rng.Int64N(int64(c.options.LifeTime))), func() {
		if !c.settling() {
			end()
		}
	})
	if err := one.live(alive); err != nil {
		c.refuse(err)
		pause(ctx, time.Second)
	}
	timer.Stop()
	end()
	life.ToTheEnd = ctx.Err() != nil && c.settling()
	return rec.close()
}

// refuse notes what no client may be answered.
func (c *Crowd) refuse(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.refused) < 10 {
		c.refused = append(c.refused, err.Error())
	}
}

// Refused tells of answers that no client may get, whatever chaos reigns: the first ones.
func (c *Crowd) Refused() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.refused
}

// filter draws a filter; most clients have one.
func (c *Crowd) filter(rng *rand.Rand) (f Filter) {
	anyType := func() string { return c.options.Types[rng.IntN(len(c.options.Types))] }
	switch rng.IntN(6) {
	case 0:
		f.AggregateType = anyType()
	case 1:
		f.AggregateType, f.AggregateID = anyType(), 1+rng.Int64N(c.options.Hot)
	case 2:
		f.EventTypes = []string{anyType() + ".*"}
	case 3:
		f.EventTypes = []string{"*.post_create", anyType() + ".post_update"}
	}
	return f
}

// start draws where a life begins: now, or a little or a long way back.
func (c *Crowd) start(rng *rand.Rand, org int64) int64 {
	newest := c.newest(org).Load()
	switch n := rng.IntN(20); {
	case n < 8:
		return -1
	case n == 8:
		return 0
	case n < 12:
		return max(0, newest-rng.Int64N(20000))
	default:
		return max(0, newest-rng.Int64N(500))
	}
}

func (c *Crowd) newest(org int64) *atomic.Int64 {
	v, _ := c.seen.LoadOrStore(org, new(atomic.Int64))
	return v.(*atomic.Int64)
}

func (c *Crowd) sawPosition(org, position int64) {
	newest := c.newest(org)
	for old := newest.Load(); position > old && !newest.CompareAndSwap(old, position); old = newest.Load() {
	}
}

// Counts gives the totals so far.
func (c *Crowd) Counts() Counts {
	c.mu.Lock()
	defer c.mu.Unlock()
	return Counts{Lives: int64(len(c.lives)), Reconnects: c.reconnects.Load(), Delivered: c.delivered.Load(), Marks: c.marks.Load()}
}

// Places gives where each living client is, for whoever waits until all have caught up.
func (c *Crowd) Places() (list []Place) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, one := range c.current {
		if one != nil {
			p := one.where.now()
			p.Life, p.Last = one.life, one.last.Load()
			list = append(list, p)
		}
	}
	return list
}

// Lives gives all lives. Call it after Run has returned.
func (c *Crowd) Lives() []*Life { return c.lives }
