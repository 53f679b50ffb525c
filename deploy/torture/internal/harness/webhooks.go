package harness

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sametick/sametick/deploy/torture/internal/chaos"
	"github.com/sametick/sametick/deploy/torture/internal/double"
	"github.com/sametick/sametick/deploy/torture/internal/hooks"
	"github.com/sametick/sametick/deploy/torture/internal/judge"
	"github.com/sametick/sametick/deploy/torture/internal/rig"
	"github.com/sametick/sametick/pkg/auth"
	"github.com/sametick/sametick/pkg/keyring"
	"github.com/sametick/sametick/pkg/rpc"
	webhooksv1 "github.com/sametick/sametick/proto/gen/go/sametick/webhooks/v1"
)

// webhooks is the far end of the workers.
type webhooks struct {
	path      string
	record    *hooks.Record
	receivers *hooks.Receivers
	endpoints []*hooks.Endpoint
}

// openWebhooks makes the tables and starts the receivers. Beside a double the endpoints are known by now: it asks nobody.
func (r *run) openWebhooks(ctx context.Context) error {
	if err := rig.Build(ctx, r.o.Root, r.o.Dir, workerPackage); err != nil {
		return err
	}
	migrate := exec.CommandContext(ctx, filepath.Join(r.o.Dir, workerName), "migrate")
	migrate.Env = []string{"DATABASE_URL=" + r.servers.PostgresURL}
	if out, err := migrate.CombinedOutput(); err != nil {
		return fmt.Errorf("migrate webhooks: %w: %s", err, out)
	}
	w := &webhooks{path: filepath.Join(r.o.Dir, "webhooks"), endpoints: hooks.Plan(orgs(), types(), hot)}
	var err error
	if w.record, err = hooks.CreateRecord(w.path); err != nil {
		return err
	}
	if w.receivers, err = hooks.Listen(ctx, w.record); err != nil {
		return errors.Join(err, w.record.Close())
	}
	r.hooks = w
	for n, e := range w.endpoints {
		w.receivers.Locate(e, n)
		if r.o.Worker == Real {
			continue
		}
		secret := make([]byte, 32)
		_, _ = rand.Read(secret) // never fails
		e.ID, e.Secret = int64(n)+1, "whsec_"+base64.StdEncoding.EncodeToString(secret)
		if err := w.receivers.Add(e); err != nil {
			return err
		}
	}
	return nil
}

// close ends the receivers. It may be called twice.
func (w *webhooks) close() error {
	if w == nil || w.receivers == nil {
		return nil
	}
	err := errors.Join(w.receivers.Close(), w.record.Close())
	w.receivers = nil
	return err
}

// makeEndpoints asks a real worker for the endpoints of the plan, as their organisations' owners.
func (r *run) makeEndpoints(ctx context.Context) (err error) {
	if r.hooks == nil || r.o.Worker != Real {
		return nil
	}
	conn, err := rpc.Dial(r.suite.webhooks, rpc.ClientOptions{Token: r.suite.internal, Timeout: 10 * time.Second})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	client := webhooksv1.NewWebhookServiceClient(conn)
	for _, e := range r.hooks.endpoints {
		who := rpc.WithCaller(ctx, rpc.Caller{OrgID: e.OrgID, Subject: auth.Subject(auth.SubjectUser, 1), Scopes: auth.ScopesOf(auth.WebhooksManage).String()})
		made, err := client.CreateEndpoint(who, &webhooksv1.CreateEndpointRequest{Url: e.URL, Ordered: e.Ordered, AggregateTypes: e.Types, AggregateIds: e.IDs})
		if err != nil {
			return fmt.Errorf("make an endpoint: %w", err)
		}
		e.ID, e.Secret = made.GetEndpoint().GetId(), made.GetSecret()
		if err := r.hooks.receivers.Add(e); err != nil {
			return err
		}
	}
	return nil
}

const (
	workerName    = "webhook-worker"
	workerPackage = "./services/webhook-worker/cmd/webhook-worker"
)

