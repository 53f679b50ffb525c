package tenancy_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/require"
)

// table is one table of the schema, as pg_catalog has it.
type table struct {
	name string
	// columns are those that a statement may write, with their types.
	columns []column
	// all are also those that it generates.
	all     []column
	org     bool
	secured bool
}

type column struct{ name, kind string }

func (t table) list() string {
	names := make([]string, len(t.columns))
	for i, c := range t.columns {
		names[i] = pgx.Identifier{c.name}.Sanitize()
	}
	return strings.Join(names, ", ")
}

func (t table) sql() string { return pgx.Identifier{"sametick", t.name}.Sanitize() }

// rows asks, inside one transaction that is rolled back, what each role of a service can see and change of
// the tables while it acts for organisation b, which must be all of b's and nothing of a's. It may be asked
// again after the schema has changed, as the negative controls do.
type rows struct {
	ctx  context.Context
	tx   pgx.Tx
	a, b int64
	// roles are those that services log in as.
	roles  []string
	tables []table
	found  []string
}

func newRows(ctx context.Context, tx pgx.Tx, a, b int64) (*rows, error) {
	r := &rows{ctx: ctx, tx: tx, a: a, b: b}
	roles, err := query[string](ctx, tx, `SELECT rolname FROM pg_roles WHERE rolname ~ '^sametick_' AND rolcanlogin AND rolname !~ 'pgtest' ORDER BY 1`)
	if err != nil {
		return nil, err
	}
	r.roles = roles
	return r, r.readTables()
}

func query[T any](ctx context.Context, tx pgx.Tx, sql string, args ...any) ([]T, error) {
	rows, err := tx.Query(ctx, sql, args...)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowTo[T])
}

func (r *rows) readTables() error {
	names, err := query[string](r.ctx, r.tx, `SELECT relname::text FROM pg_class WHERE relnamespace = 'sametick'::regnamespace AND relkind IN ('r', 'p') ORDER BY 1`)
	if err != nil {
		return err
	}
	for _, name := range names {
		t := table{name: name}
		rows, err := r.tx.Query(r.ctx, `SELECT attname::text, format_type(atttypid, atttypmod), attgenerated = '' FROM pg_attribute
			WHERE attrelid = $1::regclass AND attnum > 0 AND NOT attisdropped ORDER BY attnum`, "sametick."+name)
		if err != nil {
			return err
		}
		var c column
		var written bool
		_, err = pgx.ForEachRow(rows, []any{&c.name, &c.kind, &written}, func() error {
			t.org = t.org || c.name == "org_id"
			t.all = append(t.all, c)
			if written {
				t.columns = append(t.columns, c)
			}
			return nil
		})
		if err != nil {
			return err
		}
		if err := r.tx.QueryRow(r.ctx, `SELECT relrowsecurity FROM pg_class WHERE oid = $1::regclass`, "sametick."+name).Scan(&t.secured); err != nil {
			return err
		}
		r.tables = append(r.tables, t)
	}
	return nil
}

func (r *rows) say(format string, args ...any) {
	r.found = append(r.found, fmt.Sprintf(format, args...))
}

// check asks everything and gives what it found wrong.
func (r *rows) check() ([]string, error) { return r.search("", false) }

// notices asks until something is found, about one table before the others.
func (r *rows) notices(first string) (bool, error) {
	found, err := r.search(first, true)
	return len(found) > 0, err
}

