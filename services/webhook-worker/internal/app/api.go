package app

import (
	"github.com/sametick/sametick/pkg/idempotency"
	"github.com/sametick/sametick/pkg/lifecycle"
	"github.com/sametick/sametick/pkg/rpc"
	"github.com/sametick/sametick/services/webhook-worker/internal/endpoints"
	"github.com/sametick/sametick/services/webhook-worker/internal/feed"
	"github.com/sametick/sametick/services/webhook-worker/internal/grpcapi"
	"github.com/sametick/sametick/services/webhook-worker/internal/signing"
)

// api serves WebhookService to api-gateway.
func (w *worker) api() *lifecycle.Server {
	service := endpoints.NewService(endpoints.Options{
		Store: w.store.Store, History: w.store.Store, Ring: w.ring, Log: feed.Positions{Log: w.positions}, Most: w.c.MaxEndpoints, Changed: w.waker.Wake,
		Checks: endpoints.Checks{URL: w.guard.CheckURL, Conditions: w.compiler, Secret: func(text string) error {
			_, err := signing.Parse(text)
			return err
		}},
	})
	return rpc.NewServer(rpc.ServerOptions{
		Addr: w.c.GRPCAddr, Log: w.log, Registry: w.metrics.registry, Tracer: w.tracing.Provider(),
		Unary: grpcapi.Unary(w.c.InternalToken.Reveal(), idempotency.NewClaims(w.pool, nil)), Register: grpcapi.New(service).Register,
	})
}
