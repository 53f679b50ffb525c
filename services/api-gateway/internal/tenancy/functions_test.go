package tenancy_test

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
)

// value is one value of a row of A's, as text.
type value struct{ table, column, kind, text string }

// function is one that acts with its owner's rights.
type function struct {
	name        string
	args, kinds []string
	roles       []string
}

// functions calls them inside one transaction that is rolled back.
type functions struct {
	*rows
	list []function
	// values are A's without its secrets, by type.
	values map[string][]value
	// digest is a statement that gives one number for all rows of A.
	digest string
	// before is that number at the beginning; none is what a call with what nobody has answers.
	before int64
	none   map[string]string
}

// maxCalls bounds the combinations of arguments of one function and role.
const maxCalls = 150

func newFunctions(ctx context.Context, tx pgx.Tx, w *world) (*functions, error) {
	r, err := newRows(ctx, tx, w.a.OrgID, w.b.OrgID)
	if err != nil {
		return nil, err
	}
	f := &functions{rows: r, values: map[string][]value{}, none: map[string]string{}}
	list, err := tx.Query(ctx, `SELECT p.oid::regprocedure::text, p.proname::text, coalesce(p.proargnames[1:p.pronargs], '{}')::text[],
		ARRAY(SELECT format_type(t, NULL) FROM unnest(p.proargtypes) WITH ORDINALITY AS u(t, o) ORDER BY o),
		ARRAY(SELECT r FROM unnest($1::text[]) r WHERE has_function_privilege(r, p.oid, 'EXECUTE'))
		FROM pg_proc p WHERE p.pronamespace = 'sametick'::regnamespace AND p.prosecdef AND p.prorettype <> 'trigger'::regtype ORDER BY 1`, r.roles)
	if err != nil {
		return nil, err
	}
	var full string
	var fn function
	_, err = pgx.ForEachRow(list, []any{&full, &fn.name, &fn.args, &fn.kinds, &fn.roles}, func() error {
		f.list = append(f.list, function{fn.name, slices.Clone(fn.args), slices.Clone(fn.kinds), slices.Clone(fn.roles)})
		return nil
	})
	if err != nil {
		return nil, err
	}
	return f, f.readValues()
}

// secrets gives the values that prove who somebody is, wherever else they stand.
func (f *functions) secrets() (texts []string, err error) {
	for name := range secretColumns() {
		table, column, _ := strings.Cut(name, ".")
		more, err := query[string](f.ctx, f.tx, fmt.Sprintf(`SELECT %[1]s::text FROM sametick.%[2]s WHERE org_id = $1 AND %[1]s IS NOT NULL`, column, table), f.a)
		if err != nil {
			return nil, err
		}
		texts = append(texts, more...)
	}
	return texts, nil
}

func (f *functions) readValues() error {
	secrets, err := f.secrets()
	if err != nil {
		return err
	}
	var parts []string
	for _, t := range f.tables {
		if !t.org || isPartition(t.name) {
			continue
		}
		parts = append(parts, fmt.Sprintf(`SELECT coalesce(sum(hashtext(t::text)::bigint), 0) + count(*) AS n FROM %s t WHERE org_id = %d`, t.sql(), f.a))
		for _, c := range t.all {
			texts, err := query[string](f.ctx, f.tx, fmt.Sprintf(`SELECT DISTINCT %[1]s::text FROM %[2]s WHERE org_id = $1 AND %[1]s IS NOT NULL LIMIT 12`,
				pgx.Identifier{c.name}.Sanitize(), t.sql()), f.a)
			if err != nil {
				return err
			}
			for _, text := range texts {
				if slices.ContainsFunc(secrets, func(s string) bool { return s != "" && strings.Contains(text, s) }) {
					continue
				}
				f.values[c.kind] = append(f.values[c.kind], value{t.name, c.name, c.kind, text})
			}
		}
	}
	f.digest = "SELECT sum(n) FROM (" + strings.Join(parts, " UNION ALL ") + ") s"
	return nil
}

func (f *functions) check() (found []string, calls int, err error) {
	f.found = nil
	if err := f.tx.QueryRow(f.ctx, f.digest).Scan(&f.before); err != nil {
		return nil, 0, err
	}
	for _, fn := range f.list {
		if _, ok := operators()[fn.name]; ok {
			continue
		}
		for _, role := range fn.roles {
			for _, args := range f.arguments(fn) {
				if err := f.call(role, fn, args); err != nil {
					return nil, calls, fmt.Errorf("%s: %w", fn.name, err)
				}
				calls++
			}
		}
	}
	return f.found, calls, nil
}

