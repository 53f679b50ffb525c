package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/sametick/sametick/deploy/bench/internal/rig"
)

// mode is how pgbench sends the statements of a transaction.
type mode string

const (
	// pipelined sends them in one round trip, as api-gateway does.
	pipelined mode = "pipelined"
	// inTurn waits for each answer, between BEGIN and COMMIT.
	inTurn mode = "in turn"
)

// pgbench runs what api-gateway was seen to send.
type pgbench struct {
	binary   string
	version  string
	database string
	seconds  int
	scripts  map[mode]string // paths
	shown    string
	runs     int // each run takes record ids of its own
}

// preparePgbench captures the statements of one CreateRecord, writes the scripts and proves that each
// does exactly the work of one CreateRecord.
func (b *bench) preparePgbench(ctx context.Context, admin string) (*pgbench, error) {
	binary, err := findPgbench()
	if err != nil {
		return nil, err
	}
	version, err := exec.CommandContext(ctx, binary, "--version").Output()
	if err != nil {
		return nil, fmt.Errorf("ask pgbench for its version: %w", err)
	}
	statements, id, err := b.capture(ctx)
	if err != nil {
		return nil, err
	}
	p := &pgbench{
		binary: binary, version: strings.TrimSpace(string(version)), database: b.database, seconds: b.seconds,
		scripts: map[mode]string{},
	}
	var lines []string
	for _, s := range statements {
		lines = append(lines, scriptLine(s, id))
	}
	p.shown = strings.Join(lines, "\n")
	for m, ends := range map[mode][2]string{pipelined: {`\startpipeline`, `\endpipeline`}, inTurn: {"BEGIN;", "COMMIT;"}} {
		path := filepath.Join(b.rig.Dir(), strings.ReplaceAll(string(m), " ", "-")+".sql")
		text := "\\set n :n + 1\n\\set id :base + :client_id * 10000000 + :n\n" +
			strings.Join(append(append([]string{ends[0]}, lines...), ends[1]), "\n") + "\n"
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			return nil, fmt.Errorf("write a script: %w", err)
		}
		p.scripts[m] = path
		if err := p.prove(ctx, admin, m); err != nil {
			return nil, err
		}
	}
	return p, nil
}

// capture lets an api-gateway create a record and gives the statements it sent for it.
func (b *bench) capture(ctx context.Context) (statements []rig.Statement, id string, err error) {
	if err := b.rig.LogStatements(ctx, role, true); err != nil {
		return nil, "", err
	}
	gateway, err := b.startGateway(ctx, b.database)
	if err != nil {
		return nil, "", err
	}
	defer func() { err = errors.Join(err, gateway.Stop(), b.rig.LogStatements(ctx, role, false)) }()
	c, err := b.dial(gateway.GRPC)
	if err != nil {
		return nil, "", err
	}
	defer func() { _ = c.conn.Close() }()
	// The first draws a block of ids besides, which the second finds drawn.
	if _, err := c.create(ctx); err != nil {
		return nil, "", err
	}
	before, err := b.rig.Statements(ctx, role)
	if err != nil {
		return nil, "", err
	}
	record, err := c.create(ctx)
	if err != nil {
		return nil, "", err
	}
	all, err := b.rig.Statements(ctx, role)
	if err != nil {
		return nil, "", err
	}
	statements = slices.DeleteFunc(all[len(before):], func(s rig.Statement) bool {
		return isTransactional(s.SQL) || !strings.Contains(s.SQL, "sametick.") // a look at readiness is none of it
	})
	if len(statements) == 0 {
		return nil, "", errors.New("api-gateway created a record and no statement of it was logged")
	}
	return statements, strconv.FormatInt(record.GetId(), 10), nil
}

// isTransactional tells BEGIN and COMMIT, which the scripts bring themselves.
func isTransactional(sql string) bool {
	word, _, _ := strings.Cut(strings.ToLower(strings.TrimSpace(sql)), " ")
	return word == "begin" || word == "commit"
}

// scriptLine writes a captured statement for pgbench: its parameters as literals, the record's id as
// the variable, and the request's id made of that.
func scriptLine(s rig.Statement, id string) string {
	number := regexp.MustCompile(`\$(\d+)`)
	entity := regexp.MustCompile(`("aggregate_id": ?)` + id + `([,}])`)
	request := regexp.MustCompile(`("request_id": ?")[^"]*"`)
	sql := strings.Join(strings.Fields(s.SQL), " ")
	return number.ReplaceAllStringFunc(sql, func(p string) string {
		n, err := strconv.Atoi(p[1:])
		if err != nil || n < 1 || n > len(s.Args) {
			return p
		}
		switch arg := s.Args[n-1]; {
		case arg == nil:
			return "NULL"
		case *arg == id:
			return ":id::bigint"
		case entity.MatchString(*arg):
			return "replace(" + literal(entity.ReplaceAllString(*arg, "${1}@${2}")) + ", '@', :id::text)"
		case request.MatchString(*arg): // each request has its own, which falls anywhere into its index
			return "replace(" + literal(request.ReplaceAllString(*arg, `${1}@"`)) + ", '@', left(md5(:id::text), 26))"
		default:
			return literal(*arg)
		}
	}) + ";"
}

