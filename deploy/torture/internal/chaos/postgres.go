package chaos

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/jackc/pgx/v5"
)

// Postgres is what the campaigns need of the database server.
type Postgres interface {
	CrashPostgres(ctx context.Context, between func()) error
	Postgres(ctx context.Context) (*pgx.Conn, error)
}

// Database is the campaign against the server as a whole.
func Database(p Postgres, every time.Duration) Campaign {
	crash := func(ctx context.Context, rng *rand.Rand) (string, error) {
		d := Between(rng, 0, 3*time.Second)
		return "down for " + d.String(), p.CrashPostgres(context.WithoutCancel(ctx), func() { Pause(ctx, d) })
	}
	return Campaign{Name: "postgres", Every: every, Faults: []Fault{
		{Name: "crash", Weight: 1, Kills: 1, Do: crash},
		{Name: "crash that forgets transaction ids", Weight: 1, Kills: 1, Do: func(ctx context.Context, rng *rand.Rand) (string, error) {
			burnt := make(chan int, 1)
			burning, stop := context.WithTimeout(ctx, 5*time.Second)
			defer stop()
			go func() { burnt <- burnIDs(burning, p) }()
			Pause(ctx, Between(rng, 50*time.Millisecond, 200*time.Millisecond))
			detail, err := crash(ctx, rng)
			stop()
			return fmt.Sprintf("%d ids burnt, %s", <-burnt, detail), err
		}},
	}}
}

// burnIDs draws transaction ids and rolls them back until the server dies. The last of them are not in
// the flushed log, so Postgres gives the same ids out again after the crash: a cursor in memory that
// took them for settled misses the transactions that get them then.
func burnIDs(ctx context.Context, p Postgres) (n int) {
	conn, err := p.Postgres(ctx)
	if err != nil {
		return 0 // the server is down: another fault's doing
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	for ctx.Err() == nil {
		if _, err := conn.Exec(ctx, `BEGIN; SELECT pg_current_xact_id(); ROLLBACK`); err != nil {
			break
		}
		n++
	}
	return n
}

// Sessions is the campaign against single sessions, whoever's they are: writers', relays' pools, the
// session that holds the relay's lock.
func Sessions(p Postgres, every time.Duration) Campaign {
	return Campaign{Name: "postgres session", Every: every, Faults: []Fault{
		{Name: "terminated", Weight: 3, Kills: 1, Do: func(ctx context.Context, rng *rand.Rand) (string, error) {
			return terminateSessions(ctx, p, `ORDER BY md5(pid::text || $1) LIMIT 1`, rng)
		}},
		{Name: "of a lock terminated", Weight: 2, Kills: 1, Do: func(ctx context.Context, rng *rand.Rand) (string, error) {
			return terminateSessions(ctx, p, `AND pid IN (SELECT pid FROM pg_locks WHERE locktype = 'advisory') ORDER BY md5(pid::text || $1) LIMIT 1`, rng)
		}},
		{Name: "all terminated", Weight: 1, Kills: 1, Do: func(ctx context.Context, rng *rand.Rand) (string, error) {
			return terminateSessions(ctx, p, `AND $1::text IS NOT NULL`, rng)
		}},
	}}
}

func terminateSessions(ctx context.Context, p Postgres, which string, rng *rand.Rand) (string, error) {
	salt := fmt.Sprint(rng.Uint64())
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	conn, err := p.Postgres(ctx)
	if err != nil {
		return "nobody: the server is down", nil
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	rows, err := conn.Query(ctx, `SELECT coalesce(nullif(application_name, ''), usename) FROM
		(SELECT pid, application_name, usename FROM pg_stat_activity
		  WHERE backend_type = 'client backend' AND pid <> pg_backend_pid() AND datname = current_database() `+which+`) s
		WHERE pg_terminate_backend(pid)`, salt)
	if err != nil {
		return "nobody: the server is down", nil
	}
	names, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return "nobody: the server is down", nil
	}
	return fmt.Sprintf("%d: %.200q", len(names), names), nil
}
