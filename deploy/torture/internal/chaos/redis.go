package chaos

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/redis/rueidis"
)

// Redis is what the campaign needs of the server. Client connects for one fault.
type Redis interface {
	CrashRedis(ctx context.Context, between func()) error
	FreezeRedis(between func()) error
	Redis() (rueidis.Client, error)
}

// Memory is the campaign against Redis and what it holds. key draws the stream of a shard in use.
func Memory(r Redis, key func(*rand.Rand) string, every time.Duration) Campaign {
	command := func(do func(ctx context.Context, c rueidis.Client, rng *rand.Rand) (string, error)) func(context.Context, *rand.Rand) (string, error) {
		return func(ctx context.Context, rng *rand.Rand) (string, error) {
			c, err := r.Redis()
			if err != nil {
				return "", err
			}
			defer c.Close()
			detail, err := do(context.WithoutCancel(ctx), c, rng)
			return detail, err
		}
	}
	return Campaign{Name: "redis", Every: every, Faults: []Fault{
		{Name: "SIGKILL, back empty", Weight: 3, Kills: 1, Do: func(ctx context.Context, rng *rand.Rand) (string, error) {
			d := Between(rng, 0, 3*time.Second)
			return "down for " + d.String(), r.CrashRedis(context.WithoutCancel(ctx), func() { Pause(ctx, d) })
		}},
		{Name: "SIGSTOP, SIGCONT", Weight: 2, Kills: 1, Do: func(ctx context.Context, rng *rand.Rand) (string, error) {
			d := Between(rng, 100*time.Millisecond, 6*time.Second)
			return "for " + d.String(), r.FreezeRedis(func() { Pause(ctx, d) })
		}},
		{Name: "FLUSHALL", Weight: 3, Do: command(func(ctx context.Context, c rueidis.Client, _ *rand.Rand) (string, error) {
			return "", c.Do(ctx, c.B().Flushall().Build()).Error()
		})},
		{Name: "DEL of a stream", Weight: 3, Do: command(func(ctx context.Context, c rueidis.Client, rng *rand.Rand) (string, error) {
			k := key(rng)
			return k, c.Do(ctx, c.B().Del().Key(k).Build()).Error()
		})},
		{Name: "CLIENT KILL", Weight: 3, Kills: 1, Do: command(func(ctx context.Context, c rueidis.Client, rng *rand.Rand) (string, error) {
			return "", c.Do(ctx, c.B().ClientKill().TypeNormal().SkipmeYes().Build()).Error()
		})},
		{Name: "XTRIM", Weight: 4, Do: command(trim(key))},
		{Name: "out of memory", Weight: 2, Do: func(ctx context.Context, rng *rand.Rand) (string, error) { return starve(ctx, r, rng) }},
		{Name: "stream without its tail", Weight: 3, Do: command(rewind(key))},
	}}
}

// trim drops old entries, more than a relay would: whoever resumes must go to Postgres.
func trim(key func(*rand.Rand) string) func(context.Context, rueidis.Client, *rand.Rand) (string, error) {
	return func(ctx context.Context, c rueidis.Client, rng *rand.Rand) (string, error) {
		k, left := key(rng), 1+rng.Int64N(200)
		n, err := c.Do(ctx, c.B().Xtrim().Key(k).Maxlen().Exact().Threshold(fmt.Sprint(left)).Build()).AsInt64()
		return fmt.Sprintf("%s to %d, %d dropped", k, left, n), err
	}
}

// rewind puts a stream back to what it was a moment ago, as a failover to a replica that lagged does.
func rewind(key func(*rand.Rand) string) func(context.Context, rueidis.Client, *rand.Rand) (string, error) {
	return func(ctx context.Context, c rueidis.Client, rng *rand.Rand) (string, error) {
		k, d := key(rng), Between(rng, 20*time.Millisecond, 500*time.Millisecond)
		then, err := c.Do(ctx, c.B().Dump().Key(k).Build()).ToString()
		if rueidis.IsRedisNil(err) {
			return k + " is empty", nil
		}
		if err != nil {
			return k, fmt.Errorf("DUMP: %w", err)
		}
		Pause(ctx, d)
		return fmt.Sprintf("%s lost %s", k, d), c.Do(ctx, c.B().Restore().Key(k).Ttl(0).SerializedValue(then).Replace().Build()).Error()
	}
}

// starve sets a limit below what is in use, so that every write is refused, for a while.
func starve(ctx context.Context, r Redis, rng *rand.Rand) (string, error) {
	d := Between(rng, 200*time.Millisecond, 5*time.Second)
	c, err := r.Redis()
	if err != nil {
		return "", err
	}
	defer c.Close()
	undone := context.WithoutCancel(ctx)
	set := func(parameter, value string) error {
		return c.Do(undone, c.B().ConfigSet().ParameterValue().ParameterValue(parameter, value).Build()).Error()
	}
	err = errors.Join(set("maxmemory-policy", "noeviction"), set("maxmemory", "1mb"))
	Pause(ctx, d)
	return "for " + d.String(), errors.Join(err, set("maxmemory", "0"))
}
