package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/sametick/sametick/deploy/bench/internal/rig"
)

// without are the indexes that only the API reads by: of GET /api/events and of GET /api/audit.
func without() []struct{ name, database, drop string } {
	return []struct{ name, database, drop string }{
		{"without the indexes of events", "without_events", `DROP INDEX sametick.events_kind_idx, sametick.events_actor_idx`},
		{"without the indexes of audit entries", "without_entries",
			`DROP INDEX sametick.audit_entries_actor_idx, sametick.audit_entries_entity_idx, sametick.audit_entries_request_idx`},
	}
}

// variant is api-gateway without something that it has.
type variant struct {
	name    string
	gateway *rig.Process
}

// startVariants runs one over the same database, and one for each of without over a database of its own.
func (b *bench) startVariants(ctx context.Context) (out []variant, err error) {
	defer func() {
		for _, v := range out {
			if err != nil {
				err = errors.Join(err, v.gateway.Stop())
			}
		}
	}()
	unlimited, err := b.startGateway(ctx, b.database, "RATE_LIMIT_ORG=0", "RATE_LIMIT_CALLER=0")
	if err != nil {
		return nil, err
	}
	out = append(out, variant{"without rate limits", unlimited})
	for _, w := range without() {
		database, err := b.bareDatabase(ctx, w.database, w.drop)
		if err != nil {
			return out, err
		}
		bare, err := b.startGateway(ctx, database)
		if err != nil {
			return out, err
		}
		out = append(out, variant{w.name, bare})
	}
	return out, nil
}

// bareDatabase makes a database that lacks what is dropped, and gives its URL for api-gateway.
func (b *bench) bareDatabase(ctx context.Context, name, drop string) (string, error) {
	admin, err := b.rig.Database(ctx, name, "outbox-relay", "api-gateway")
	if err != nil {
		return "", err
	}
	conn, err := pgx.Connect(ctx, admin)
	if err != nil {
		return "", err
	}
	_, err = conn.Exec(ctx, drop)
	if err = errors.Join(err, conn.Close(ctx)); err != nil {
		return "", err
	}
	return b.rig.As(ctx, admin, role)
}

// compared are the contenders of --costs. Of each the processor time of a record is told too, which other programs on the
// machine disturb less than the rate.
func (b *bench) compared() []contender {
	var list []contender
	for _, v := range append([]variant{{"CreateRecord", b.gateway}}, b.variants...) {
		list = append(list, contender{v.name, func(ctx context.Context, n int) (float64, error) {
			before, err := b.processors(v.gateway)
			if err != nil {
				return 0, err
			}
			rate, err := b.createAt(ctx, v.gateway, n)
			if err != nil {
				return 0, err
			}
			after, err := b.processors(v.gateway)
			if err != nil {
				return 0, err
			}
			b.report.Add("processor time of a record, "+leg(n), v.name, "µs", (after-before)*1e6/(rate*float64(b.seconds)))
			return rate, nil
		}})
	}
	return list
}

// processors is the processor time, in seconds, of everything that a create needs.
func (b *bench) processors(gateway *rig.Process) (float64, error) {
	own, err := gateway.CPU()
	if err != nil {
		return 0, err
	}
	postgres, redis, err := b.rig.ServersCPU()
	if err != nil {
		return 0, fmt.Errorf("processor time: %w", err)
	}
	return (own + postgres + redis).Seconds(), nil
}
