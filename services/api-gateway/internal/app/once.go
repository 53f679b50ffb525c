package app

import (
	"context"
	"time"

	"github.com/sametick/sametick/services/api-gateway/internal/store"
)

// once lets the gRPC side do calls once by the store.
type once struct{ store *store.Store }

// Once implements grpcapi.Once.
func (o once) Once(ctx context.Context, orgID int64, caller string, keyHash, requestHash []byte, do func(context.Context) ([]byte, error)) ([]byte, []byte, error) {
	return o.store.Once(ctx, store.Claim{OrgID: orgID, Caller: caller, KeyHash: keyHash, RequestHash: requestHash}, do)
}

// Forget implements grpcapi.Once. What is not forgotten now is later.
func (o once) Forget(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	_ = o.store.ForgetKeys(ctx)
}
