// Command invoices is a service of somebody else: it has its own table, knows nothing of Sametick but
// pkg/outbox, and records its events in its own transactions.
//
//	source .dev/env && go run ./deploy/examples/invoices 7
package main

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"os"
	"strconv"

	_ "github.com/jackc/pgx/v5/stdlib" // the driver "pgx"; any driver of Postgres does

	"github.com/sametick/sametick/pkg/outbox"
)

func main() {
	if err := run(context.Background(), os.Args[1:], os.Getenv("DATABASE_URL")); err != nil {
		fmt.Fprintln(os.Stderr, "invoices:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, url string) error {
	if len(args) != 1 {
		return fmt.Errorf("usage: invoices NUMBER")
	}
	id, err := strconv.ParseInt(args[0], 10, 64)
	if err != nil {
		return fmt.Errorf("%q is no invoice number", args[0])
	}
	db, err := sql.Open("pgx", url)
	if err != nil {
		return fmt.Errorf("DATABASE_URL: %w", err)
	}
	defer func() { _ = db.Close() }()
	if _, err := db.ExecContext(ctx, `CREATE TABLE IF NOT EXISTS invoices (id bigint PRIMARY KEY, paid boolean NOT NULL DEFAULT false)`); err != nil {
		return fmt.Errorf("make the table: %w", err)
	}
	event, err := Pay(ctx, db, 1, id)
	if err != nil {
		return err
	}
	fmt.Printf("invoice %d is paid, event %d\n", id, event)
	return nil
}

// Pay marks an invoice as paid and answers the id of the event that says so. Whatever fails, neither
// stays.
func Pay(ctx context.Context, db *sql.DB, org, id int64) (event int64, err error) {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return 0, fmt.Errorf("begin: %w", err)
	}
	defer func() { _ = tx.Rollback() }() // nothing after a commit
	const pay = `INSERT INTO invoices (id, paid) VALUES ($1, true) ON CONFLICT (id) DO UPDATE SET paid = true`
	if _, err := tx.ExecContext(ctx, pay, id); err != nil {
		return 0, fmt.Errorf("pay invoice %d: %w", id, err)
	}
	recorded, err := outbox.AppendSQL(ctx, tx, outbox.Context{}, outbox.Event{
		OrgID: org, AggregateType: "invoice", AggregateID: id, Action: "paid", RecordName: fmt.Sprintf("Invoice %d", id),
		Changes: json.RawMessage(`{"paid": {"before": false, "after": true}}`),
	})
	if err != nil {
		return 0, err
	}
	if err := tx.Commit(); err != nil {
		return 0, fmt.Errorf("commit: %w", err)
	}
	return recorded[0].ID, nil
}
