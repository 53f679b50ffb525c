package delivery_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/sametick/sametick/services/webhook-worker/internal/delivery"
)

// op is a step of a program: what happens to a worker.
type op struct {
	what     string
	endpoint int64
	n        int
}

func programs() *rapid.Generator[[]op] {
	return rapid.SliceOfN(rapid.Custom(func(t *rapid.T) op {
		return op{
			what: rapid.SampledFrom([]string{"arrive", "arrive", "arrive", "late", "wait", "wait", "long", "crash", "drain", "lose", "touch",
				"begin", "order", "close", "open", "down", "doubt"}).Draw(t, "what"),
			endpoint: rapid.Int64Range(1, 5).Draw(t, "endpoint"),
			n:        rapid.IntRange(1, 150).Draw(t, "n"),
		}
	}), 1, 40)
}

// walk runs a program and gives what went wrong: a delivery that did not end exactly once, an ordered endpoint whose
// attempts went back, something that is left in memory.
func walk(t *testing.T, program []op, seed uint64, history func(*world) delivery.History) []string {
	w := newWorld(seed)
	failSaves, doubtSaves := 0, 0
	w.saving = func() (before, after error) {
		switch {
		case failSaves > 0:
			failSaves--
			return errDown, nil
		case doubtSaves > 0:
			doubtSaves--
			return nil, errDown
		}
		return nil, nil
	}
	for id := range int64(5) {
		w.add(id+1, id%2 == 0)
	}
	newest := map[int64]int64{}
	reordered := map[int64]bool{}
	draw := rand.New(rand.NewPCG(seed, 2))
	w.answer = func(_ context.Context, e *delivery.Endpoint, d *delivery.Delivery) delivery.Result {
		w.mu.Lock()
		dice, pause := draw.IntN(10), time.Duration(draw.IntN(20_000))*time.Microsecond
		if e.Ordered && !reordered[e.ID] {
			if d.ID < newest[e.ID] {
				w.faults = append(w.faults, fmt.Sprintf("endpoint %d: %d after %d", e.ID, d.ID, newest[e.ID]))
			}
			newest[e.ID] = d.ID
		}
		w.mu.Unlock()
		time.Sleep(pause)
		switch dice {
		case 0, 1:
			return delivery.Result{Cause: delivery.CauseStatus, Status: 503, RetryAfter: time.Duration(dice) * time.Minute}
		case 2:
			return delivery.Result{Cause: delivery.CauseTransform}
		}
		return delivery.Result{}
	}
	start := func() *running {
		return w.start(t, func(c *delivery.Config) { c.History, c.MaxBytes, c.InAll, c.PerOrg = history(w), 600, 20, 10 })
	}
	r := start()
	for _, o := range program {
		switch o.what {
		case "arrive":
			r.Take(w.schedule(o.endpoint, o.n))
		case "late": // a window may show them first
			a := w.schedule(o.endpoint, o.n)
			r.Take(w.change(o.endpoint, func(*delivery.Endpoint) {}))
			time.Sleep(50 * time.Millisecond)
			r.Take(a)
		case "wait":
			time.Sleep(time.Duration(o.n) * time.Millisecond)
		case "long":
			time.Sleep(time.Duration(o.n) * time.Minute)
		case "crash":
			r.crash()
			r = start()
		case "drain":
			r.stop()
			r = start()
		case "lose":
			r.Held(nil, time.Time{})
			time.Sleep(time.Duration(o.n) * time.Second)
			r.Held([]int{0}, time.Now().Add(10_000*time.Hour))
			r.Begin(0, w.newest())
		case "begin": // as after a commit of which nobody knows: its arrival never comes
			w.schedule(o.endpoint, o.n)
			r.Begin(0, w.newest())
		case "touch":
			r.Take(w.change(o.endpoint, func(*delivery.Endpoint) {}))
		case "order":
			w.mu.Lock()
			reordered[o.endpoint] = true // what is under way may be overtaken
			w.mu.Unlock()
			r.Take(w.change(o.endpoint, func(e *delivery.Endpoint) { e.Ordered = !e.Ordered }))
		case "close":
			r.Take(w.change(o.endpoint, func(e *delivery.Endpoint) { e.Enabled = false }))
		case "open":
			r.Take(w.change(o.endpoint, func(e *delivery.Endpoint) { e.Enabled = true }))
		case "down":
			w.mu.Lock()
			failSaves = o.n % 5
			w.mu.Unlock()
		case "doubt":
			w.mu.Lock()
			doubtSaves = 1
			w.mu.Unlock()
		}
	}
	for range 400 {
		if time.Sleep(time.Hour); w.left() == 0 {
			break
		}
	}
	synctest.Wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	if n := r.stats.Waiting.Load() + r.stats.Bytes.Load() + r.stats.Unsaved.Load() + r.stats.Flying.Load(); n != 0 {
		w.faults = append(w.faults, fmt.Sprintf("%d left in memory", n))
	}
	w.mu.Unlock()
	r.stop()
	w.mu.Lock()
	for id := range w.ids {
		if n := len(w.ends[id+1]); n != 1 {
			w.faults = append(w.faults, fmt.Sprintf("delivery %d ended %d times %v", id+1, n, w.ends[id+1]))
		}
	}
	return w.faults
}

func honest(w *world) delivery.History { return w }

// Whatever happens to the worker, every delivery ends exactly once, and ordered ones in order.
func TestModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		program, seed := programs().Draw(rt, "program"), rapid.Uint64().Draw(rt, "seed")
		var faults []string
		synctest.Test(t, func(t *testing.T) { faults = walk(t, program, seed, honest) })
		if len(faults) > 0 {
			rt.Fatalf("%d faults: %q", len(faults), faults[:min(len(faults), 5)])
		}
	})
}

// hasty is a history that says "saved" before it has: an ordered endpoint goes on too early then, which a crash shows.
type hasty struct{ *world }

// Save saves a moment later, if the world lives so long.
func (h hasty) Save(_ context.Context, b *delivery.Batch) ([]int64, error) {
	h.mu.Lock()
	epoch := h.epoch
	h.mu.Unlock()
	time.AfterFunc(30*time.Millisecond, func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		if h.epoch == epoch {
			h.apply(b)
		}
	})
	return nil, nil
}

// The control: the model sees when an attempt is not persisted before the next of an ordered endpoint.
func TestControlModelSeesHaste(t *testing.T) {
	var program []op
	for range 30 {
		program = append(program, op{what: "arrive", endpoint: 1, n: 5}, op{what: "wait", n: 60}, op{what: "crash"})
	}
	found := false
	for seed := range uint64(5) {
		synctest.Test(t, func(t *testing.T) {
			faults := walk(t, program, seed, func(w *world) delivery.History { w.crashed(); return hasty{w} })
			found = found || slices.ContainsFunc(faults, func(f string) bool { return len(f) > 8 && f[:8] == "endpoint" })
		})
	}
	require.True(t, found, "an inversion")
}
