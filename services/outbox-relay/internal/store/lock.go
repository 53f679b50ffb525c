package store

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sametick/sametick/pkg/errs"
	"github.com/sametick/sametick/pkg/pg"
)

const (
	// The server ends the lock's session when it hears nothing for lockPatience: a leader that was
	// stopped, or whose machine is gone, is replaced within two seconds.
	lockPatience = "1500"
	// Heartbeat is how often a held lock must be renewed.
	Heartbeat = 400 * time.Millisecond
)

// Lock is the leader's advisory lock, held by a session of its own. It only saves work: two leaders
// are harmless.
type Lock struct{ conn *pgx.Conn }

const tryLockSQL = `SELECT pg_try_advisory_lock(hashtext('sametick'), hashtext('outbox-relay'))`

// TryLock takes the lock, or gives nil when another relay has it.
func TryLock(ctx context.Context, url string) (*Lock, error) {
	conn, err := connect(ctx, url, "outbox-relay lock", map[string]string{"idle_session_timeout": lockPatience})
	if err != nil {
		return nil, err
	}
	l := &Lock{conn}
	var got bool
	if err := conn.QueryRow(ctx, tryLockSQL).Scan(&got); err != nil {
		l.Close()
		return nil, pg.Translate(err)
	}
	if !got {
		l.Close()
		return nil, nil
	}
	return l, nil
}

// Renew errs when the lock is lost.
func (l *Lock) Renew(ctx context.Context) error {
	_, err := l.conn.Exec(ctx, "SELECT 1")
	return errs.Wrap(err, errs.Unavailable, "LOCK_LOST", "the session that holds the leader's lock has ended")
}

// Close gives the lock up.
func (l *Lock) Close() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = l.conn.Close(ctx)
}