func (r *rows) search(first string, enough bool) ([]string, error) {
	r.found = nil
	if err := r.strangers(); err != nil {
		return nil, err
	}
	tables := slices.Clone(r.tables)
	if i := slices.IndexFunc(tables, func(t table) bool { return t.name == first }); i > 0 {
		tables[0], tables[i] = tables[i], tables[0]
	}
	for _, t := range tables {
		if enough && len(r.found) > 0 {
			break
		}
		if !t.org {
			if _, ok := notTenants()[t.name]; !ok {
				r.say("table %s has no org_id: say why in notTenants, known_test.go", t.name)
			}
			continue
		}
		if !t.secured {
			r.say("table %s has an org_id and no row-level security", t.name)
		}
		var own, foreign []byte
		sample := `SELECT to_jsonb(t) FROM ` + t.sql() + ` t WHERE org_id = $1 LIMIT 1`
		errA, errB := r.tx.QueryRow(r.ctx, sample, r.a).Scan(&foreign), r.tx.QueryRow(r.ctx, sample, r.b).Scan(&own)
		if errors.Is(errors.Join(errA, errB), pgx.ErrNoRows) {
			if !isPartition(t.name) {
				r.say("table %s has no row of each organisation: plant one, see plants in known_test.go", t.name)
			}
			continue
		}
		if err := errors.Join(errA, errB); err != nil {
			return nil, err
		}
		for _, role := range r.roles {
			if err := r.asRole(role, t, own, foreign); err != nil {
				return nil, fmt.Errorf("%s on %s: %w", role, t.name, err)
			}
		}
	}
	return r.found, nil
}

// isPartition: rows lie in the one that their ids fall into; nobody may use partitions by name.
func isPartition(name string) bool {
	return strings.HasPrefix(name, "events_") || strings.HasPrefix(name, "audit_entries_")
}

// strangers finds what row-level security does not bind.
func (r *rows) strangers() error {
	free, err := query[string](r.ctx, r.tx, `SELECT rolname::text FROM pg_roles WHERE rolname = ANY($1) AND
		(rolsuper OR rolbypassrls OR rolcreaterole OR pg_has_role(rolname, 'sametick_owner', 'MEMBER'))`, r.roles)
	if err != nil {
		return err
	}
	for _, role := range free {
		r.say("role %s can lift its limits", role)
	}
	views, err := query[string](r.ctx, r.tx, `SELECT relname::text FROM pg_class WHERE relnamespace = 'sametick'::regnamespace AND relkind IN ('v', 'm', 'f')
		AND NOT coalesce('security_invoker=true' = ANY(reloptions), false)`)
	for _, v := range views {
		r.say("view %s shows what its owner may see: make it WITH (security_invoker = true)", v)
	}
	return err
}

// asRole asks one role about one table.
func (r *rows) asRole(role string, t table, own, foreign []byte) error {
	var total, mine int64
	if err := r.tx.QueryRow(r.ctx, `SELECT count(*), count(*) FILTER (WHERE org_id = $1) FROM `+t.sql(), r.b).Scan(&total, &mine); err != nil {
		return err
	}
	may := map[string]bool{}
	for _, p := range []string{"SELECT", "INSERT", "UPDATE", "DELETE", "TRUNCATE", "REFERENCES", "TRIGGER"} {
		var yes bool
		ask := `SELECT has_any_column_privilege($1, $2::regclass, $3)`
		if p == "DELETE" || p == "TRUNCATE" || p == "TRIGGER" {
			ask = `SELECT has_table_privilege($1, $2::regclass, $3)`
		}
		if err := r.tx.QueryRow(r.ctx, ask, role, "sametick."+t.name, p).Scan(&yes); err != nil {
			return err
		}
		may[p] = yes
	}
	for _, p := range []string{"TRUNCATE", "REFERENCES", "TRIGGER"} {
		if may[p] {
			r.say("%s may %s %s, which no policy binds", role, p, t.name)
		}
	}
	want := mine
	everything := slices.Contains(seesAll(), role+" "+t.name)
	if everything {
		want = total
	}
	if may["SELECT"] {
		r.count(role, t, want, everything)
	}
	if may["INSERT"] {
		r.insert(role, t, foreign, !everything)
		r.insert(role, t, own, false)
	}
	if may["UPDATE"] {
		r.update(role, t, want, everything)
	}
	if may["DELETE"] {
		n, err := r.exec(role, r.b, `DELETE FROM `+t.sql())
		if err != nil && !isConstraint(err) || err == nil && n != want {
			r.say("%s of %d deletes %d rows of %s, not %d (%v)", role, r.b, n, t.name, want, err)
		}
	}
	return nil
}

