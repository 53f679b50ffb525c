package chaos

import (
	"context"
	"math/rand/v2"
	"time"
)

// Replica is a running copy of a service.
type Replica interface {
	Name() string
	Start(ctx context.Context) error
	Kill()
	Pause()
	Continue()
	// Terminate fails when the replica does not end cleanly within grace.
	Terminate(grace time.Duration) error
}

// grace is the default SHUTDOWN_GRACE of the services, and a little for a busy machine.
const grace = 20 * time.Second

// Relay is the campaign against one relay: killed at any point, stopped for longer than a standby
// takes to step in, asked to go.
func Relay(r Replica, every time.Duration) Campaign {
	return Campaign{Name: r.Name(), Every: every, Faults: []Fault{
		{Name: "SIGKILL", Weight: 6, Kills: 1, Do: kill(r, 2500*time.Millisecond)},
		{Name: "SIGSTOP, SIGCONT", Weight: 3, Kills: 1, Do: freeze(r)},
		{Name: "SIGTERM", Weight: 2, Kills: 1, Do: terminate(r)},
	}}
}

// Extra is the campaign of one relay too many, which is only there at times.
func Extra(r Replica, every time.Duration) Campaign {
	return Campaign{Name: r.Name(), Every: every, Faults: []Fault{
		{Name: "started once more", Weight: 1, Kills: 1, Do: func(ctx context.Context, rng *rand.Rand) (string, error) {
			d := Between(rng, time.Second, 12*time.Second)
			err := r.Start(ctx)
			Pause(ctx, d)
			r.Kill()
			return "for " + d.String(), err
		}},
	}}
}

// Gateway is the campaign against one sse-gateway.
func Gateway(r Replica, every time.Duration) Campaign {
	return Campaign{Name: r.Name(), Every: every, Faults: []Fault{
		{Name: "SIGKILL", Weight: 2, Kills: 1, Do: kill(r, 2*time.Second)},
		{Name: "SIGTERM", Weight: 2, Kills: 1, Do: terminate(r)},
		{Name: "SIGSTOP, SIGCONT", Weight: 1, Kills: 1, Do: freeze(r)},
	}}
}

// Worker is the campaign against one webhook-worker: killed between sending and saving, stopped for longer than its lease
// lasts, so that two hold a shard.
func Worker(r Replica, every time.Duration) Campaign {
	return Campaign{Name: r.Name(), Every: every, Faults: []Fault{
		{Name: "SIGKILL", Weight: 7, Kills: 1, Do: kill(r, time.Second)},
		{Name: "SIGSTOP, SIGCONT", Weight: 2, Kills: 1, Do: freeze(r)},
		{Name: "SIGTERM", Weight: 1, Kills: 1, Do: terminate(r)},
	}}
}

func kill(r Replica, most time.Duration) func(context.Context, *rand.Rand) (string, error) {
	return func(ctx context.Context, rng *rand.Rand) (string, error) {
		d := Between(rng, 0, most)
		r.Kill()
		Pause(ctx, d)
		return "back after " + d.String(), r.Start(ctx)
	}
}

func freeze(r Replica) func(context.Context, *rand.Rand) (string, error) {
	return func(ctx context.Context, rng *rand.Rand) (string, error) {
		d := Between(rng, 200*time.Millisecond, 6*time.Second)
		r.Pause()
		Pause(ctx, d)
		r.Continue()
		return "for " + d.String(), nil
	}
}

func terminate(r Replica) func(context.Context, *rand.Rand) (string, error) {
	return func(ctx context.Context, rng *rand.Rand) (string, error) {
		began := time.Now()
		err := r.Terminate(grace)
		took := time.Since(began).Round(time.Millisecond)
		Pause(ctx, Between(rng, 0, time.Second))
		if startErr := r.Start(ctx); err == nil {
			err = startErr
		}
		return "gone in " + took.String(), err
	}
}