// addWorkers prepares the workers, real or double. addresses are two for each.
func (s *suite) addWorkers(ctx context.Context, r *run, addresses []string, common []string) error {
	if r.o.Worker != Real {
		for n := range r.o.Workers {
			w, err := double.NewWorker(fmt.Sprintf("worker %d", n), r.o.Worker, r.servers, r.hooks.endpoints)
			if err != nil {
				return err
			}
			s.workers = append(s.workers, w)
		}
		return nil
	}
	database, err := roleURL(ctx, r.servers, "sametick_webhook")
	if err != nil {
		return err
	}
	// Leases that are short, for the time of a run; memory that is small for one of them, so that most waits in the table.
	common = append(common, "DATABASE_URL="+database, "RELAY_ADDR="+s.front.Address(), "ENCRYPTION_KEYS="+keyring.Generate("torture"),
		"EGRESS_ALLOW=127.0.0.0/8", "EGRESS_HTTP=true", "ATTEMPT_TIMEOUT=1s", "LEASE_TTL=4500ms")
	s.webhooks = addresses[0]
	for n := range r.o.Workers {
		grpc, ops := addresses[2*n], addresses[2*n+1]
		s.add(&s.workers, fmt.Sprintf("worker %d", n), filepath.Join(r.o.Dir, workerName), ops, r.o.Dir,
			append(common, "GRPC_ADDR="+grpc, "OPS_ADDR="+ops, "EVENT_MEMORY="+[]string{"134217728", "1048576"}[n%2]))
	}
	return nil
}

// webhookState is how far deliveries have come.
type webhookState struct{ positions, scheduled, waiting, later int64 }

// drainWebhooks waits until everything is scheduled and delivered, or nothing moves. Receivers are well by now. Workers end,
// gently, before retries are made due, so that none puts one off meanwhile.
func (r *run) drainWebhooks(ctx context.Context) error {
	if r.hooks == nil {
		return nil
	}
	conn, err := r.servers.Postgres(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(ctx) }()
	still := quiet
	if r.o.Worker != Real {
		still = quietDouble
	}
	for range 3 {
		for _, w := range r.suite.workers {
			if err := w.Terminate(20 * time.Second); err != nil {
				r.report.Unclean = append(r.report.Unclean, err.Error())
			}
		}
		if _, err := chaos.Hurry(ctx, r.servers); err != nil {
			return fmt.Errorf("make retries due: %w", err)
		}
		if err := errors.Join(r.suite.start(ctx), r.suite.awaitReady(ctx)); err != nil {
			return err
		}
		var s webhookState
		err := settle(ctx, still, func() (any, bool, error) {
			var err error
			s, err = lookAtWebhooks(ctx, conn)
			return s, s.scheduled == s.positions && s.waiting == s.later, err
		})
		if err != nil || s.waiting == 0 && s.scheduled == s.positions {
			return err
		}
	}
	return nil // what is missing is the judge's to count
}

func lookAtWebhooks(ctx context.Context, conn *pgx.Conn) (s webhookState, err error) {
	err = conn.QueryRow(ctx, `SELECT (SELECT count(*) FROM sametick.positions WHERE shard IN (SELECT shard FROM sametick.consumer_cursors WHERE consumer = 'webhooks')),
		(SELECT coalesce(sum(position), 0) FROM sametick.consumer_cursors WHERE consumer = 'webhooks'),
		(SELECT count(*) FROM sametick.webhook_queue), (SELECT count(*) FROM sametick.webhook_queue WHERE due_at > now() + interval '10 s')`).
		Scan(&s.positions, &s.scheduled, &s.waiting, &s.later)
	if err != nil {
		return s, fmt.Errorf("look at webhooks: %w", err)
	}
	return s, nil
}

// judgeWebhooks compares what the receivers got, and what history says, with what was committed.
func (r *run) judgeWebhooks(ctx context.Context, conn judge.Querier, facts *judge.Facts, log *judge.Log) (verdicts []*judge.Verdict, err error) {
	if err := r.hooks.close(); err != nil {
		return nil, err
	}
	file, err := os.Open(r.hooks.path)
	if err != nil {
		return nil, fmt.Errorf("open the record of webhooks: %w", err)
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	d := judge.NewDeliveries(facts, log, r.hooks.endpoints)
	if err := hooks.Read(file, d.Take); err != nil {
		return nil, err
	}
	if err := judge.LoadHistory(ctx, conn, d); err != nil {
		return nil, err
	}
	verdicts, r.report.Webhooks = d.Finish()
	return verdicts, nil
}
