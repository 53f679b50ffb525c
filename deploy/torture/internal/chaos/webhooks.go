package chaos

import (
	"context"
	"math/rand/v2"
	"time"

	"github.com/sametick/sametick/deploy/torture/internal/hooks"
)

// Receivers is what the campaign needs of the far end of webhooks.
type Receivers interface {
	Fail(m hooks.Mood)
	Hang(m hooks.Mood)
}

// FarEnd is the campaign against who receives webhooks: one receiver fails for a while, in one of several ways, one hangs.
func FarEnd(r Receivers, every time.Duration) Campaign {
	return Campaign{Name: "receivers", Every: every, Faults: []Fault{
		{Name: "one fails", Weight: 2, Do: func(ctx context.Context, rng *rand.Rand) (string, error) {
			mood := []hooks.Mood{hooks.Failing, hooks.Busy, hooks.Resetting}[rng.IntN(3)]
			return moody(ctx, rng, r.Fail, mood), nil
		}},
		{Name: "one hangs", Weight: 2, Do: func(ctx context.Context, rng *rand.Rand) (string, error) {
			return moody(ctx, rng, r.Hang, hooks.Hanging), nil
		}},
	}}
}

func moody(ctx context.Context, rng *rand.Rand, set func(hooks.Mood), m hooks.Mood) string {
	d := Between(rng, 500*time.Millisecond, 6*time.Second)
	set(m)
	Pause(ctx, d)
	set(hooks.Well)
	return m.String() + " for " + d.String()
}

// Retries is the campaign that lets time pass for what waits to be sent again: nobody has hours. A worker sees it when
// it next reads the queue.
func Retries(p Postgres, every time.Duration) Campaign {
	return Campaign{Name: "webhook retries", Every: every, Faults: []Fault{
		{Name: "due at once", Weight: 1, Do: func(ctx context.Context, _ *rand.Rand) (string, error) {
			ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
			defer cancel()
			n, err := Hurry(ctx, p)
			if err != nil {
				return "none: the server is down", nil
			}
			return n + " of them", nil
		}},
	}}
}

// Hurry makes all retries due now, and tells what it did.
func Hurry(ctx context.Context, p Postgres) (string, error) {
	conn, err := p.Postgres(ctx)
	if err != nil {
		return "", err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	tag, err := conn.Exec(ctx, `UPDATE sametick.webhook_queue SET due_at = now() WHERE due_at > now()`)
	return tag.String(), err
}