// arguments gives combinations of A's values: those from columns that have the argument's name go first.
func (f *functions) arguments(fn function) (out [][]value) {
	pools := make([][]value, len(fn.kinds))
	for i, kind := range fn.kinds {
		pool := slices.Clone(f.values[kind])
		for _, text := range craftedArguments(f.a)[fn.name+" "+fn.args[i]] {
			pool = append([]value{{kind: kind, text: text}}, pool...)
		}
		if kind == "bigint" {
			pool = append([]value{{kind: kind, text: fmt.Sprint(f.a)}}, pool...)
		}
		slices.SortStableFunc(pool, func(x, y value) int { return rank(fn.args[i], x) - rank(fn.args[i], y) })
		if len(pool) == 0 {
			pool = []value{absent(kind)}
		}
		pools[i] = pool
	}
	if len(pools) == 0 {
		return [][]value{{}}
	}
	// All of the first two, the others turning beside them.
	for i := range pools[0] {
		for j := range pools[min(1, len(pools)-1)] {
			args := make([]value, len(pools))
			for k, pool := range pools {
				args[k] = pool[(i+j)%len(pool)]
			}
			args[0] = pools[0][i]
			if len(pools) > 1 {
				args[1] = pools[1][j]
			}
			if out = append(out, args); len(out) >= maxCalls {
				return out
			}
			if len(pools) == 1 {
				break
			}
		}
	}
	return out
}

func rank(arg string, v value) int {
	if v.column == "" || strings.HasSuffix(arg, v.column) {
		return 0
	}
	return 1
}

// absent is a value of a type that nobody has.
func absent(kind string) value {
	switch kind {
	case "bigint", "integer", "smallint", "numeric":
		return value{kind: kind, text: "32123"}
	case "boolean":
		return value{kind: kind, text: "false"}
	case "uuid":
		return value{kind: kind, text: "00000000-0000-4000-8000-000000000000"}
	case "jsonb", "json":
		return value{kind: kind, text: "{}"}
	case "timestamp with time zone":
		return value{kind: kind, text: "2001-02-03"}
	case "bytea":
		return value{kind: kind, text: `\x00`}
	case "inet":
		return value{kind: kind, text: "192.0.2.1"}
	default:
		if strings.HasSuffix(kind, "[]") {
			return value{kind: kind, text: "{}"}
		}
		return value{kind: kind, text: "nobody"}
	}
}

// call compares the answer to A's values with that to values that nobody has, and A's rows before and after.
func (f *functions) call(role string, fn function, args []value) error {
	said, after, err := f.answer(role, fn, args)
	if err != nil {
		return err
	}
	where := fmt.Sprintf("%s of %d: %s(%v)", role, f.b, fn.name, args)
	if after != f.before {
		f.say("%s changes rows of %d", where, f.a)
	}
	if strings.Contains(said, secretMark) {
		f.say("%s answers %s", where, said)
	}
	if tellsByName()[fn.name] != "" {
		return nil
	}
	key := role + fmt.Sprint(fn)
	if _, ok := f.none[key]; !ok {
		none := make([]value, len(args))
		for i, v := range args {
			none[i] = absent(v.kind)
		}
		nothing, _, err := f.answer(role, fn, none)
		if err != nil {
			return err
		}
		f.none[key] = normal(nothing, none)
	}
	if normal(said, args) != f.none[key] {
		f.say("%s answers %q, not %q as for what nobody has", where, said, f.none[key])
	}
	return nil
}

// answer gives all that a call answers, be it an error.
func (f *functions) answer(role string, fn function, args []value) (said string, after int64, err error) {
	places, texts := make([]string, len(args)), make([]any, len(args))
	for i, v := range args {
		places[i], texts[i] = fmt.Sprintf("$%d::text::%s", i+1, v.kind), v.text
	}
	err = f.as(role, f.b, func(tx pgx.Tx) error {
		inner, err := tx.Begin(f.ctx)
		if err != nil {
			return err
		}
		rows, failed := query[*string](f.ctx, inner, `SELECT to_jsonb(f)::text FROM sametick.`+pgx.Identifier{fn.name}.Sanitize()+
			`(`+strings.Join(places, ", ")+`) f`, texts...)
		if failed != nil {
			said = failed.Error()
			if err := inner.Rollback(f.ctx); err != nil {
				return err
			}
		}
		for _, row := range rows {
			if row != nil {
				said += *row
			}
		}
		if _, err := tx.Exec(f.ctx, "RESET ROLE"); err != nil {
			return err
		}
		return tx.QueryRow(f.ctx, f.digest).Scan(&after)
	})
	return said, after, err
}

// normal is an answer without the values that it was asked with.
func normal(said string, args []value) string {
	for _, v := range args {
		if len(v.text) > 0 {
			said = strings.ReplaceAll(said, v.text, "…")
		}
	}
	return said
}