func (r *rows) count(role string, t table, want int64, everything bool) {
	n, err := r.number(role, r.b, `SELECT count(*) FROM `+t.sql())
	if err != nil || n != want {
		r.say("%s of %d sees %d rows of %s, not its %d (%v)", role, r.b, n, t.name, want, err)
	}
	if everything {
		return
	}
	if n, err := r.number(role, r.b, `SELECT count(*) FROM `+t.sql()+` WHERE org_id = $1`, r.a); err != nil || n != 0 {
		r.say("%s of %d sees %d rows of %d in %s (%v)", role, r.b, n, r.a, t.name, err)
	}
	if n, err := r.number(role, 0, `SELECT count(*) FROM `+t.sql()); err != nil || n != 0 {
		r.say("%s of no organisation sees %d rows of %s (%v)", role, n, t.name, err)
	}
}

// insert writes a copy of a row: the policy is asked before any constraint, so the copy of a row that may
// be written meets its original.
func (r *rows) insert(role string, t table, row []byte, refused bool) {
	columns := t.list()
	_, err := r.exec(role, r.b, `INSERT INTO `+t.sql()+` (`+columns+`) OVERRIDING SYSTEM VALUE SELECT `+columns+
		` FROM jsonb_populate_record(NULL::`+t.sql()+`, $1::jsonb)`, string(row))
	if isPrivilege(err) { // on some columns only
		allowed := t.granted(r, role)
		columns = allowed.list()
		_, err = r.exec(role, r.b, `INSERT INTO `+t.sql()+` (`+columns+`) SELECT `+columns+
			` FROM jsonb_populate_record(NULL::`+t.sql()+`, $1::jsonb)`, string(row))
	}
	switch {
	case refused && !isPolicy(err):
		r.say("%s of %d may insert a row of %d into %s (%v)", role, r.b, r.a, t.name, err)
	case !refused && err != nil && !isConstraint(err):
		r.say("%s of %d cannot insert into %s: %v", role, r.b, t.name, err)
	}
}

// granted is the table with the columns that the role may insert.
func (t table) granted(r *rows, role string) table {
	t.columns = slices.DeleteFunc(slices.Clone(t.columns), func(c column) bool {
		var yes bool
		err := r.tx.QueryRow(r.ctx, `SELECT has_column_privilege($1, $2::regclass, $3, 'INSERT')`, role, "sametick."+t.name, c.name).Scan(&yes)
		return err != nil || !yes
	})
	return t
}

func (r *rows) update(role string, t table, want int64, everything bool) {
	for _, c := range t.columns {
		var may, sees bool
		err := r.tx.QueryRow(r.ctx, `SELECT has_column_privilege($1, $2::regclass, $3, 'UPDATE'), has_column_privilege($1, $2::regclass, $3, 'SELECT')`,
			role, "sametick."+t.name, c.name).Scan(&may, &sees)
		if err != nil || !may {
			continue
		}
		name := pgx.Identifier{c.name}.Sanitize()
		value := name
		if !sees {
			value = "DEFAULT"
		}
		n, err := r.exec(role, r.b, `UPDATE `+t.sql()+` SET `+name+` = `+value)
		if err != nil && !isConstraint(err) || err == nil && n != want {
			r.say("%s of %d updates %d rows of %s, not %d (%v)", role, r.b, n, t.name, want, err)
		}
		if c.name == "org_id" && !everything {
			if _, err := r.exec(role, r.b, `UPDATE `+t.sql()+` SET org_id = $1`, r.a); !isPolicy(err) && mustMatch(want) {
				r.say("%s of %d gives rows of %s to %d (%v)", role, r.b, t.name, r.a, err)
			}
		}
	}
}

