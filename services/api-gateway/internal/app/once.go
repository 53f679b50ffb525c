package app

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/sametick/sametick/pkg/idempotency"
	"github.com/sametick/sametick/services/api-gateway/internal/store"
)

// again is what services ask for after a change. In a unit that is before the commit, so once does it again after.
type again struct {
	do    func()
	asked atomic.Int64
}

func (a *again) ask() {
	a.asked.Add(1)
	a.do()
}

// once does calls with a key by the store.
type once struct {
	store *store.Store
	after []*again
}

// Once implements idempotency.Once.
func (o once) Once(ctx context.Context, c idempotency.Claim, do func(context.Context) ([]byte, error)) ([]byte, []byte, error) {
	for _, a := range o.after {
		before := a.asked.Load()
		defer func() { // also after an error: its outcome may be unknown
			if a.asked.Load() != before { // by this call, or at worst by another
				a.do()
			}
		}()
	}
	return o.store.Once(ctx, c, do)
}

// Forget implements idempotency.Once. What is not forgotten now is later.
func (o once) Forget(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	_ = o.store.ForgetKeys(ctx)
}
