package store

import (
	"context"
	"sync"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/sametick/sametick/pkg/pg"
)

// idBlock is how many ids are drawn at once: one round trip in idBlock creates.
const idBlock = 256

// ids hands out record ids, drawn ahead from the sequence.
type ids struct {
	pool *pgxpool.Pool
	mu   sync.Mutex
	free []int64
	// filling lets one caller draw while the others wait for what it draws.
	filling chan struct{}
}

func newIDs(pool *pgxpool.Pool) *ids { return &ids{pool: pool, filling: make(chan struct{}, 1)} }

func (i *ids) next(ctx context.Context) (int64, error) {
	for {
		if id, ok := i.take(); ok {
			return id, nil
		}
		if unitOf(ctx) != nil { // whose turn it is may wait for this unit's connection
			if err := i.fill(ctx); err != nil {
				return 0, pg.Translate(err)
			}
			continue
		}
		select {
		case i.filling <- struct{}{}:
		case <-ctx.Done():
			return 0, pg.Translate(ctx.Err())
		}
		err := i.fill(ctx)
		<-i.filling
		if err != nil {
			return 0, pg.Translate(err)
		}
	}
}

func (i *ids) take() (int64, bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if len(i.free) == 0 {
		return 0, false
	}
	id := i.free[0]
	i.free = i.free[1:]
	return id, true
}

// fill draws a block, unless the one who had the turn before has left some.
func (i *ids) fill(ctx context.Context) error {
	i.mu.Lock()
	left := len(i.free)
	i.mu.Unlock()
	if left > 0 {
		return nil
	}
	var from interface {
		Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
	} = i.pool
	if unit := unitOf(ctx); unit != nil { // who holds one connection must not wait for another
		from = unit
	}
	rows, err := from.Query(ctx, `SELECT nextval('sametick.record_ids') FROM generate_series(1, $1)`, idBlock)
	if err != nil {
		return err
	}
	drawn, err := pgx.CollectRows(rows, pgx.RowTo[int64])
	if err != nil {
		return err
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	i.free = append(i.free, drawn...)
	return nil
}