// literal quotes a string with its colons escaped, which pgbench would take for variables.
func literal(s string) string {
	return `E'` + strings.NewReplacer(`\`, `\\`, `'`, `''`, `:`, `\x3a`).Replace(s) + `'`
}

// prove runs two transactions and counts what they left.
func (p *pgbench) prove(ctx context.Context, admin string, m mode) error {
	conn, err := pgx.Connect(ctx, admin)
	if err != nil {
		return fmt.Errorf("connect to Postgres: %w", err)
	}
	defer func() { _ = conn.Close(ctx) }()
	if _, err := p.exec(ctx, m, "-c", "1", "-t", "2"); err != nil {
		return err
	}
	// Two transactions: were the id fixed, the second would collide, or its events would pile up on one
	// entity and its clients wait for each other.
	var n [3]int64
	err = conn.QueryRow(ctx, `SELECT
		(SELECT count(*) FROM sametick.records WHERE id BETWEEN $1::bigint + 1 AND $1::bigint + 2),
		(SELECT count(*) FROM sametick.events WHERE aggregate_id BETWEEN $1::bigint + 1 AND $1::bigint + 2 AND sequence <= 2),
		(SELECT count(*) FROM sametick.audit_entries WHERE aggregate_id BETWEEN $1::bigint + 1 AND $1::bigint + 2)`, p.base()).Scan(&n[0], &n[1], &n[2])
	if err != nil {
		return fmt.Errorf("count: %w", err)
	}
	if n != [3]int64{2, 4, 2} {
		return fmt.Errorf("two transactions of pgbench (%s) do not do the work of two CreateRecord: they left %d records, events and audit entries", m, n)
	}
	return nil
}

// run gives the transactions a second of n clients.
func (p *pgbench) run(ctx context.Context, n int, m mode) (float64, error) {
	out, err := p.exec(ctx, m, "-c", strconv.Itoa(n), "-j", strconv.Itoa(min(n, 2)), "-T", strconv.Itoa(p.seconds))
	if err != nil {
		return 0, err
	}
	found := regexp.MustCompile(`(?m)^tps = ([0-9.]+) \(without initial connection time\)`).FindStringSubmatch(out)
	if found == nil {
		return 0, fmt.Errorf("pgbench tells no rate:\n%s", out)
	}
	return strconv.ParseFloat(found[1], 64)
}

// base is below the record ids of the newest run.
func (p *pgbench) base() int64 { return int64(p.runs) * 1_000_000_000_000 }

func (p *pgbench) exec(ctx context.Context, m mode, args ...string) (string, error) {
	p.runs++
	args = append(args, "-n", "-M", "prepared", "-D", "n=0", "-D", fmt.Sprintf("base=%d", p.base()),
		"-f", p.scripts[m], p.database)
	out, err := exec.CommandContext(ctx, p.binary, args...).CombinedOutput()
	// pgbench goes on without a client whose statement failed, and may still end with 0.
	if err != nil || strings.Contains(string(out), "ERROR") || strings.Contains(string(out), "aborted") {
		return "", fmt.Errorf("pgbench (%s): %w\n%s", m, errors.Join(err, errors.New("a statement failed")), out)
	}
	return string(out), nil
}

// findPgbench looks where pkg/devstack looks for the server: in PATH and in the packages' directories.
func findPgbench() (string, error) {
	if path, err := exec.LookPath("pgbench"); err == nil {
		return path, nil
	}
	var found []string
	for _, pattern := range []string{"/usr/lib/postgresql/*/bin/pgbench", "/usr/pgsql-*/bin/pgbench", "/opt/homebrew/opt/postgresql*/bin/pgbench"} {
		matches, err := filepath.Glob(pattern)
		if err != nil {
			return "", fmt.Errorf("look for pgbench: %w", err)
		}
		found = append(found, matches...)
	}
	if len(found) == 0 {
		return "", errors.New("pgbench is needed and not installed: it comes with PostgreSQL's server or contrib package")
	}
	return found[len(found)-1], nil
}
