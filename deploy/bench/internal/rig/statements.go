package rig

import (
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"strings"
	"time"
)

// Statement is one SQL statement as the server got it.
type Statement struct {
	SQL string
	// Args are the parameters by their number less one; nil is NULL.
	Args []*string
}

// LogStatements makes the server log what a role sends in sessions that begin from now on.
func (r *Rig) LogStatements(ctx context.Context, role string, on bool) error {
	setting := fmt.Sprintf(`ALTER ROLE %s RESET log_statement`, role)
	if on {
		setting = fmt.Sprintf(`ALTER ROLE %s SET log_statement = 'all'`, role)
	}
	if _, err := r.admin.Exec(ctx, setting); err != nil {
		return fmt.Errorf("log the statements of %s: %w", role, err)
	}
	return nil
}

// Columns of Postgres' CSV log (PostgreSQL documentation, 20.8.4).
const (
	logUser    = 1
	logMessage = 13
	logDetail  = 14
)

// Statements gives what a role has sent since LogStatements, in order.
func (r *Rig) Statements(ctx context.Context, role string) ([]Statement, error) {
	if err := r.flushLog(ctx); err != nil {
		return nil, err
	}
	f, err := os.Open(postgresLog(r.dir))
	if err != nil {
		return nil, fmt.Errorf("open the log of Postgres: %w", err)
	}
	defer func() { _ = f.Close() }()
	rows := csv.NewReader(f)
	rows.FieldsPerRecord = -1
	var list []Statement
	for {
		row, err := rows.Read()
		if errors.Is(err, io.EOF) {
			return list, nil
		}
		if err != nil {
			return nil, fmt.Errorf("read the log of Postgres: %w", err)
		}
		if len(row) <= logDetail || row[logUser] != role {
			continue
		}
		if sql, ok := statementOf(row[logMessage]); ok {
			args, err := parametersOf(row[logDetail])
			if err != nil {
				return nil, err
			}
			list = append(list, Statement{SQL: sql, Args: args})
		}
	}
}

// flushLog waits until the log collector, which writes behind the sessions, has come to this moment.
func (r *Rig) flushLog(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	mark := "bench mark " + secret()
	if _, err := r.admin.Exec(ctx, `DO $$ BEGIN RAISE LOG '`+mark+`'; END $$`); err != nil {
		return fmt.Errorf("mark the log of Postgres: %w", err)
	}
	poll := time.NewTicker(10 * time.Millisecond)
	defer poll.Stop()
	for !strings.Contains(read(postgresLog(r.dir)), mark) {
		select {
		case <-poll.C:
		case <-ctx.Done():
			return fmt.Errorf("the log of Postgres at %s stands still: %w", postgresLog(r.dir), ctx.Err())
		}
	}
	return nil
}

// statementOf takes the SQL out of "statement: …" and "execute NAME: …".
func statementOf(message string) (string, bool) {
	kind, sql, found := strings.Cut(message, ": ")
	return sql, found && (kind == "statement" || strings.HasPrefix(kind, "execute "))
}

// parametersOf reads "parameters: $1 = 'it”s', $2 = NULL".
func parametersOf(detail string) ([]*string, error) {
	text, ok := strings.CutPrefix(detail, "parameters: ")
	if !ok {
		return nil, nil
	}
	one := regexp.MustCompile(`^\$\d+ = (NULL|'(?:[^']|'')*')(?:, |$)`)
	var args []*string
	for text != "" {
		m := one.FindStringSubmatch(text)
		if m == nil {
			return nil, fmt.Errorf("not a list of parameters: %q", text)
		}
		text = text[len(m[0]):]
		if m[1] == "NULL" {
			args = append(args, nil)
			continue
		}
		value := strings.ReplaceAll(m[1][1:len(m[1])-1], "''", "'")
		args = append(args, &value)
	}
	return args, nil
}
