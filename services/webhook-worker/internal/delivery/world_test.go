package delivery_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/sametick/sametick/services/webhook-worker/internal/delivery"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// world is a table in memory and the receivers of its endpoints. It is what stays when an engine crashes.
type world struct {
	mu        sync.Mutex
	rand      *rand.Rand
	ids       int64
	rows      map[int64]*delivery.Delivery
	endpoints map[int64]*delivery.Endpoint
	ends      map[int64][]string // final outcomes by delivery
	sent      map[int64][]int64  // by endpoint, the ids of successful attempts
	saved     map[[2]int64]bool  // by delivery and the attempt's beginning
	faults    []string
	attempts  map[int64]int
	loads     int
	rowsRead  int
	onward    int // loads that went on where the last one ended
	epoch     int
	flying    map[int64]int
	widest    map[int64]int
	// answer makes an attempt; it may wait.
	answer func(ctx context.Context, e *delivery.Endpoint, d *delivery.Delivery) delivery.Result
	// saving, if set, may fail a Save before or (done) after it has been done.
	saving func() (before, after error)
}

func newWorld(seed uint64) *world {
	w := &world{
		rand: rand.New(rand.NewPCG(seed, 1)), rows: map[int64]*delivery.Delivery{}, endpoints: map[int64]*delivery.Endpoint{},
		ends: map[int64][]string{}, sent: map[int64][]int64{}, attempts: map[int64]int{}, saved: map[[2]int64]bool{}, flying: map[int64]int{}, widest: map[int64]int{},
	}
	w.answer = func(context.Context, *delivery.Endpoint, *delivery.Delivery) delivery.Result {
		return delivery.Result{}
	}
	return w
}

func (w *world) add(id int64, ordered bool) *delivery.Endpoint {
	e := &delivery.Endpoint{OrgID: id%3 + 1, ID: id, Ordered: ordered, Enabled: true, Version: 1}
	w.endpoints[id] = e
	return e
}

// schedule puts n deliveries for an endpoint into the table, and gives what arrives.
func (w *world) schedule(endpoint int64, n int) delivery.Arrival {
	w.mu.Lock()
	defer w.mu.Unlock()
	e := w.endpoints[endpoint]
	a := delivery.Arrival{Endpoints: []*delivery.Endpoint{e}}
	for range n {
		w.ids++
		d := &delivery.Delivery{ID: w.ids, OrgID: e.OrgID, EndpointID: e.ID, EventID: w.ids, Position: w.ids, Trigger: delivery.ByEvent,
			Due: time.Now(), ScheduledAt: time.Now(), Event: []byte(`{"id":1}`)}
		row := *d
		w.rows[d.ID] = &row
		a.Deliveries = append(a.Deliveries, d)
	}
	return a
}

// change changes an endpoint, and gives what arrives.
func (w *world) change(endpoint int64, change func(*delivery.Endpoint)) delivery.Arrival {
	w.mu.Lock()
	defer w.mu.Unlock()
	e := *w.endpoints[endpoint]
	e.Version++
	change(&e)
	w.endpoints[endpoint] = &e
	return delivery.Arrival{Changed: []*delivery.Endpoint{&e}}
}

func (w *world) left() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.rows)
}

