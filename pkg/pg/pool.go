// Package pg is the suite's way to PostgreSQL: the pool, transactions, migrations, and the one place
// that reads SQLSTATE. Statements live with the packages that own the tables.
package pg

import (
	"context"
	"errors"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// Options of a pool.
type Options struct {
	// AppName is shown in pg_stat_activity.
	AppName string
	// MaxConns bounds the pool; 0 means the URL's pool_max_conns, else pgx's default (4, or one per CPU if more).
	MaxConns int32
	// Pooled: a transaction-pooling proxy stands between. No prepared statements then, and the
	// timeouts below are not sent, since such proxies refuse unknown start-up parameters: set them on
	// the role.
	Pooled bool
	// StatementTimeout ends a statement in the server (reason STATEMENT_TIMEOUT); 0 leaves the server's.
	StatementTimeout time.Duration
	// LockTimeout ends the wait for a lock (reason LOCK_TIMEOUT); 0 leaves the server's.
	LockTimeout time.Duration
	// IdleInTransactionTimeout ends a session that holds a transaction and does nothing; 0 leaves the server's.
	IdleInTransactionTimeout time.Duration
	// Configure, if set, changes the pool's configuration last (tracers, AfterConnect, …).
	Configure func(*pgxpool.Config)
}

// connectTimeout bounds one attempt to connect where the URL sets no connect_timeout.
const connectTimeout = 5 * time.Second

// Open makes a pool. It does not connect: a service starts without its database and is unready until
// it answers. The error never contains the URL, which has a password.
func Open(ctx context.Context, url string, o Options) (*pgxpool.Pool, error) {
	c, err := pgxpool.ParseConfig(url)
	if err != nil {
		return nil, errors.New("pg: the database URL does not parse") // the cause quotes the URL
	}
	if o.MaxConns > 0 {
		c.MaxConns = o.MaxConns
	}
	if c.ConnConfig.ConnectTimeout == 0 {
		c.ConnConfig.ConnectTimeout = connectTimeout
	}
	params := c.ConnConfig.RuntimeParams
	if o.AppName != "" {
		params["application_name"] = o.AppName
	}
	if o.Pooled {
		c.ConnConfig.DefaultQueryExecMode = pgx.QueryExecModeExec
	} else {
		setTimeout(params, "statement_timeout", o.StatementTimeout)
		setTimeout(params, "lock_timeout", o.LockTimeout)
		setTimeout(params, "idle_in_transaction_session_timeout", o.IdleInTransactionTimeout)
	}
	if o.Configure != nil {
		o.Configure(c)
	}
	pool, err := pgxpool.NewWithConfig(ctx, c)
	if err != nil {
		return nil, Translate(err)
	}
	return pool, nil
}

// setTimeout writes whole milliseconds, the unit of these parameters; less than one counts as one,
// because 0 would switch the timeout off.
func setTimeout(params map[string]string, name string, d time.Duration) {
	if d > 0 {
		params[name] = strconv.FormatInt(max(d.Milliseconds(), 1), 10)
	}
}