func mustMatch(rows int64) bool { return rows > 0 }

// as runs fn as a role that acts for an organisation (0: none), and undoes it.
func (r *rows) as(role string, org int64, fn func(pgx.Tx) error) error {
	tx, err := r.tx.Begin(r.ctx) // a savepoint
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback(r.ctx) }()
	text := ""
	if org != 0 {
		text = fmt.Sprint(org)
	}
	if _, err := tx.Exec(r.ctx, `SELECT set_config('sametick.org_id', $1, true)`, text); err != nil {
		return err
	}
	if _, err := tx.Exec(r.ctx, `SET LOCAL ROLE `+pgx.Identifier{role}.Sanitize()); err != nil {
		return err
	}
	return fn(tx)
}

func (r *rows) exec(role string, org int64, sql string, args ...any) (n int64, err error) {
	err = r.as(role, org, func(tx pgx.Tx) error {
		tag, err := tx.Exec(r.ctx, sql, args...)
		n = tag.RowsAffected()
		return err
	})
	return n, err
}

func (r *rows) number(role string, org int64, sql string, args ...any) (n int64, err error) {
	err = r.as(role, org, func(tx pgx.Tx) error { return tx.QueryRow(r.ctx, sql, args...).Scan(&n) })
	return n, err
}

func message(err error) (code, text string) {
	var e *pgconn.PgError
	if errors.As(err, &e) {
		return e.Code, e.Message
	}
	return "", ""
}

// isPolicy tells whether row-level security refused a row; the same SQLSTATE also says that a grant is missing.
func isPolicy(err error) bool {
	code, text := message(err)
	return code == "42501" && strings.Contains(text, "row-level security")
}

func isPrivilege(err error) bool {
	code, text := message(err)
	return code == "42501" && strings.Contains(text, "permission denied")
}

// isConstraint: the row was let through and met a key, a check or a column that has to be set.
func isConstraint(err error) bool {
	code, _ := message(err)
	return strings.HasPrefix(code, "23") || code == "428C9"
}

// TestRows plants data of two organisations in every table and asks each role of a service about each table.
// Then, in turn, each policy is dropped, each is opened and each table is left without any: each time the
// same questions must find it.
func TestRows(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ctx := t.Context()
	tx, err := w.g.Admin.Begin(ctx)
	require.NoError(t, err)
	defer func() { require.NoError(t, tx.Rollback(ctx)) }()
	r, err := newRows(ctx, tx, w.a.OrgID, w.b.OrgID)
	require.NoError(t, err)
	found, err := r.check()
	require.NoError(t, err)
	require.Empty(t, found, strings.Join(found, "\n"))

	type policy struct{ Table, Name, Cmd, Qual, Check string }
	list, err := tx.Query(ctx, `SELECT tablename::text, policyname::text, cmd, coalesce(qual, ''), coalesce(with_check, '') FROM pg_policies WHERE schemaname = 'sametick' ORDER BY 1, 2`)
	require.NoError(t, err)
	policies, err := pgx.CollectRows(list, pgx.RowToStructByPos[policy])
	require.NoError(t, err)
	require.NotEmpty(t, policies)
	controls := 0
	control := func(table, sql string) {
		t.Helper()
		undo, err := tx.Begin(ctx)
		require.NoError(t, err)
		_, err = undo.Exec(ctx, sql)
		require.NoError(t, err, sql)
		broken, err := newRows(ctx, undo, w.a.OrgID, w.b.OrgID)
		require.NoError(t, err)
		noticed, err := broken.notices(table)
		require.NoError(t, err, sql)
		require.True(t, noticed, "nothing notices: %s", sql)
		require.NoError(t, undo.Rollback(ctx))
		controls++
	}
	for _, p := range policies {
		on := pgx.Identifier{p.Name}.Sanitize() + " ON " + pgx.Identifier{"sametick", p.Table}.Sanitize()
		control(p.Table, "DROP POLICY "+on)
		if p.Qual == "true" {
			continue
		}
		switch p.Cmd {
		case "INSERT":
			control(p.Table, "ALTER POLICY "+on+" WITH CHECK (true)")
		case "SELECT", "DELETE":
			control(p.Table, "ALTER POLICY "+on+" USING (true)")
		default:
			control(p.Table, "ALTER POLICY "+on+" USING (true) WITH CHECK (true)")
			if writable(t, tx, p.Table) {
				control(p.Table, "ALTER POLICY "+on+" WITH CHECK (true)")
			}
		}
	}
	for _, tab := range r.tables {
		if tab.org {
			control(tab.name, "ALTER TABLE "+tab.sql()+" DISABLE ROW LEVEL SECURITY")
		}
	}
	control("", `CREATE TABLE sametick.forgotten (org_id bigint)`)
	control("", `CREATE TABLE sametick.unsaid (x bigint)`)
	control("", `CREATE VIEW sametick.window AS SELECT * FROM sametick.records`)
	control("", `GRANT TRUNCATE ON sametick.records TO sametick_api`)
	control("", `GRANT sametick_owner TO sametick_api`)
	t.Logf("%d tables, %d roles, %d policies; %d broken schemas, each was noticed", len(r.tables), len(r.roles), len(policies), controls)
}