// Send implements delivery.Sender.
func (w *world) Send(ctx context.Context, e *delivery.Endpoint, d *delivery.Delivery) delivery.Result {
	id, endpoint, closed := d.ID, e.ID, e.Closed()
	w.mu.Lock()
	w.attempts[id]++
	w.flying[endpoint]++
	w.widest[endpoint] = max(w.widest[endpoint], w.flying[endpoint])
	if closed != "" {
		w.faults = append(w.faults, fmt.Sprintf("sent to endpoint %d, which is %s", endpoint, closed))
	}
	w.mu.Unlock()
	began := time.Now()
	r := w.answer(ctx, e, d)
	if ctx.Err() != nil {
		r = delivery.Result{Cause: delivery.CauseTimeout}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.flying[endpoint]--
	r.Began = began
	if r.Cause == "" {
		w.sent[endpoint] = append(w.sent[endpoint], id)
	}
	return r
}

// Waiting implements delivery.Queue.
func (w *world) Waiting(context.Context, int) ([]delivery.Waiting, error) {
	w.pause(3)
	w.mu.Lock()
	defer w.mu.Unlock()
	least := map[int64]time.Time{}
	for _, d := range w.rows {
		if at, ok := least[d.EndpointID]; !ok || d.Due.Before(at) {
			least[d.EndpointID] = d.Due
		}
	}
	var list []delivery.Waiting
	for id, due := range least {
		list = append(list, delivery.Waiting{OrgID: w.endpoints[id].OrgID, EndpointID: id, Due: due})
	}
	return list, nil
}

// Load implements delivery.Queue.
func (w *world) Load(_ context.Context, want delivery.Want) (delivery.Window, error) {
	w.pause(3)
	w.mu.Lock()
	var rows []*delivery.Delivery
	for _, d := range w.rows {
		if d.EndpointID == want.EndpointID && !slices.Contains(want.Except, d.ID) && (len(want.IDs) == 0 || slices.Contains(want.IDs, d.ID)) {
			row := *d
			rows = append(rows, &row)
		}
	}
	slices.SortFunc(rows, func(a, b *delivery.Delivery) int {
		if !want.Ordered {
			if c := a.Due.Compare(b.Due); c != 0 {
				return c
			}
		}
		return cmp.Compare(a.ID, b.ID)
	})
	if at := slices.IndexFunc(rows, func(d *delivery.Delivery) bool { return !d.Due.Before(want.From) }); at > 0 && len(rows)-at > want.Limit && !rows[at+want.Limit].Due.After(want.Until) {
		rows = rows[at:]
	}
	if !want.From.IsZero() {
		w.onward++
	}
	n := 0
	for n < min(len(rows), want.Limit) && (want.Ordered || !rows[n].Due.After(want.Until)) {
		n++
	}
	got := delivery.Window{Deliveries: rows[:n]}
	if n < len(rows) {
		got.Next = rows[n].Due
		for _, d := range rows[n:] {
			if want.Ordered && w.rand.IntN(8) > 0 { // not all of them
				got.Ahead = append(got.Ahead, d.ID)
			} else {
				break
			}
		}
	}
	if want.Conf {
		got.Endpoint = w.endpoints[want.EndpointID]
	}
	w.loads++
	w.rowsRead += n
	w.mu.Unlock()
	w.pause(3)
	return got, nil
}

func (w *world) pause(most int) {
	w.mu.Lock()
	d := time.Duration(w.rand.IntN(most*1000+1)) * time.Microsecond
	w.mu.Unlock()
	time.Sleep(d)
}

// Save implements delivery.History.
func (w *world) Save(_ context.Context, b *delivery.Batch) ([]int64, error) {
	w.pause(2)
	w.mu.Lock()
	defer w.mu.Unlock()
	var before, after error
	if w.saving != nil {
		before, after = w.saving()
	}
	if before != nil {
		return nil, before
	}
	refused := w.apply(b)
	return refused, after
}

func (w *world) apply(b *delivery.Batch) (refused []int64) {
	for _, o := range b.Outcomes {
		id := o.Delivery.ID
		row := w.rows[id]
		switch {
		case o.Kind == delivery.Retrying && (row == nil || row.Attempts != o.Delivery.Attempts):
			refused = append(refused, id)
		case o.Kind == delivery.Retrying:
			row.Attempts++
			row.Due = o.Next
		default:
			if key := [2]int64{id, o.Result.Began.UnixNano()}; w.saved[key] {
				continue
			} else {
				w.saved[key] = true
			}
			w.ends[id] = append(w.ends[id], o.Kind)
			delete(w.rows, id)
		}
	}
	for _, c := range b.Changes {
		e := *w.endpoints[c.EndpointID]
		e.FailingSince = c.FailingSince
		if c.Disable != "" {
			e.Enabled = false
			e.Version++
		}
		w.endpoints[c.EndpointID] = &e
	}
	return refused
}

// Cancel implements delivery.History.
func (w *world) Cancel(_ context.Context, want delivery.Want) (int, error) {
	w.pause(1)
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.endpoints[want.EndpointID].Closed() == "" {
		return 0, nil
	}
	n := 0
	for id, d := range w.rows {
		if d.EndpointID == want.EndpointID && n < want.Limit && !slices.Contains(want.Except, id) {
			n++
			w.ends[id] = append(w.ends[id], delivery.Cancelled)
			delete(w.rows, id)
		}
	}
	return n, nil
}

// crashed takes back what is not saved yet.
func (w *world) crashed() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.epoch++
}

var errDown = errors.New("the database is down")

// running is an engine at work.
type running struct {
	*delivery.Engine
	stats            *delivery.Stats
	endTake, endWork context.CancelFunc
	done             chan struct{}
}

// start runs an engine that holds shard 0.
func (w *world) start(t *testing.T, change func(*delivery.Config)) *running {
	r := &running{stats: &delivery.Stats{}, done: make(chan struct{})}
	c := delivery.Config{
		Sender: w, Queue: w, History: w, Deadline: 15 * time.Second, PerEndpoint: 8, PerOrg: 64, InAll: 128, MaxBytes: 1 << 20,
		Log: slog.New(slog.NewTextHandler(t.Output(), nil)), Stats: r.stats,
	}
	if change != nil {
		change(&c)
	}
	r.Engine = delivery.New(c)
	work, endWork := context.WithCancel(context.Background())
	take, endTake := context.WithCancel(work)
	r.endTake, r.endWork = endTake, endWork
	go func() {
		defer close(r.done)
		_ = r.Run(take, work)
	}()
	r.Held([]int{0}, time.Now().Add(10_000*time.Hour))
	r.Begin(0, w.newest())
	return r
}

// begin is start, and waits until the engine knows what waits.
func (w *world) begin(t *testing.T, change func(*delivery.Config)) *running {
	r := w.start(t, change)
	time.Sleep(10 * time.Millisecond)
	synctest.Wait()
	return r
}

func (w *world) newest() int64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.ids
}

// stop drains; crash breaks off.
func (r *running) stop() { r.endTake(); <-r.done; r.endWork() }

func (r *running) crash() { r.endWork(); <-r.done }
