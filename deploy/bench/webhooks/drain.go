package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"math"
	"net/http"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/sametick/sametick/deploy/bench/internal/rig"
)

const (
	legDrain        = "deliveries a second, committed events to 200 received and persisted"
	legOwnCost      = "processor time of a delivery: the contender"
	legPostgresCost = "processor time of a delivery: Postgres"
	legReceiverCost = "processor time of a delivery: the receiver"
	legMemory       = "most resident memory of webhook-worker"

	nameOurs  = "webhook-worker"
	nameBare  = "bare POST loop"
	nameRiver = "River"
)

// drained is what one drain came to.
type drained struct {
	rate float64 // deliveries/s, steady
	// Processor time in µs a delivery, from the start of the process.
	own, postgres, receiver float64
	memory                  float64 // MiB
}

// drains measures every contender over the same events, in rounds whose order rotates. The first round warms up.
func (b *bench) drains(ctx context.Context) (err error) {
	w, err := b.newWorld(ctx, "drain")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.close()) }()
	if err := errors.Join(w.fill(ctx, b.events, orgs), w.endpoints(ctx, b.perOrg(orgs)), migrateRiver(ctx, w.pool)); err != nil {
		return err
	}
	w.deliveries = b.events
	w.profile = b.profile
	names := []string{nameOurs, nameBare, nameRiver}
	for round := range b.rounds + 1 {
		for i := range names {
			name := names[(i+round)%len(names)]
			d, err := b.contenderDrain(ctx, w, name)
			if err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			b.say("  round %d %s: %.0f deliveries/s; processor µs a delivery: itself %.1f, Postgres %.1f, receiver %.1f", round, name, d.rate, d.own, d.postgres, d.receiver)
			if round > 0 {
				b.report.Add(legDrain, name, "deliveries/s", d.rate)
				b.report.Add(legOwnCost, name, "µs", d.own)
				b.report.Add(legPostgresCost, name, "µs", d.postgres)
				b.report.Add(legReceiverCost, name, "µs", d.receiver)
			}
			if round > 0 && name == nameOurs {
				b.report.Add(legMemory, "drain", "MiB", d.memory)
			}
		}
	}
	b.costs()
	return nil
}

// costs says what the rates can come to where processors are all in use, the receiver's on the same machine: no worker
// that posts with net/http does less than the bare loop.
func (b *bench) costs() {
	of := func(name string) float64 {
		return b.report.Median(legOwnCost, name) + b.report.Median(legPostgresCost, name) + b.report.Median(legReceiverCost, name)
	}
	ours, bare, river := of(nameOurs), of(nameBare), of(nameRiver)
	if math.IsNaN(ours + bare + river) {
		return
	}
	b.report.Notes = append(b.report.Notes, fmt.Sprintf("Processor time of a delivery, receiver and Postgres included: webhook-worker %.0f µs, bare POST loop %.0f, River %.0f. "+
		"By it alone webhook-worker would do %.2f of the bare loop and %.1f × River, and a worker that costs no more than the bare loop, and keeps no record, %.1f × River.",
		ours, bare, river, bare/ours, river/ours, river/bare))
}

// orgs are those of a drain, with an endpoint each; they cover all shards.
const orgs = 64

func (b *bench) contenderDrain(ctx context.Context, w *world, name string) (drained, error) {
	switch name {
	case nameBare:
		return w.drain(ctx, func() (*rig.Process, error) { return b.child(name, w.url) }, func(context.Context, *rig.Process) (bool, error) { return true, nil })
	case nameRiver:
		if err := w.resetRiver(ctx); err != nil {
			return drained{}, err
		}
		return w.drain(ctx, func() (*rig.Process, error) { return b.child(name, w.url) }, w.riverDone)
	default:
		if err := w.reset(ctx); err != nil {
			return drained{}, err
		}
		return w.ourDrain(ctx)
	}
}

// ourDrain lets webhook-worker deliver what waits, and checks that history has it.
func (w *world) ourDrain(ctx context.Context) (d drained, err error) {
	var before int
	const count = `SELECT count(*) FROM sametick.webhook_attempts WHERE outcome = 'delivered'`
	if err := w.pool.QueryRow(ctx, count).Scan(&before); err != nil {
		return d, fmt.Errorf("count what was delivered: %w", err)
	}
	seen := 0
	d, err = w.drain(ctx, func() (*rig.Process, error) { return w.worker(ctx) }, func(ctx context.Context, p *rig.Process) (bool, error) {
		delivered, unsaved, err := progress(ctx, p.Ops)
		done := unsaved == 0 && seen >= w.deliveries // of the look before: the two are not read at once
		seen = delivered
		return done, err
	})
	if err != nil {
		return d, err
	}
	var after int
	if err := w.pool.QueryRow(ctx, count).Scan(&after); err != nil {
		return d, fmt.Errorf("count what was delivered: %w", err)
	}
	if after-before != w.deliveries {
		return d, fmt.Errorf("%d of %d deliveries are in history", after-before, w.deliveries)
	}
	return d, nil
}

