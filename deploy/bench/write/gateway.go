package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"

	"github.com/sametick/sametick/deploy/bench/internal/report"
	"github.com/sametick/sametick/deploy/bench/internal/rig"
	recordsv1 "github.com/sametick/sametick/proto/gen/go/sametick/records/v1"
	wirev1 "github.com/sametick/sametick/proto/gen/go/sametick/wire/v1"
)

const (
	org  = 1
	role = "sametick_api"
)

// build starts everything: servers, schema, api-gateway, and the script that pgbench will run.
func build(ctx context.Context, opt options, log io.Writer) (_ *bench, err error) {
	r, err := rig.Start(ctx, log, "outbox-relay", "api-gateway")
	if err != nil {
		return nil, err
	}
	b := &bench{options: opt, rig: r, log: log}
	defer func() {
		if err != nil {
			err = errors.Join(err, b.close())
		}
	}()
	facts, err := r.Facts(ctx)
	if err != nil {
		return nil, err
	}
	admin, err := r.Database(ctx, "write_path", "outbox-relay", "api-gateway")
	if err != nil {
		return nil, err
	}
	if b.database, err = r.As(ctx, admin, role); err != nil {
		return nil, err
	}
	if b.tokens, err = rig.NewTokens(); err != nil {
		return nil, err
	}
	if b.pgbench, err = b.preparePgbench(ctx, admin); err != nil {
		return nil, err
	}
	b.report = &report.Report{
		Title: "Sametick write bench", At: time.Now().UTC(),
		Facts: append(facts, report.Fact{Name: "pgbench", Value: b.pgbench.version}),
		Notes: []string{"pgbench runs these statements, captured from api-gateway:\n" + b.pgbench.shown},
	}
	if b.gateway, err = b.startGateway(ctx, b.database); err == nil && opt.costs {
		b.variants, err = b.startVariants(ctx)
	}
	return b, err
}

func (b *bench) startGateway(ctx context.Context, database string, env ...string) (*rig.Process, error) {
	p, err := b.rig.Service("api-gateway", append([]string{"DATABASE_URL=" + database,
		"TOKEN_SIGNING_KEY=" + b.tokens.SigningKey, "TOKEN_PUBLIC_KEYS=" + b.tokens.PublicKeys}, env...)...)
	if err != nil {
		return nil, err
	}
	if err := p.Ready(ctx); err != nil {
		return nil, errors.Join(err, p.Stop())
	}
	return p, nil
}

func (b *bench) close() error {
	var err error
	if b.gateway != nil {
		err = b.gateway.Stop()
	}
	for _, v := range b.variants {
		err = errors.Join(err, v.gateway.Stop())
	}
	return errors.Join(err, b.rig.Close())
}

// client is one caller with a connection of its own.
type client struct {
	conn    *grpc.ClientConn
	records recordsv1.RecordServiceClient
	token   string
}

func (b *bench) dial(addr string) (*client, error) {
	token, err := b.tokens.For(org)
	if err != nil {
		return nil, err
	}
	conn, err := grpc.NewClient(addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, fmt.Errorf("connect to api-gateway: %w", err)
	}
	return &client{conn: conn, records: recordsv1.NewRecordServiceClient(conn), token: token}, nil
}

// create makes the record of this bench.
func (c *client) create(ctx context.Context) (*recordsv1.Record, error) {
	ctx = metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+c.token)
	r, err := c.records.CreateRecord(ctx, &recordsv1.CreateRecordRequest{
		Type: "task", Name: "Quarterly review",
		Attributes: &wirev1.Json{Text: `{"priority": "high", "estimate_hours": 12, "tags": ["review", "finance"]}`},
	})
	if err != nil {
		return nil, fmt.Errorf("create a record: %w", err)
	}
	return r, nil
}

// create lets n clients create records for the length of a measurement and gives the rate.
func (b *bench) create(ctx context.Context, n int) (float64, error) {
	return b.createAt(ctx, b.gateway, n)
}

func (b *bench) createAt(ctx context.Context, gateway *rig.Process, n int) (float64, error) {
	clients := make([]*client, n)
	for i := range clients {
		c, err := b.dial(gateway.GRPC)
		if err != nil {
			return 0, err
		}
		defer func() { _ = c.conn.Close() }()
		if _, err := c.create(ctx); err != nil { // connects
			return 0, err
		}
		clients[i] = c
	}
	var made atomic.Int64
	end := time.Now().Add(time.Duration(b.seconds) * time.Second)
	group, ctx := errgroup.WithContext(ctx)
	for _, c := range clients {
		group.Go(func() error {
			for time.Now().Before(end) {
				if _, err := c.create(ctx); err != nil {
					return err
				}
				made.Add(1)
			}
			return nil
		})
	}
	if b.profile {
		group.Go(func() error { return gateway.Profile(ctx, b.seconds, filepath.Join(b.out, "api-gateway.pprof")) })
	}
	if err := group.Wait(); err != nil {
		return 0, err
	}
	return float64(made.Load()) / float64(b.seconds), nil
}
