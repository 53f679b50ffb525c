package main

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"

	"github.com/sametick/sametick/deploy/bench/internal/report"
	"github.com/sametick/sametick/deploy/bench/internal/rig"
	promptsv1 "github.com/sametick/sametick/proto/gen/go/sametick/prompts/v1"
	recordsv1 "github.com/sametick/sametick/proto/gen/go/sametick/records/v1"
	wirev1 "github.com/sametick/sametick/proto/gen/go/sametick/wire/v1"
)

// writer is one caller of api-gateway with a connection of its own.
type writer struct {
	conn    *grpc.ClientConn
	records recordsv1.RecordServiceClient
	token   string
}

func (b *bench) dial(gateway *rig.Process, org int64) (*writer, error) {
	token, err := b.tokens.For(org)
	if err != nil {
		return nil, err
	}
	conn, err := grpc.NewClient(gateway.GRPC, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, fmt.Errorf("connect to api-gateway: %w", err)
	}
	return &writer{conn: conn, records: recordsv1.NewRecordServiceClient(conn), token: token}, nil
}

func (b *bench) dialSome(gateway *rig.Process, org int64, n int) (list []*writer, end func() error, err error) {
	end = func() (err error) {
		for _, w := range list {
			err = errors.Join(err, w.conn.Close())
		}
		return err
	}
	for range n {
		w, err := b.dial(gateway, org)
		if err != nil {
			return nil, nil, errors.Join(err, end())
		}
		list = append(list, w)
	}
	return list, end, nil
}

// names gives every record another one: two writes are never the same question.
var names atomic.Int64

// create makes a task that no write before was like.
func (w *writer) create(ctx context.Context) error {
	ctx = metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+w.token)
	_, err := w.records.CreateRecord(ctx, &recordsv1.CreateRecordRequest{
		Type: "task", Name: fmt.Sprint("Quarterly review ", names.Add(1)),
		Attributes: &wirev1.Json{Text: `{"priority": "high", "estimate_hours": 12, "tags": ["review", "finance"]}`},
	})
	if err != nil {
		return fmt.Errorf("create a record: %w", err)
	}
	return nil
}

// hook makes one through api-gateway.
func (b *bench) hook(ctx context.Context, gateway *rig.Process, org int64, req *promptsv1.CreateHookRequest) error {
	w, err := b.dial(gateway, org)
	if err != nil {
		return err
	}
	ctx = metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+w.token)
	_, err = promptsv1.NewPromptServiceClient(w.conn).CreateHook(ctx, req)
	return errors.Join(err, w.conn.Close())
}

// writeAll lets writers create records one after the other for a while, and tells how many they made in what time.
func writeAll(ctx context.Context, list []*writer, length time.Duration) (n int, took time.Duration, err error) {
	var made atomic.Int64
	start := time.Now()
	group, ctx := errgroup.WithContext(ctx)
	for _, w := range list {
		group.Go(func() error {
			for time.Since(start) < length {
				if err := w.create(ctx); err != nil {
					return err
				}
				made.Add(1)
			}
			return nil
		})
	}
	err = group.Wait()
	return int(made.Load()), time.Since(start), err
}

// paced is what writes at a fixed rate took, in ms, from when each was due.
type paced struct {
	p50, p99, max float64
	writes        int
	// late are those that began more than 5 ms after they were due: then the bench itself was held up.
	late int
	cpu  float64 // µs a write, with the warm-up's
}

// writePaced creates records at a fixed rate, whether those before are done or not, and leaves out the warm-up.
func writePaced(ctx context.Context, list []*writer, perSecond int, warmup, length time.Duration) (p paced, err error) {
	step := time.Second / time.Duration(perSecond)
	total := int((warmup + length) / step)
	took, late := make([]float64, total), make([]bool, total)
	group, groupCtx := errgroup.WithContext(ctx)
	start := time.Now()
	for i := range total {
		due := start.Add(time.Duration(i) * step)
		if pause := time.Until(due); pause > 0 {
			if err := wait(groupCtx, pause); err != nil {
				break
			}
		}
		group.Go(func() error {
			late[i] = time.Since(due) > 5*time.Millisecond
			err := list[i%len(list)].create(groupCtx)
			took[i] = float64(time.Since(due)) / float64(time.Millisecond)
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return p, err
	}
	skip := int(warmup / step)
	took = took[skip:]
	for _, l := range late[skip:] {
		if l {
			p.late++
		}
	}
	p.p50, p.p99, p.max, p.writes = report.Quantile(took, 0.5), report.Quantile(took, 0.99), report.Quantile(took, 1), len(took)
	return p, nil
}