// drain starts a contender and times it from the first tenth to the last delivery: the process starts, connects and prepares
// its statements in the first. saved tells whether all that was received is persisted.
func (w *world) drain(ctx context.Context, start func() (*rig.Process, error), saved func(context.Context, *rig.Process) (bool, error)) (d drained, err error) {
	b := w.bench
	b.receiver.taken.Store(0)
	postgres, _, err := b.rig.ServersCPU()
	if err != nil {
		return d, err
	}
	receiver, err := rig.OwnCPU() // it is in this process
	if err != nil {
		return d, err
	}
	p, err := start()
	if err != nil {
		return d, err
	}
	defer func() { err = errors.Join(err, p.Stop()) }()
	group, groupCtx := errgroup.WithContext(ctx)
	if w.profile && p.Ops != "" {
		group.Go(func() error {
			if err := p.Ready(groupCtx); err != nil {
				return err
			}
			return p.Profile(groupCtx, 5, filepath.Join(b.out, "webhook-worker.pprof"))
		})
	}
	if d.rate, err = w.rate(ctx, p, saved); err != nil {
		return d, p.Blame(errors.Join(err, group.Wait()))
	}
	own, err := p.CPU()
	if err != nil {
		return d, err
	}
	now, _, err := b.rig.ServersCPU()
	if err != nil {
		return d, err
	}
	received, err := rig.OwnCPU()
	if err != nil {
		return d, err
	}
	bytes, err := p.PeakMemory()
	micros := func(t time.Duration) float64 { return float64(t.Microseconds()) / float64(w.deliveries) }
	d.own, d.postgres, d.receiver, d.memory = micros(own), micros(now-postgres), micros(received-receiver), float64(bytes)/(1<<20)
	return d, errors.Join(err, group.Wait())
}

func (w *world) rate(ctx context.Context, p *rig.Process, saved func(context.Context, *rig.Process) (bool, error)) (float64, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute+time.Duration(w.deliveries)*10*time.Millisecond) // 100 a second
	defer cancel()
	var first int64
	var began time.Time
	for {
		have, now := w.bench.receiver.taken.Load(), time.Now()
		switch {
		case have > int64(w.deliveries):
			return 0, fmt.Errorf("%d requests for %d deliveries: some came twice", have, w.deliveries)
		case began.IsZero() && have == int64(w.deliveries):
			return 0, fmt.Errorf("%d deliveries between two looks: too few to measure", have)
		case began.IsZero() && have >= int64(w.deliveries)/10:
			first, began = have, now
		case have == int64(w.deliveries):
			done, err := saved(ctx, p)
			if err != nil {
				return 0, err
			}
			if done {
				return float64(have-first) / time.Since(began).Seconds(), nil
			}
		}
		if err := wait(ctx, 2*time.Millisecond); err != nil {
			return 0, fmt.Errorf("%d of %d received: %w", have, w.deliveries, err)
		}
		if err := p.Failure(); err != nil {
			return 0, err
		}
	}
}

// progress reads the worker's metrics.
func progress(ctx context.Context, ops string) (delivered, unsaved int, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+ops+"/metrics", nil)
	if err != nil {
		return 0, 0, fmt.Errorf("read the metrics: %w", err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, 0, fmt.Errorf("read the metrics: %w", err)
	}
	defer func() { _ = resp.Body.Close() }()
	unsaved = -1
	lines := bufio.NewScanner(resp.Body)
	for lines.Scan() {
		name, value, _ := strings.Cut(lines.Text(), " ")
		switch name {
		case `sametick_webhooks_attempts_total{cause="",outcome="delivered"}`:
			delivered = number(value)
		case `sametick_webhooks_unsaved`:
			unsaved = number(value)
		}
	}
	return delivered, unsaved, lines.Err()
}

// number reads a metric's value; -1 for none.
func number(text string) int {
	v, err := strconv.ParseFloat(text, 64)
	if err != nil {
		return -1
	}
	return int(v)
}