// writable tells whether a service may write to a table at all: else no check of a policy is ever asked.
func writable(t *testing.T, tx pgx.Tx, table string) (yes bool) {
	t.Helper()
	require.NoError(t, tx.QueryRow(t.Context(), `SELECT bool_or(has_any_column_privilege(rolname, $1::regclass, 'INSERT, UPDATE')) FROM pg_roles
		WHERE rolname ~ '^sametick_' AND rolcanlogin`, "sametick."+table).Scan(&yes))
	return yes
}

// TestFunctions calls each function that acts with its owner's rights, as each role that may, for organisation
// B with everything that A's rows hold but its secrets: nothing of A is answered and nothing of A changes.
func TestFunctions(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ctx := t.Context()
	tx, err := w.g.Admin.Begin(ctx)
	require.NoError(t, err)
	defer func() { require.NoError(t, tx.Rollback(ctx)) }()
	f, err := newFunctions(ctx, tx, w)
	require.NoError(t, err)
	found, calls, err := f.check()
	require.NoError(t, err)
	require.Empty(t, found, strings.Join(found, "\n"))
	require.NotZero(t, calls)
	t.Logf("%d calls of %d functions", calls, len(f.list))

	for _, sql := range []string{
		`CREATE FUNCTION sametick.leak(x bigint) RETURNS SETOF text LANGUAGE sql SECURITY DEFINER AS 'SELECT name || attributes::text FROM sametick.records WHERE id = x'`,
		`CREATE FUNCTION sametick.leak(external text) RETURNS boolean LANGUAGE sql SECURITY DEFINER AS 'SELECT true FROM sametick.records WHERE external_id = external'`,
		`CREATE FUNCTION sametick.leak(org bigint, kind text) RETURNS bigint LANGUAGE sql SECURITY DEFINER AS 'UPDATE sametick.records SET version = version + 1 WHERE org_id = org RETURNING version'`,
	} {
		undo, err := tx.Begin(ctx)
		require.NoError(t, err)
		_, err = undo.Exec(ctx, sql)
		require.NoError(t, err)
		_, err = undo.Exec(ctx, `ALTER FUNCTION sametick.leak OWNER TO sametick_owner; GRANT EXECUTE ON FUNCTION sametick.leak TO sametick_api`)
		require.NoError(t, err)
		broken, err := newFunctions(ctx, undo, w)
		require.NoError(t, err)
		found, _, err := broken.check()
		require.NoError(t, err)
		require.NotEmpty(t, found, "nothing notices: %s", sql)
		require.NoError(t, undo.Rollback(ctx))
	}
}
