package main

import (
	"context"
	"errors"
	"fmt"
	"syscall"

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

// compared are the contenders of --costs.
func (b *bench) compared() []contender {
	var list []contender
	for _, v := range append([]variant{{"CreateRecord", b.gateway}}, b.variants...) {
		list = append(list, contender{v.name, v.gateway, func(ctx context.Context, n int) (float64, error) { return b.createAt(ctx, v.gateway, n) }})
	}
	return list
}

// spent is processor time since the start, in seconds: other programs on the machine disturb it less than a rate.
type spent struct{ gateway, servers, client float64 }

// spent of everything that a contender needs; gateway is nil for pgbench, which is a child of this process.
func (b *bench) spent(gateway *rig.Process) (spent, error) {
	who := syscall.RUSAGE_CHILDREN
	var s spent
	if gateway != nil {
		who = syscall.RUSAGE_SELF
		own, err := gateway.CPU()
		if err != nil {
			return s, err
		}
		s.gateway = own.Seconds()
	}
	var usage syscall.Rusage
	if err := syscall.Getrusage(who, &usage); err != nil {
		return s, fmt.Errorf("processor time of the clients: %w", err)
	}
	s.client = float64(usage.Utime.Nano()+usage.Stime.Nano()) / 1e9
	postgres, redis, err := b.rig.ServersCPU()
	if err != nil {
		return s, fmt.Errorf("processor time: %w", err)
	}
	s.servers = (postgres + redis).Seconds()
	return s, nil
}

// timed runs a contender and tells what a record of it costs.
func (b *bench) timed(ctx context.Context, c contender, clients int, count bool) (float64, error) {
	before, err := b.spent(c.gateway)
	if err != nil {
		return 0, err
	}
	rate, err := c.run(ctx, clients)
	if err != nil {
		return 0, err
	}
	after, err := b.spent(c.gateway)
	if err != nil || !count {
		return rate, err
	}
	add := func(part string, seconds float64) {
		b.report.Add("processor time of a record, "+leg(clients), c.name+": "+part, "µs", seconds*1e6/(rate*float64(b.seconds)))
	}
	if c.gateway != nil {
		add("api-gateway", after.gateway-before.gateway)
	}
	add("Postgres, Redis", after.servers-before.servers)
	add("clients", after.client-before.client)
	return rate, nil
}
